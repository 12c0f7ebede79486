"""Tasks of encoder–decoders over tiny checkpoints, and texts for them."""

import tiny
import triarch

FEW = {"num_beams": 1, "max_new_tokens": 4, "min_length": 0}
PAGE = " ".join(tiny.SENTENCES) + "\n" + " ".join(reversed(tiny.SENTENCES)) + "\n\n"
ADA = "Ada Lovelace lived in London."


def task(name, model, **defaults):
    return triarch.pipeline(name, tiny.load(model) if isinstance(model, str) else model, **defaults)


def french(model, **defaults):
    return task("translation_en_to_fr", model, **defaults)


def pieces_of(made, text, **options):
    """Those that a task reads a text in."""
    return made.prepare(text, made.options(options)).notes
