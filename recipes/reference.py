"""Train what a recipe says with the reference library's Trainer, for a comparison of results.

    python recipes/reference.py recipes/intents.toml --output work/reference/intents
    triarch evaluate work/data/intents/test.jsonl -m work/reference/intents
    python recipes/reference.py recipes/qa.toml --steps 110 --output work/reference/qa     # less of it, as ours --steps

The same data, base model, adapters, batches, learning rate, schedule and precision; both models are measured by
`triarch evaluate`. The Trainer keeps the last model, so compare with `--no-best`. Needs transformers, accelerate and
peft.
"""

import argparse
import time
import tomllib
from pathlib import Path

import numpy as np
import peft
import torch
import transformers

from triarch import hub
from triarch.data.reading import read
from triarch.objectives import objective


def classification(rows, tokenizer, labels):
    numbers = {name: number for number, name in enumerate(labels)}
    return [tokenizer(row["text"], truncation=True) | {"labels": numbers[str(row["label"])]} for row in rows]


def tagging(rows, tokenizer, labels):
    numbers = {name: number for number, name in enumerate(labels)}
    made = []
    for row in rows:
        coded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True)
        targets, before = [], None
        for word in coded.word_ids():
            targets.append(-100 if word is None or word == before else numbers[row["tags"][word]])
            before = word
        made.append(dict(coded) | {"labels": targets})
    return made


def span(rows, tokenizer, _labels):
    """As the library's example for question answering has it: windows of 384 tokens that share 128."""
    made = []
    for row in rows:
        coded = tokenizer(
            row["question"],
            row["context"],
            truncation="only_second",
            max_length=384,
            stride=128,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for i, offsets in enumerate(coded["offset_mapping"]):
            sides = coded.sequence_ids(i)
            start = end = 0
            if row["answers"]:
                first = row["answers"][0]["start"]
                last = first + len(row["answers"][0]["text"])
                inside = [t for t, side in enumerate(sides) if side == 1]
                if offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= last:
                    start = max(t for t in inside if offsets[t][0] <= first)
                    end = min(t for t in inside if offsets[t][1] >= last)
            keys = ("input_ids", "token_type_ids", "attention_mask")
            made.append({key: coded[key][i] for key in keys} | {"start_positions": start, "end_positions": end})
    return made


KINDS = {
    "classification": (classification, transformers.AutoModelForSequenceClassification, "SEQ_CLS"),
    "tagging": (tagging, transformers.AutoModelForTokenClassification, "TOKEN_CLS"),
    "span": (span, transformers.AutoModelForQuestionAnswering, "QUESTION_ANS"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=float, help="in place of the recipe's epochs or steps")
    parser.add_argument("--steps", type=int, help="the same, in updates")
    given = parser.parse_args()
    recipe = tomllib.loads(given.recipe.read_text())
    if given.epochs or given.steps:
        recipe = {name: value for name, value in recipe.items() if name not in ("epochs", "steps")}
        recipe |= {"epochs": given.epochs} if given.epochs else {"steps": given.steps}
    rows = read(recipe["data"])
    prepare, made, task = KINDS[rows.reading.kind]
    base = str(hub.find(recipe["model"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    learned = objective(rows.reading.kind)
    labels = learned.labels_of(rows) if learned.LABELS else []
    transformers.set_seed(recipe.get("seed", 0))
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    model = made.from_pretrained(base, dtype=torch.float32, **(named if labels else {}))
    if rank := recipe.get("lora"):
        targets = r"bert\.encoder\.layer\..*\.(query|key|value|dense)"
        heads = ["qa_outputs"] if task == "QUESTION_ANS" else ["classifier"]
        heads += ["pooler"] if task == "SEQ_CLS" else []
        adapters = peft.LoraConfig(
            task_type=task, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets, modules_to_save=heads
        )
        model = peft.get_peft_model(model, adapters)
        model.print_trainable_parameters()
    examples = prepare(rows, tokenizer, labels)
    print(f"{len(examples):,} examples, {int(np.sum([len(e['input_ids']) for e in examples])):,} tokens", flush=True)
    settings = transformers.TrainingArguments(
        str(given.output / "trainer"),
        num_train_epochs=recipe.get("epochs", 1.0),
        max_steps=recipe.get("steps", -1),  # where there are any, epochs do not count
        per_device_train_batch_size=recipe["batch_size"],
        learning_rate=recipe["lr"],
        warmup_steps=recipe.get("warmup", 0.0),  # below 1 a share, as ours
        weight_decay=recipe.get("weight_decay", 0.01),
        bf16=recipe.get("precision") == "bfloat16",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=200,
        seed=recipe.get("seed", 0),
        disable_tqdm=True,
    )
    collate = transformers.DataCollatorWithPadding(tokenizer)
    if task == "TOKEN_CLS":
        collate = transformers.DataCollatorForTokenClassification(tokenizer)
    begin = time.perf_counter()
    transformers.Trainer(model, settings, train_dataset=examples, data_collator=collate).train()
    print(f"{time.perf_counter() - begin:.0f} s", flush=True)
    if recipe.get("lora"):
        model = model.merge_and_unload()
    model.save_pretrained(given.output)
    tokenizer.save_pretrained(given.output)


if __name__ == "__main__":
    main()
