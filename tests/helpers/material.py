"""What objectives learn from in their tests: rows and running text, the examples made of them, and their loss."""

import numpy as np

import tiny
from triarch.objectives._base import Passage

LABELS, MANY, TAGS = (
    ["bad", "fair", "good"],
    ["toxic", "rude", "threat", "joke"],
    ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
)
S = tiny.SENTENCES
CONTEXT = "Ada Lovelace lived in London and wrote the first program."
SENTENCES = [  # words and tags of three lengths
    (["Ada", "Lovelace", "lived", "in", "London", "."], ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
    (["Wolfgang", "works"], ["B-PER", "O"]),
    (
        ["My", "smallish", "company", "is", "in", "Berlin", "and", "in", "Zürich"],
        ["O", "O", "O", "O", "O", "B-LOC", "O", "O", "B-LOC"],
    ),
]
ROWS = {
    "classification": [
        {"text": S[0], "label": "good"},
        {"text": S[1], "text_pair": S[2], "label": "bad"},
        {"text": S[6], "label": 1},
        {"text": "", "label": "fair"},
    ],
    "multi-label": [
        {"text": S[0], "labels": ["rude", "joke"]},
        {"text": S[4], "labels": []},
        {"text": S[8], "labels": ["toxic"]},
    ],
    "regression": [
        {"text": S[0], "label": 2.5},
        {"text": S[4], "text_pair": S[1], "label": -1},
        {"text": S[8], "label": "0.25"},
    ],
    "tagging": [{"tokens": tokens, "tags": tags} for tokens, tags in SENTENCES],
    "span": [
        {"question": "Where did she live?", "context": CONTEXT, "answers": [{"text": "London", "start": 22}]},
        {"question": "Who wrote it?", "context": CONTEXT, "answers": [{"text": "Ada Lovelace", "start": 0}]},
        {"question": "Who, and why, scored twice?", "context": S[8] + " " + S[7], "answers": []},
    ],
    "contrastive": [
        {"anchor": S[0], "positive": S[1]},
        {"anchor": S[2], "positive": S[3], "negative": S[4]},
        {"anchor": S[5], "positive": S[6], "negative": [S[7], S[8]]},
    ],
}


def passages(processor, sentences):
    made = []
    for sentence in sentences:
        encoding = processor.encode(sentence, special_tokens=False)
        words = encoding.word_ids
        starts = [i == 0 or word != words[i - 1] for i, word in enumerate(words)]
        made.append(Passage(np.array(encoding.ids), np.array(starts)))
    return made


def examples_of(made, seed=0):
    if made.READS == "rows":
        return [example for row in ROWS[made.NAME] for example in made.examples(row)]
    generator = np.random.default_rng(seed)
    documents = [passages(made.processor, [S[i], S[i + 1][:20]]) for i in range(0, 8, 2)]
    return [made.compose(document, lambda: passages(made.processor, S[8:]), generator) for document in documents]


def loss_of(made, model, examples):
    batch = made.batch(examples)
    losses = made.losses(made.forward(model, batch), batch)
    return sum(loss / batch.counts[name] for name, loss in losses.items())
