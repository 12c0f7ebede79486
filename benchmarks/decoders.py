"""Writing after a prompt, ours beside the reference, CTranslate2 and llama.cpp, in one run.

    python benchmarks/decoders.py                    # GPT-2 124M and a Llama of 1.1B, random weights made on the spot
    python benchmarks/decoders.py --only gpt2

Prefill is the time to the first token after 128; decoding the rate of the 64 that follow, batch 1 and greedy. With
`--beams 4` decoding is with beams. Ours is measured with ordinary linear layers, and with packed ones
(engine/linear.py), as `triarch.load` gives them. Each measurement is a process of its own with two threads; the fastest
of three rounds counts, after one that warms up. Needs `ctranslate2`, for Llama `llama-cpp-python gguf` too; a peer that
is not there is an error unless it is named with --without.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

THREADS, PROMPT, NEW, ROUNDS = 2, 128, 64, 3
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
PEERS = {  # who, in which precision
    "gpt2": [
        ("triarch", "float32"),
        ("triarch packed", "float32"),
        ("transformers", "float32"),
        ("ctranslate2", "float32"),
        ("triarch", "bfloat16"),
        ("triarch packed", "bfloat16"),
        ("transformers", "bfloat16"),
        ("ctranslate2", "int8"),
    ],
    "llama": [
        ("triarch", "bfloat16"),
        ("triarch packed", "bfloat16"),
        ("transformers", "bfloat16"),
        ("ctranslate2", "int8"),
        ("llama.cpp", "bfloat16"),
    ],
}
PACKAGES = {"ctranslate2": "ctranslate2", "llama.cpp": "llama_cpp", "transformers": "transformers"}


def ids() -> list[int]:
    import numpy as np

    return np.random.default_rng(0).integers(5, 1000, PROMPT).tolist()


def best(work) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measured(run) -> dict[str, float]:
    """`run(n)` writes n tokens: seconds to the first one, and tokens a second of those after it."""
    run(4)
    first, whole = best(lambda: run(1)), best(lambda: run(NEW))
    return {"prefill_ms": first * 1e3, "decode": (NEW - 1) / (whole - first)}


# One measurement, in a process of its own


def ours(name: str, folder: Path, precision: str, packed: bool, beams: int) -> dict[str, float]:
    import torch

    import triarch
    from triarch import checkpoint
    from triarch.engine.prepare import prepare
    from triarch.layers.cache import Cache

    torch.set_num_threads(THREADS)
    model = checkpoint.load(folder, dtype=precision)
    if packed:
        prepare(model)
    prompt = ids()
    search = {} if beams == 1 else {"num_beams": beams}

    def run(count: int) -> None:
        triarch.generate(model, prompt, max_new_tokens=count, ignore_eos=True, **search)

    found = measured(run)
    cache = Cache()
    with torch.inference_mode():
        model.features(torch.tensor([prompt]), cache=cache)
    return found | {"cache_kib_a_token": cache.bytes_per_token / 1024}


def reference(name: str, folder: Path, precision: str, beams: int) -> dict[str, float]:
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    transformers.utils.logging.set_verbosity_error()
    kind = transformers.GPT2LMHeadModel if name == "gpt2" else transformers.LlamaForCausalLM
    model = kind.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    prompt = torch.tensor([ids()])

    def run(count: int) -> None:
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            num_beams=beams,
            pad_token_id=0,
        )

    return measured(run)


def ctranslate(folder: Path, precision: str, beams: int) -> dict[str, float]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    converted = folder.with_name(f"{folder.name}-ct2")
    if not converted.exists():
        TransformersConverter(str(folder)).convert(str(converted))
    generator = ctranslate2.Generator(str(converted), compute_type=precision, intra_threads=THREADS)
    tokens = [[f"t{i}" for i in ids()]]

    def run(count: int) -> None:
        generator.generate_batch(
            tokens, max_length=count, min_length=count, beam_size=beams, include_prompt_in_result=False
        )

    return measured(run)


def llama_cpp(folder: Path) -> dict[str, float]:
    import llama_cpp

    model = llama_cpp.Llama(str(gguf(folder)), n_ctx=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)
    prompt = ids()

    def run(count: int) -> None:
        model.reset()
        model.eval(prompt)
        for i in range(count - 1):
            model.eval([7 + i])

    return measured(run)


def gguf(folder: Path) -> Path:
    """The checkpoint in llama.cpp's format, in bfloat16."""
    import gguf as gg
    from safetensors.torch import load_file

    path = folder.with_name("llama-bf16.gguf")
    if path.exists():
        return path
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        **{f"self_attn.{a}_proj": f"attn_{b}" for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output"))},
        **{f"mlp.{a}_proj": f"ffn_{a}" for a in ("gate", "up", "down")},
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for i in range(LLAMA["num_hidden_layers"]):
        names |= {f"model.layers.{i}.{theirs}": f"blk.{i}.{gguf_name}" for theirs, gguf_name in parts.items()}
    writer = gg.GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(LLAMA["hidden_size"])
    writer.add_block_count(LLAMA["num_hidden_layers"])
    writer.add_feed_forward_length(LLAMA["intermediate_size"])
    writer.add_head_count(LLAMA["num_attention_heads"])
    writer.add_head_count_kv(LLAMA["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(64)
    writer.add_vocab_size(LLAMA["vocab_size"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{i}".encode() for i in range(LLAMA["vocab_size"])])
    writer.add_token_scores([0.0] * LLAMA["vocab_size"])
    writer.add_token_types([1] * LLAMA["vocab_size"])
    for key, tensor in load_file(folder / "model.safetensors").items():
        array = tensor.float().numpy()
        name = names[key.removesuffix(".weight")] + ".weight"
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            kind = gg.GGMLQuantizationType.BF16
            writer.add_tensor(name, gg.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make(name: str, folder: Path) -> None:
    """A checkpoint of real size with random weights, and a word for each id, so that converters accept it."""
    import torch
    from tokenizers import Tokenizer, models

    import triarch
    from triarch.models import family

    torch.manual_seed(0)
    kind = family(name)
    model = kind.build(
        kind.config({} if name == "gpt2" else LLAMA), "GPT2LMHeadModel" if name == "gpt2" else "LlamaForCausalLM"
    )
    triarch.save(model if name == "gpt2" else model.to(torch.bfloat16), folder)
    words = {f"t{i}": i for i in range(model.config.vocab_size)}
    Tokenizer(models.WordLevel(words, unk_token="t0")).save(str(folder / "tokenizer.json"))
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "t0",
        "bos_token": "t1",
        "eos_token": "t2",
        "pad_token": "t3",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(special))


# All of them in turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PEERS)
    parser.add_argument("--without", action="append", default=[], help="a peer to leave out")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("work/benchmarks"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, who, precision = given.one
        folder = given.work / name
        if who == "make":
            return make(name, folder)
        calls = {
            "triarch": lambda: ours(name, folder, precision, False, given.beams),
            "triarch packed": lambda: ours(name, folder, precision, True, given.beams),
            "transformers": lambda: reference(name, folder, precision, given.beams),
            "ctranslate2": lambda: ctranslate(folder, precision, given.beams),
            "llama.cpp": lambda: llama_cpp(folder),
        }
        print(json.dumps(calls[who]()))
        return None
    for name in [given.only] if given.only else PEERS:
        peers = [peer for peer in PEERS[name] if peer[0] not in given.without]
        for who, _ in peers:
            if who in PACKAGES and importlib.util.find_spec(PACKAGES[who]) is None:
                sys.exit(f"benchmarks/decoders.py: {who} is not installed; install it, or say --without {who}")
        if not (given.work / name).exists():
            one(__file__, given.work, name, "make", "")
        more = ["--beams", str(given.beams)]
        found = {peer: json.loads(one(__file__, given.work, name, *peer, more=more)) for peer in peers}
        if given.json:
            print(json.dumps({"model": name, "beams": given.beams, "found": [[*k, v] for k, v in found.items()]}))
            continue
        print(f"{name}, {PROMPT} tokens and {NEW} more, beams {given.beams}, {THREADS} threads")
        for (who, precision), values in found.items():
            theirs = found.get(("transformers", precision))
            ratio = f"{values['decode'] / theirs['decode']:.2f} x the reference" if theirs else ""
            cache = f"cache {values['cache_kib_a_token']:.0f} KiB a token" if "cache_kib_a_token" in values else ""
            speed = f"{values['prefill_ms']:8.0f} ms {values['decode']:8.1f} tokens/s"
            print(f"  {who:<16}{precision:<10}{speed}   {ratio}  {cache}".rstrip())
    return None


def one(script: str, work: Path, *what: str, more: Sequence[str] = ()) -> str:
    """The last line that a script prints of one measurement, in a process of its own."""
    command = [sys.executable, script, "--work", str(work), *more, "--one", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(what)} failed:\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


if __name__ == "__main__":
    main()
