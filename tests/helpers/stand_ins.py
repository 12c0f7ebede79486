"""Tiny models in the place of the starters: they answer nonsense, in the shape of answers."""

from pathlib import Path

import tiny
from triarch import starters
from triarch.tasks import task_class, tasks

SERVES = {called: name for task in tasks() for called, name in task_class(task).STARTERS.items()}
FOLDERS = tuple(dict.fromkeys(name for name in SERVES.values() if name != starters.ENCODER))
LABELS = ["alarm", "balance", "translate", "<b>label</b>"]
TAGS = ["NOUN", "VERB", "DET", "PUNCT"]
NAMES = ["O", "B-person", "I-person", "B-location", "I-location"]
KINDS = {
    "intents": {"architecture": "BertForSequenceClassification", "labels": LABELS},
    "pos": {"architecture": "BertForTokenClassification", "labels": TAGS},
    "entities": {"architecture": "BertForTokenClassification", "labels": NAMES},
    "qa": {"architecture": "BertForQuestionAnswering"},
    "bert-books": {"architecture": "BertForPreTraining"},
    "text-books": {"model_type": "gpt2", "architecture": "GPT2LMHeadModel", "n_positions": 512},
    "rewriting": {"model_type": "t5", "architecture": "T5ForConditionalGeneration"},
    "french-english": {"model_type": "bart", "architecture": "BartForConditionalGeneration"},
}
CARD = """---
license: cc-by-4.0
pipeline_tag: text-classification
model-index:
- name: {name}
  results:
  - task:
      type: text-classification
    dataset:
      name: a set for {name}
      type: set
      split: test
    metrics:
    - type: loss
      value: 0.75
    - type: f1_macro
      value: 0.875
---

# {name}
"""


def write(home: Path) -> Path:
    """All of them, with cards."""
    for name in FOLDERS:
        tiny.write_checkpoint(home / name, **{"model_type": "bert"} | KINDS[name])
        (home / name / "README.md").write_text(CARD.format(name=name), encoding="utf-8")
    return home
