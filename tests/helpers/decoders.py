"""Decoders beside those of the reference, whole and token by token."""

import json

import torch
import transformers

import triarch
from triarch.layers.cache import Cache


def both(folder, architecture, name, **raw):
    """One model, ours and the reference's, from a folder that holds the config as it is given here."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **json.loads(json.dumps(raw)))  # it changes what it is given
    theirs = getattr(transformers, architecture)(config).eval()
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    raw |= {"model_type": name, "architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(raw))
    return triarch.load(folder), theirs


def ids(*shape, seed=1):
    return torch.randint(5, 99, shape, generator=torch.Generator().manual_seed(seed))


def left_padded(*texts):
    """Texts (1, T) as a batch, padded at the beginning, and its mask."""
    width = max(text.shape[1] for text in texts)
    pads = [width - text.shape[1] for text in texts]
    batch = torch.cat([torch.nn.functional.pad(text, (pad, 0)) for text, pad in zip(texts, pads, strict=True)])
    return batch, (torch.arange(width) >= torch.tensor(pads)[:, None]).long()


def in_one_row(*texts):
    """Texts (1, T) one after the other, and the mask that tells them apart."""
    return torch.cat(texts, 1), torch.cat([torch.full_like(text, i + 1) for i, text in enumerate(texts)], 1)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def stepwise(model, input_ids, first, attention_mask=None, **options):
    """The scores of each token, of which `first` are given at once and the others one by one."""
    cache, scores = Cache(**options), []
    for begin, end in _steps(first, input_ids.shape[1]):
        mask = None if attention_mask is None else attention_mask[:, :end]
        scores.append(model(input_ids[:, begin:end], mask, cache=cache).logits)
    return torch.cat(scores, 1)


@torch.no_grad()
def their_stepwise(model, input_ids, first):
    past, scores = None, []
    for begin, end in _steps(first, input_ids.shape[1]):
        found = model(input_ids[:, begin:end], past_key_values=past, use_cache=True)
        past = found.past_key_values
        scores.append(found.logits)
    return torch.cat(scores, 1)


def _steps(first, tokens):
    return [(0, first), *((i, i + 1) for i in range(first, tokens))]
