"""Find the answer to a question in a text: the span that the model scores highest.

    triarch run question-answering "Ada lived in London." --question "Where did Ada live?" -m MODEL

Devlin et al. 2018, section 4.2. A context longer than the model is read in overlapping windows, the question in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.fit import QUESTION, Fit
from triarch.inputs.text.given import text_of
from triarch.kinds import SpanScores
from triarch.tasks import _options
from triarch.tasks._base import Job, Task

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor

    from triarch.inputs.processor import Piece

OUTSIDE = -10_000.0  # logit of a token that cannot be in an answer


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    question: str | list[str] | None = None  # asked of each context that brings none of its own
    top_k: int = 1  # that many best answers
    doc_stride: int | None = None  # tokens that neighbouring windows share; None: 128, at most half a window
    max_answer_len: int = 15  # tokens
    max_seq_len: int | None = None  # tokens of a window with its question; None: 384, or what the model takes
    max_question_len: int | None = None  # a longer question is cut there; None: never
    handle_impossible_answer: bool = False  # "" may be the answer
    align_to_words: bool = True  # answers begin and end with whole words


class QuestionAnswering(Task):
    """{"question", "context"} -> {"score", "start", "end", "answer"}; with `top_k` a list of them."""

    NEEDS = (SpanScores,)
    FIELD = "context"
    TRY = {"question": "Who wrote it?", "context": "It was written by Ada."}
    STARTERS = {"question-answering": "qa"}
    OPTIONS = Options
    FIT = QUESTION

    def __call__(self, inputs: Any = None, context: Any = None, **options: Any) -> Any:
        """Rows {"question", "context"}, or `question=` and `context=`: texts, lists of one length, a list and a text.

        One row gives its answer itself, also in a list, as the reference does.
        """
        question = options.get("question")
        if isinstance(inputs, str) and isinstance(context, str):  # question and context by position
            question, inputs = inputs, None
        if inputs is None:
            options.pop("question", None)
            inputs = _rows(question, context)
        return super().__call__(inputs, **options)

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        return answer[0] if isinstance(inputs, list) and len(inputs) == 1 else answer

    def read(self, given: Any, options: Options) -> tuple[str, str]:
        asked = given.get("question") if isinstance(given, dict) else None
        question = text_of(options.question if asked is None else asked, "question")
        context = text_of(given, "context")
        if not question or not context:
            raise InvalidInput("question or context is empty; give both")
        return question, context

    def prepare(self, row: tuple[str, str], options: Options) -> Job:
        question, context = row
        if options.max_question_len is not None:
            whole = self.processor.encode(question, special_tokens=False)
            if len(whole) > options.max_question_len:
                question = question[: whole.offsets[options.max_question_len - 1][1]]
        return replace(super().prepare((question, context), options), notes=context)

    def fit(self, options: Options) -> Fit:
        stride = options.doc_stride if options.stride is None else options.stride
        return replace(super().fit(options), most=options.max_seq_len or options.max_length, stride=stride)

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Options) -> list[np.ndarray]:
        scores = self.model(**batch)
        both = np.stack([scores.start_logits.float().cpu().numpy(), scores.end_logits.float().cpu().numpy()], 1)
        return [both[i, :, : piece.cost] for i, piece in enumerate(pieces)]  # (2, T) each

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        answers: dict[str, dict[str, Any]] = {}
        impossible = []
        context = job.notes
        for window, logits in zip(job.contents, outputs, strict=True):
            inside = np.array([sequence == 1 for sequence in window.sequence_ids])
            first = np.array([token == self.processor.id("cls_token") for token in window.ids])
            start, end = _distribution(logits[0], inside | first), _distribution(logits[1], inside | first)
            impossible.append(float(start[0] * end[0]))
            # Alignment merges spans, so more of them are looked at than answers are wanted
            count = options.top_k * 2 + 10 if options.align_to_words else options.top_k
            for s, e, score in _spans(start * inside, end * inside, options.max_answer_len, count):
                begin, stop = _characters(window, s, e, options.align_to_words)
                text = context[begin:stop]
                found = answers.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
                found["score"] += score
        ranked = list(answers.values())
        if options.handle_impossible_answer or not ranked:  # a context of white space has no span at all
            score = min(impossible) if options.handle_impossible_answer else 0.0
            ranked.append({"score": score, "start": 0, "end": 0, "answer": ""})
        ranked = sorted(ranked, key=lambda answer: -answer["score"])[: options.top_k]
        return ranked[0] if len(ranked) == 1 else ranked


def _rows(question: Any, context: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """A question and a context as one row; lists of them as several: two pair up, a text goes with each of a list."""
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    if not isinstance(question, str | list | tuple) or not isinstance(context, str | list | tuple):
        raise InvalidInput("question and context are wanted together, each a text or a list of texts")
    many = max(1 if isinstance(x, str) else len(x) for x in (question, context))
    questions = [question] * many if isinstance(question, str) else question
    contexts = [context] * many if isinstance(context, str) else context
    if len(questions) != len(contexts):
        raise InvalidInput(f"{len(questions)} questions came with {len(contexts)} contexts; give as many of each")
    return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]


def _distribution(logits: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Over the tokens that can be in an answer, and the first one, which stands for no answer."""
    exp = np.exp((masked := np.where(possible, logits, OUTSIDE)) - masked.max())
    return exp / exp.sum()


def _spans(start: np.ndarray, end: np.ndarray, longest: int, count: int) -> list[tuple[int, int, float]]:
    """The `count` likeliest (start, end, probability) with end in reach of start."""
    table = np.tril(np.triu(np.outer(start, end)), longest - 1)
    flat = table.ravel()
    near = np.argpartition(-flat, count)[:count] if count < len(flat) else np.arange(len(flat))
    order = near[np.argsort(-flat[near], kind="stable")]
    return [(int(i) // len(end), int(i) % len(end), float(flat[i])) for i in order if flat[i] > 0]


def _characters(window: Encoding, start: int, end: int, whole_words: bool) -> tuple[int, int]:
    """Tokens -> the span of the context that they, or their words, come from."""
    if whole_words:
        first, last = window.token_to_word(start), window.token_to_word(end)
        if first is not None and last is not None:
            begin, stop = window.word_to_chars(first, 1), window.word_to_chars(last, 1)
            if begin is not None and stop is not None:
                return begin[0], stop[1]
    return window.offsets[start][0], window.offsets[end][1]
