"""Structured output: text that meets a JSON schema, a regular expression or a grammar, or is one of several texts.

At each place a grammar says which tokens may follow; llguidance reads it. What may follow depends on the new tokens
alone, so that this is one more filter, whatever the search does with rows: it draws, copies, reorders or guesses them.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.generation import schemas
from triarch.generation.filters import NEVER, SoFar
from triarch.generation.schemas import check_size
from triarch.generation.settings import Settings
from triarch.inputs.text.processor import TextProcessor
from triarch.inputs.text.sentencepiece import SPACE

if TYPE_CHECKING:
    from llguidance import LLMatcher

AHEAD = 512  # states of tokens that were guessed, beside those of rows and of what they come from
STACK = 128 << 20  # bytes of stack to compile on; the worst grammar that limits.py lets pass takes about a quarter
# JSON allows any number of spaces nearly everywhere, which a model that is not sure would go on to write
JSON_OPTIONS = {"whitespace_flexible": True, "whitespace_pattern": "[ ]?", "lenient": False, "coerce_one_of": False}
Made = TypeVar("Made")
END = "<|end of form|>"  # a token of ours in the tokenizer that llguidance sees: it wants one, models may have none


class Form:
    """Lets only those tokens pass that a grammar allows after the new ones of each row.

    Where the grammar allows to stop, so are `ends`; where nothing else may follow, they alone. A row that left the
    grammar, or is complete without a token that could say so, passes as it is: such rows are over.
    """

    def __init__(self, root: LLMatcher, ends: Sequence[int], skipped: int = 0, *, spells: bool = True):
        """`skipped`: new tokens that come first and are no part of the form; `spells`: whether tokens spell out all
        bytes."""
        self.root, self.ends, self.skipped, self.spells = root, list(ends), skipped, spells
        self.states: OrderedDict[tuple[int, ...], LLMatcher | None] = OrderedDict()  # the latest used comes last

    def __call__(self, logits: Tensor, so_far: SoFar) -> Tensor:
        if so_far.steps < self.skipped:
            return logits
        rows: list[list[int]] = so_far.new[:, self.skipped :].tolist()
        allowed = torch.stack([self._allowed(tuple(row), logits.shape[1]) for row in rows])  # (N, V)
        while len(self.states) > 2 * len(rows) + AHEAD:
            self.states.popitem(last=False)
        if not allowed.any():
            raise Unsupported("the form goes on with what no token of this tokenizer spells; ask for another form")
        return logits.masked_fill(~allowed.to(logits.device), NEVER)

    def complete(self, ids: Sequence[int]) -> bool:
        """Whether nothing can follow."""
        state = self._state(tuple(ids[self.skipped :]))
        return len(ids) >= self.skipped and (state is None or state.is_stopped())

    def _allowed(self, tokens: tuple[int, ...], vocab: int) -> Tensor:
        state = self._state(tokens)
        allowed = torch.zeros(vocab, dtype=torch.bool)
        if state is None or (state.is_stopped() and not self.ends):
            return ~allowed
        if not state.is_stopped():
            bits = np.unpackbits(np.frombuffer(state.compute_bitmask(), dtype=np.uint8), bitorder="little")
            if _stuck(state):
                return allowed
            _check_budget(state)
            count = min(vocab, len(bits))
            allowed[:count] = torch.from_numpy(bits[:count]).bool()
            if not self.spells and state.compute_ff_bytes():  # it takes bytes that no token spells for said
                for token in allowed.nonzero().flatten().tolist():
                    allowed[token] = state.validate_tokens([token]) == 1
        allowed[self.ends] = state.is_accepting()
        return allowed

    def _state(self, tokens: tuple[int, ...]) -> LLMatcher | None:
        """The grammar after these tokens, mostly that of their parent and one token; None where they leave it."""
        known = next((n for n in range(len(tokens), 0, -1) if tokens[:n] in self.states), 0)
        state = self.states[tokens[:known]] if known else self.root
        if state is not None and (fresh := list(tokens[known:])):
            state = state.deep_copy()
            if state.try_consume_tokens(fresh) < len(fresh):
                _check_budget(state)
                state = None
        self.states[tokens] = state
        self.states.move_to_end(tokens)
        return state


def form_of(
    settings: Settings, processor: TextProcessor | None, ends: Sequence[int], *, begins: bool = False
) -> Form | None:
    """The filter of what settings ask for; None where they ask for no form.

    `begins`: nothing stands before the text that is written, so that a space before its first word is none.

    Raises InvalidInput for a form that is not well written, that llguidance does not know, or that no text meets;
    LimitExceeded for one that is too large; Unsupported for a tokenizer whose tokens do not spell out bytes.
    """
    if not settings.forms:
        return None
    (what,) = settings.forms
    if processor is None:
        raise InvalidInput(f"{what} needs a tokenizer, which the checkpoint does not have; put one beside the weights")
    grammar = _grammar(what, settings)
    with _lock:
        made = _compilers.setdefault(processor, _Kept())
    compiler = made.get("", lambda: _Compiler(processor))
    if compiler.led and not begins:
        raise _not_spelled("a space may belong to a piece or not")
    forced = begins and settings.forced_bos_token_id is not None  # as checkpoints do that say the language so
    return Form(compiler.compiled(what, grammar), ends, skipped=int(forced), spells=not compiler.led)


class _Compiler:
    """Grammars as they apply to one tokenizer; the latest used are kept."""

    def __init__(self, processor: TextProcessor):
        from llguidance import LLTokenizer, TokenizerWrapper
        from tokenizers import AddedToken, Tokenizer

        tokenizer = Tokenizer.from_str(processor.tokenizer.to_str())
        tokenizer.add_special_tokens([AddedToken(END, special=True)])
        self.led = False  # a space may stand before the text, which is not part of it
        try:
            self.tokenizer = LLTokenizer(tokenizer.to_str(), eos_token=tokenizer.token_to_id(END))
        except ValueError as error:
            if not any(SPACE in token for token in tokenizer.get_vocab()):
                raise _not_spelled(_line(error)) from None
            pieces = _Pieces(processor)
            self.tokenizer = LLTokenizer(TokenizerWrapper(pieces), eos_token=pieces.eos_token_id)
            self.led = True
        self.kept: _Kept[LLMatcher] = _Kept(limits.FORMS_KEPT)

    def compiled(self, what: str, grammar: str) -> LLMatcher:
        """At its beginning; a copy, which nobody else moves on."""
        read = _after_space(grammar) if self.led else grammar
        return self.kept.get(grammar, lambda: _on_deep_stack(what, read, self.tokenizer)).deep_copy()


class _Kept(Generic[Made]):
    """What takes long to make, by name; the latest used are kept. Threads that ask for the same wait for the one that
    makes it, and others go on: no lock is held meanwhile."""

    def __init__(self, most: int = 1):
        self.most = most
        self.made: OrderedDict[str, Future[Made]] = OrderedDict()
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.made)

    def get(self, name: str, make: Callable[[], Made]) -> Made:
        with self.lock:
            known = self.made.get(name)
            future = self.made.setdefault(name, Future())
            self.made.move_to_end(name)
            while len(self.made) > self.most:
                self.made.popitem(last=False)
        if known is None:
            try:
                future.set_result(make())
            except BaseException as error:
                with self.lock:
                    self.made.pop(name, None)
                future.set_exception(error)
        return future.result()


def _not_spelled(why: str) -> Unsupported:
    return Unsupported(
        f"no form can be asked of this tokenizer, whose tokens do not spell out bytes ({why}); use a byte-level BPE "
        "checkpoint, or one of SentencePiece with bytes"
    )


class _Pieces:
    """A vocabulary of SentencePiece without bytes, by the names that llguidance asks for. What a piece spells it says
    itself, but for the mark of a space; a character without a piece can not be written."""

    bos_token_id = None

    def __init__(self, processor: TextProcessor):
        vocabulary, ordinary = processor.tokenizer.get_vocab(), set(processor.ordinary_ids)
        self.eos_token_id = processor.vocab_size
        self.tokens = [b""] * processor.vocab_size + [END.encode()]
        for token, id_ in vocabulary.items():
            self.tokens[id_] = token.replace(SPACE, " ").encode()
        self.special_token_ids = [i for i in range(processor.vocab_size + 1) if i not in ordinary]
        self.ids = {self.tokens[id_]: id_ for id_ in ordinary if self.tokens[id_]}
        self.longest = max(map(len, self.ids), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """Ids of what is bound to follow: the longest pieces, as the tokenizer itself puts a space before all text."""
        ids, place = list[int](), 0
        while place < len(text):
            sizes = range(min(self.longest, len(text) - place), 0, -1)
            size = next((size for size in sizes if text[place : place + size] in self.ids), 0)
            if not size:
                break
            ids.append(self.ids[text[place : place + size]])
            place += size
        return ids


def _after_space(grammar: str) -> str:
    """The same grammar, with a space before it or none."""
    whole = json.loads(grammar) if grammar.startswith("{") else {"grammars": [{"lark_grammar": grammar}]}
    whole["grammars"][0]["name"] = "form"
    return json.dumps({"grammars": [{"lark_grammar": 'start: " "? @form'}, *whole["grammars"]]})


_compilers: WeakKeyDictionary[TextProcessor, _Kept[_Compiler]] = WeakKeyDictionary()
_lock = threading.Lock()  # held while a name is looked up, or a thread begins


def _on_deep_stack(what: str, grammar: str, tokenizer: object) -> LLMatcher:
    """Compile on a thread with a stack of its own size: the compiler recurses from rule to rule, and rules that refer
    to each other in a long chain would overflow the usual stack, which ends the process."""
    compiled: Future[LLMatcher] = Future()

    def work() -> None:
        try:
            compiled.set_result(_compile(what, grammar, tokenizer))
        except BaseException as error:
            compiled.set_exception(error)

    thread = threading.Thread(target=work)
    with _lock:  # threads that begin at once would take the size of each other for the usual one
        usual = threading.stack_size(STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    return compiled.result()


def _compile(what: str, grammar: str, tokenizer: object) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    budget = LLParserLimits(initial_lexer_fuel=limits.FORM_FUEL, verbose_errors=False)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=budget)  # type: ignore[arg-type]
    if not matcher.is_error() and not matcher.is_accepting():
        matcher.compute_bitmask()
    if matcher.is_error():
        reason = "no text meets it" if _stuck(matcher) else _line(matcher.get_error())
        raise InvalidInput(f"{what} cannot be used: {reason}; change it")
    return matcher


def _stuck(state: LLMatcher) -> bool:
    """Whether no token goes on with what was written."""
    return state.is_error() and bool(state.get_error().startswith("NoExtension"))


def _check_budget(state: LLMatcher) -> None:
    if state.is_error():
        raise LimitExceeded(f"the form takes too much work to follow ({_line(state.get_error())}); make it simpler")


# What is asked for -> what llguidance reads


def _grammar(what: str, s: Settings) -> str:
    from llguidance import LLMatcher

    if what == "json_schema":
        schema = schemas.read(s.json_schema)
        try:
            return LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)  # type: ignore[arg-type]
        except ValueError as error:
            raise InvalidInput(f"json_schema cannot be used: {_line(error)}; change it") from None
    if what == "choice":
        texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in s.choice)
        check_size(what, texts, nested=False)
        return LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {texts}")
    if what == "regex":
        assert s.regex is not None
        check_size(what, s.regex)
        return LLMatcher.grammar_from_regex(s.regex)
    assert s.grammar is not None
    check_size(what, s.grammar)
    if (lines := s.grammar.count("\n")) > limits.FORM_RULES:
        raise LimitExceeded(f"grammar has {lines:,} lines, over {limits.FORM_RULES:,}; make it smaller")
    return LLMatcher.grammar_from_lark(s.grammar)


def _line(error: object) -> str:
    return show(" ".join(str(error).split()), 200)
