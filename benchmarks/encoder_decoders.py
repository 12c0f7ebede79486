"""Writing from a source, ours beside the reference and CTranslate2, in one run.

    python benchmarks/encoder_decoders.py            # BART-base and T5-small, random weights made on the spot
    python benchmarks/encoder_decoders.py --only t5

A source of 512 tokens is read and 64 are written, batch 1, greedily and with 4 beams: the whole of it in milliseconds,
and beside it, of the greedy run, the time to the first token, which is that of the encoder but for a step. Ours is
measured with ordinary linear layers, and with packed ones, as `triarch.load` gives them. Each measurement is a process
of its own with two threads; the fastest of three rounds counts, after one that warms up. Needs `ctranslate2`; a
peer that is not there is an error unless it is named with --without.
"""

import argparse
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

from decoders import THREADS, best, one

SOURCE, NEW = 512, 64
KINDS = {"bart": "BartForConditionalGeneration", "t5": "T5ForConditionalGeneration"}
SIZES = {
    "bart": {  # BART-base
        **{
            f"{side}_{what}": size
            for side in ("encoder", "decoder")
            for what, size in (("layers", 6), ("ffn_dim", 3072))
        },
        **{f"{side}_attention_heads": 12 for side in ("encoder", "decoder")},
        "d_model": 768,
        "normalize_before": False,  # CTranslate2's converter asks for these
        "normalize_embedding": True,
        "vocab_size": 50265,
        "decoder_start_token_id": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "t5": {  # T5-small
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
        "vocab_size": 32128,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
}
PEERS = [
    ("triarch", "float32"),
    ("triarch packed", "float32"),
    ("transformers", "float32"),
    ("ctranslate2", "float32"),
    ("triarch packed", "bfloat16"),
    ("transformers", "bfloat16"),
    ("ctranslate2", "int8"),
]


def ids() -> list[int]:
    import numpy as np

    return [*np.random.default_rng(0).integers(5, 1000, SOURCE - 1).tolist(), 2]


def measured(run) -> dict[str, float]:
    """`run(tokens, beams)` -> milliseconds."""
    return {
        "first_ms": best(lambda: run(1, 1)) * 1e3,
        "greedy_ms": best(lambda: run(NEW, 1)) * 1e3,
        "beams_ms": best(lambda: run(NEW, 4)) * 1e3,
    }


def ours(folder: Path, precision: str, packed: bool) -> dict[str, float]:
    import torch

    import triarch
    from triarch import checkpoint
    from triarch.engine.prepare import prepare

    torch.set_num_threads(THREADS)
    model = checkpoint.load(folder, dtype=precision)
    if packed:
        prepare(model)

    def run(count: int, beams: int) -> None:
        triarch.generate(model, ids(), max_new_tokens=count, ignore_eos=True, num_beams=beams)

    return measured(run)


def reference(name: str, folder: Path, precision: str) -> dict[str, float]:
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    transformers.utils.logging.set_verbosity_error()
    model = getattr(transformers, KINDS[name]).from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    source = torch.tensor([ids()])

    def run(count: int, beams: int) -> None:
        model.generate(
            source,
            attention_mask=torch.ones_like(source),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            num_beams=beams,
        )

    return measured(run)


def ctranslate(folder: Path, precision: str) -> dict[str, float]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    converted = folder.with_name(f"{folder.name}-ct2")
    if not converted.exists():
        TransformersConverter(str(folder)).convert(str(converted))
    translator = ctranslate2.Translator(str(converted), compute_type=precision, intra_threads=THREADS)
    tokens = [[f"t{i}" for i in ids()]]

    def run(count: int, beams: int) -> None:
        translator.translate_batch(
            tokens, max_decoding_length=count, min_decoding_length=count, beam_size=beams, max_input_length=0
        )

    return measured(run)


def make(name: str, folder: Path) -> None:
    """A checkpoint of real size with random weights, and a word for each id, so that converters accept it."""
    import torch
    from tokenizers import Tokenizer, models

    import triarch
    from triarch.models import family

    torch.manual_seed(0)
    kind = family(name)
    triarch.save(kind.build(kind.config(SIZES[name]), KINDS[name]), folder)
    words = {f"t{i}": i for i in range(SIZES[name]["vocab_size"])}
    Tokenizer(models.WordLevel(words, unk_token="t4")).save(str(folder / "tokenizer.json"))
    special = {"unk_token": "t4", "bos_token": "t0", "eos_token": "t2", "pad_token": "t1"}
    if name == "t5":
        special |= {"eos_token": "t1", "pad_token": "t0", "bos_token": "t3"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--without", action="append", default=[], help="a peer to leave out")
    parser.add_argument("--work", type=Path, default=Path("work/benchmarks"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, who, precision = given.one
        folder = given.work / name
        if who == "make":
            return make(name, folder)
        calls = {
            "triarch": partial(ours, folder, precision, False),
            "triarch packed": partial(ours, folder, precision, True),
            "transformers": partial(reference, name, folder, precision),
            "ctranslate2": partial(ctranslate, folder, precision),
        }
        print(json.dumps(calls[who]()))
        return None
    peers = [peer for peer in PEERS if peer[0] not in given.without]
    for who, _ in peers:
        if who in ("transformers", "ctranslate2") and importlib.util.find_spec(who) is None:
            sys.exit(f"benchmarks/encoder_decoders.py: {who} is not installed; install it, or say --without {who}")
    for name in [given.only] if given.only else KINDS:
        if not (given.work / name).exists():
            one(__file__, given.work, name, "make", "")
        found = {peer: json.loads(one(__file__, given.work, name, *peer)) for peer in peers}
        print(f"{name}, {SOURCE} tokens read and {NEW} written, {THREADS} threads: to the first token, greedy, 4 beams")
        for (who, precision), values in found.items():
            theirs = found.get(("transformers", precision))
            ratio = "   ".join(
                f"{theirs[what] / values[what]:.2f}" for what in ("greedy_ms", "beams_ms") if theirs is not None
            )
            times = "".join(f"{values[what]:8.0f} ms" for what in ("first_ms", "greedy_ms", "beams_ms"))
            print(f"  {who:<16}{precision:<10}{times}   {ratio + ' x the reference' if ratio else ''}".rstrip())
    return None


if __name__ == "__main__":
    main()
