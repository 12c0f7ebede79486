"""A batch for the tiny model of any family, of the medium that the family reads."""

import torch

import samples_of_images as samples
from triarch.family import EncoderDecoder
from triarch.kinds import Image
from triarch.models import family


def inputs(name, head, seed=1):
    """Two images through the family's own processor; or a padded batch of ids, for multiple choice three choices for
    each of two questions."""
    generator = torch.Generator().manual_seed(seed)
    kind = family(name)
    config = kind.tiny
    if kind.reads.medium is Image:
        processor = kind.reads.made({"size": [*config.image_sides]}, config)
        given = [samples.image(side, 2 * side, seed) for side in (20, 30)]
        return processor.collate([piece for image in given for piece in processor.pieces(processor.read(image))])
    lead = (2, 3) if head.endswith("MultipleChoice") else (2,)
    pad = getattr(config, "pad_id", 0)
    input_ids = torch.randint(5, config.vocab_size, (*lead, 7), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, ..., 5:] = 0
    batch = {"input_ids": input_ids.where(attention_mask.bool(), pad), "attention_mask": attention_mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        batch["token_type_ids"] = torch.randint(0, 2, input_ids.shape, generator=generator)
    if writes(name) and head.endswith("SequenceClassification"):  # which is read off the end of each text
        ends = attention_mask.sum(1, keepdim=True) - 1
        batch["input_ids"] = batch["input_ids"].scatter(1, ends, config.end_id)
    elif writes(name):
        batch["decoder_input_ids"] = torch.randint(5, config.target_vocab_size, (2, 5), generator=generator)
    return batch


def writes(name):
    """Whether a family has an encoder and a decoder."""
    return issubclass(family(name).network, EncoderDecoder)
