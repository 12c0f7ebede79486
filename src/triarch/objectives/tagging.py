"""Give every word a tag. Devlin et al. 2018, section 5.3, https://arxiv.org/abs/1810.04805

A long sentence is read in overlapping windows. Each of its tokens belongs to the one window in which it has the most
context: there it is learned, and measured, and nowhere else.

Shapes: B sequences, T tokens, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from triarch import metrics
from triarch.data.columns import Candidate, Column
from triarch.errors import InvalidInput, show
from triarch.inputs.fit import TOKENS, owned
from triarch.kinds import TokenScores
from triarch.objectives._base import IGNORED, Batch, Example, Objective
from triarch.objectives._labels import Labels, name_of, ordered
from triarch.objectives._losses import cross_entropy, padded_targets
from triarch.objectives._windows import Part, by_row, kept, parts

if TYPE_CHECKING:
    from torch import Tensor


class Words(NamedTuple):
    """The words that a window is measured by."""

    part: Part
    numbers: list[int]  # of the words in their sentence
    places: list[int]  # of their first tokens in the window
    right: list[int]  # the tags of the whole sentence


class Outcome(NamedTuple):
    part: Part
    numbers: list[int]
    said: list[int]  # the tags of these words
    right: list[int]


@dataclass(kw_only=True)
class Tagging(Objective):
    SCORES: ClassVar[type] = TokenScores
    FIELDS: ClassVar[dict[str, Column]] = {
        "tokens": Column("words", usual=("words", "form")),
        "tags": Column(
            "words",
            usual=("ner_tags", "pos_tags", "upos", "xpos", "ner", "pos", "labels", "deprel", "lemma"),
            like="tokens",
        ),
    }
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = (("tokens",),)
    RANK: ClassVar[int] = 2
    METRIC: ClassVar[str] = "f1"
    CLASSES: ClassVar[str | None] = "tags"
    LABELS: ClassVar[bool] = True

    labels: list[str]  # the tags, by their number
    alignment: Literal["first", "all", "ignore"] = "first"  # learn a word by its first token, by all, or if it is one
    long: Literal["window", "error"] = "window"  # a sentence longer than max_tokens is read in windows, or refused
    stride: int | None = None  # tokens that neighbouring windows share; none: a quarter of max_tokens
    max_tokens: int | None = None  # of one window, special ones included; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.most_tokens(self.max_tokens)
        self._fit = replace(TOKENS, strategy=self.long, most=most, stride=self.stride)
        self._labels = Labels(self.labels)
        numbers = {name: number for number, name in enumerate(self.labels)}
        self._inside = [
            numbers.get(f"I-{tag[2:]}" if tag.startswith("B-") else tag, numbers[tag]) for tag in self.labels
        ]
        self._entities = any(tag.startswith(("B-", "I-", "E-", "S-")) for tag in self.labels)

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        return candidate.lists("tokens")

    @property
    def classes(self) -> list[str]:
        return self.labels

    @classmethod
    def labels_of(cls, rows: Iterable[dict[str, Any]]) -> list[str]:
        """O first, then in order."""
        found = ordered(name_of(tag, "tag") for row in rows for tag in _list(row, "tags"))
        return sorted(found, key=lambda tag: tag != "O")

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """A word of which nothing is left as tokens, such as a control character, is not learned, and measured as O.

        Raises InvalidInput for other tags than the labels, or not as many as there are words; Unsupported for a
        vocabulary that would run the words together.
        """
        words, right = _list(row, "tokens"), [self._labels.number(tag, "tag") for tag in _list(row, "tags")]
        if len(words) != len(right) or not words:
            raise InvalidInput(
                f"{len(words)} tokens came with {len(right)} tags; wanted one tag for each, and at least one"
            )
        found = [piece.content for piece in self.processor.pieces((words, None), self._fit)]
        _, shared = self._fit.sizes(self.processor.max_tokens)
        own = owned([window.special_tokens_mask for window in found], shared)
        sizes = Counter(window.word_ids[i] for window, places in zip(found, own, strict=True) for i in places)
        made = []
        before = None  # the word of the token before
        for window, places in zip(found, own, strict=True):
            target, firsts = [IGNORED] * len(window), []
            for i in places:
                word = window.word_ids[i]
                assert word is not None
                if word != before:
                    firsts.append((word, i))
                    target[i] = right[word] if self.alignment != "ignore" or sizes[word] == 1 else IGNORED
                elif self.alignment == "all":
                    target[i] = self._inside[right[word]]
                before = word
            if firsts or any(tag != IGNORED for tag in target):  # not the midst of an endless word
                made.append((window, target, firsts))
        if not made:
            raise InvalidInput(f"of tokens {show(words, 60)} the tokenizer leaves nothing; leave the row out")
        return [
            kept(window, target, Words(part, *_columns(firsts), right))
            for part, (window, target, firsts) in zip(parts(row, len(made)), made, strict=True)
        ]

    def batch(self, examples: Sequence[Example]) -> Batch:
        tags = padded_targets([example.target for example in examples])
        counts = {"tagging": float((tags != IGNORED).sum())}
        return Batch(self.padded(examples), {"tags": tags}, counts, [example.note for example in examples])

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        return {"tagging": cross_entropy(scores.logits, batch.targets["tags"])}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        best = scores.logits.argmax(-1).cpu().numpy()  # (B, T)
        return [
            Outcome(words.part, words.numbers, tags[words.places].tolist(), words.right)
            for tags, words in zip(best, batch.notes, strict=True)
        ]

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        """Every word by its first token. Entities as seqeval finds them; for tags of another kind, the mean F1 of
        all tags."""
        right, said = self._sentences(outcomes)
        accuracy = metrics.tag_accuracy(right, said)
        if self._entities:
            found = metrics.entity_f1(right, said)
            return {"f1": found.f1, "precision": found.precision, "recall": found.recall, "accuracy": accuracy}
        numbers = {tag: number for number, tag in enumerate(dict.fromkeys([*self.labels, "O"]))}
        flat = ([numbers[tag] for tags in rows for tag in tags] for rows in (right, said))
        return {"f1": metrics.f1(next(flat), next(flat), "macro"), "accuracy": accuracy}

    def choices(self, outcomes: list[Any]) -> tuple[list[str], list[str]]:
        """Of all words that have a tag among the labels."""
        right, said = ([tag for tags in rows for tag in tags] for rows in self._sentences(outcomes))
        pairs = [pair for pair in zip(right, said, strict=True) if pair[1] in self.labels]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _sentences(self, outcomes: list[Any]) -> tuple[list[list[str]], list[list[str]]]:
        """The right tags and the chosen ones of each sentence."""
        right, said = [], []
        for row in by_row(outcomes):
            tags = ["O"] * len(row[0].right)
            for window in row:
                for number, tag in zip(window.numbers, window.said, strict=True):
                    tags[number] = self.labels[tag]
            right.append([self.labels[tag] for tag in row[0].right])
            said.append(tags)
        return right, said


def _columns(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


def _list(row: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(row.get(name), list | tuple):
        raise InvalidInput(f"{name} is {show(repr(row.get(name)), 60)}, wanted a list")
    return list(row[name])
