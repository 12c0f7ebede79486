"""Give every token a label, and gather labels into entities with exact spans of the original text.

    triarch run ner "Ada Lovelace lived in London" -m dslim/bert-base-NER --aggregation-strategy simple

A text longer than the model is read in overlapping windows; each token is labelled where it has the most context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.fit import TOKENS, stitch
from triarch.inputs.text.given import text_of
from triarch.kinds import TokenScores
from triarch.tasks import _options
from triarch.tasks._base import Job, Task
from triarch.tasks._scores import softmax

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.inputs import processor


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "none"  # how tokens become entities
    grouped_entities: bool = False  # the reference's old name of aggregation_strategy="simple"
    ignore_labels: list[str] | None = None  # labels to leave out; None: O alone
    constrained: bool = False  # only sequences that the tag scheme allows: the best one as a whole, not token by token
    is_split_into_words: bool = False  # an input is a list of words
    delimiter: str = " "  # what stood between these words

    @property
    def aggregation(self) -> str:
        return "simple" if self.grouped_entities else self.aggregation_strategy


@dataclass
class Piece:
    """One token, or the tokens of one word, with its scores."""

    word: str
    scores: np.ndarray  # (L,)
    start: int
    end: int
    index: int  # of the token among all, the one before the first counted
    continues: bool  # the word of the token before goes on


class TokenClassification(Task):
    """Text -> [{"entity" | "entity_group", "score", "index", "word", "start", "end"}]."""

    ALIASES = ("ner",)
    NEEDS = (TokenScores,)
    TRY = "Ada Lovelace lived in London."
    STARTERS = {"token-classification": "pos", "ner": "entities"}
    OPTIONS = Options
    FIT = TOKENS

    def single(self, inputs: Any, options: Options) -> bool:
        words = options.is_split_into_words and isinstance(inputs, list | tuple)
        return super().single(inputs, options) or (words and all(isinstance(word, str) for word in inputs))

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        one_list_of_words = isinstance(inputs, list) and self.single(inputs, self.options(given))
        return [answer] if one_list_of_words else answer

    def read(self, given: Any, options: Options) -> tuple[str | list[str], None]:
        if not options.is_split_into_words:
            return text_of(given, "text"), None
        words = given.get("words") if isinstance(given, dict) else given
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise InvalidInput(f"input is {type(given).__name__}, wanted a list of words with is_split_into_words")
        return list(words), None

    def prepare(self, item: tuple[str | list[str], None], options: Options) -> Job:
        return replace(super().prepare(item, options), notes=item[0])

    def compute(self, batch: dict[str, Tensor], pieces: list[processor.Piece], options: Options) -> list[np.ndarray]:
        logits = self.model(**batch).logits.float().cpu().numpy()  # (B, T, L)
        return [logits[i, : piece.cost] for i, piece in enumerate(pieces)]

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[dict[str, Any]]:
        pieces = self._pieces(job, outputs, options)
        if options.aggregation in ("first", "average", "max"):
            pieces = self._words(pieces, options.aggregation)
        if not pieces:
            return []
        rows = np.stack([piece.scores for piece in pieces])  # (N, L)
        names = self.model.config.id2label
        best = self._constrained(rows) if options.constrained else rows.argmax(-1)
        labels = [names[i] for i in best]
        scores = [float(row[i]) for row, i in zip(rows, best, strict=True)]
        ignored = ["O"] if options.ignore_labels is None else options.ignore_labels
        if options.aggregation == "none":
            return [
                {"entity": label, "score": score, "index": p.index, "word": p.word, "start": p.start, "end": p.end}
                for p, label, score in zip(pieces, labels, scores, strict=True)
                if label not in ignored
            ]
        return [entity for entity in self._groups(pieces, labels, scores) if entity["entity_group"] not in ignored]

    def _pieces(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[Piece]:
        """The tokens of the whole input, their spans counted in the original text."""
        windows, (_, shared) = job.contents, self.fit(options).sizes(self.processor.max_tokens)
        masks = [window.special_tokens_mask for window in windows]
        places, rows = stitch(masks, [softmax(logits) for logits in outputs], shared)
        begins = [0]
        if options.is_split_into_words:
            for word in job.notes:
                begins.append(begins[-1] + len(word) + len(options.delimiter))
        text = options.delimiter.join(job.notes) if options.is_split_into_words else job.notes
        prefixed = bool(getattr(self.processor.tokenizer.model, "continuing_subword_prefix", None))
        tokens = [self.processor.tokens(window.ids) for window in windows]
        pieces = []
        for index, ((number, i), scores) in enumerate(zip(places, rows, strict=True)):
            window = windows[number]
            if masks[number][i]:
                continue
            begin = begins[window.word_ids[i] or 0] if options.is_split_into_words else 0
            start, end = (begin + offset for offset in window.offsets[i])
            word = tokens[number][i]  # not window.tokens, where a mask token has the space that it swallowed
            if prefixed:
                continues = len(word) != end - start
            else:  # no mark on the token itself: a word goes on where no space stands before
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            if window.ids[i] == self.processor.id("unk_token"):
                word, continues = text[start:end], False
            pieces.append(Piece(word, scores, start, end, index, continues))
        return pieces

    def _words(self, pieces: list[Piece], strategy: str) -> list[Piece]:
        """Tokens gathered into words, each with the scores that the strategy picks from those of its tokens."""
        words: list[list[Piece]] = []
        for piece in pieces:
            if words and piece.continues:
                words[-1].append(piece)
            else:
                words.append([piece])
        return [self._word(tokens, strategy) for tokens in words]

    def _word(self, tokens: list[Piece], strategy: str) -> Piece:
        rows = [token.scores for token in tokens]
        scores = {
            "first": lambda: rows[0],
            "average": lambda: np.mean(rows, axis=0),
            "max": lambda: max(rows, key=lambda row: row.max()),
        }[strategy]()
        word = self.processor.joined([token.word for token in tokens])
        return Piece(word, scores, tokens[0].start, tokens[-1].end, tokens[0].index, False)

    def _groups(self, pieces: list[Piece], labels: list[str], scores: list[float]) -> list[dict[str, Any]]:
        """Neighbours with one label make one entity; B- begins a new one."""
        groups: list[list[int]] = []
        for i, label in enumerate(labels):
            begins, kind = _parts(label)
            if groups and not begins and kind == _parts(labels[groups[-1][-1]])[1]:
                groups[-1].append(i)
            else:
                groups.append([i])
        return [
            {
                "entity_group": labels[group[0]].split("-", 1)[-1],
                "score": float(np.mean([scores[i] for i in group])),
                "word": self.processor.joined([pieces[i].word for i in group]),
                "start": pieces[group[0]].start,
                "end": pieces[group[-1]].end,
            }
            for group in groups
        ]

    def _constrained(self, rows: np.ndarray) -> list[int]:
        """The likeliest sequence of labels in which inside and end tags continue their own kind. Viterbi 1967."""
        names = [self.model.config.id2label[i] for i in range(rows.shape[1])]
        allowed = np.array([[_may_follow(left, right) for right in names] for left in names])
        first = np.array([_may_follow("O", name) for name in names])
        last = np.array([_may_follow(name, "O") for name in names])
        if not (first & last).any():
            raise InvalidInput(
                "the model's labels leave no sequence that their tag scheme allows; leave out constrained"
            )
        steps = np.log(np.maximum(rows, 1e-30))
        moves = np.where(allowed, 0.0, -np.inf)
        best, back = np.where(first, steps[0], -np.inf), []
        for step in steps[1:]:
            options = best[:, None] + moves  # (from, to)
            back.append(options.argmax(0))
            best = options.max(0) + step
        path = [int(np.where(last, best, -np.inf).argmax())]
        for pointers in reversed(back):
            path.append(int(pointers[path[-1]]))
        return path[::-1]


def _parts(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and the kind of entity."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


OPENS, CONTINUES = ("B", "I"), ("I", "E", "L")  # BIO, BIOES and BILOU together


def _may_follow(left: str, right: str) -> bool:
    """Whether tag `right` may stand behind tag `left` in the schemes whose tags are B-, I-, E-, L-, S-, U- and O."""
    (left_tag, _, left_kind), (right_tag, _, right_kind) = left.partition("-"), right.partition("-")
    if right_kind and right_tag in CONTINUES:
        return bool(left_kind) and left_tag in OPENS and left_kind == right_kind
    return True
