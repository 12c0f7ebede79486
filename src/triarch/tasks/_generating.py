"""What all tasks share whose answer is generated: options of `triarch.generate`, batches of prompts, the texts.

The pieces of a job hold the ids of prompts; `answer` gets the sequences that came of each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from triarch import limits
from triarch.engine import budgets
from triarch.errors import InvalidInput, TriarchError
from triarch.generation.settings import NEW_TOKENS, RENAMED, WRITES, Settings, make
from triarch.inputs.processor import Piece
from triarch.tasks import _options
from triarch.tasks._base import Task

if TYPE_CHECKING:
    from triarch.family import Network
    from triarch.generation.rows import Generated


@dataclass(frozen=True, kw_only=True)
class Options(_options.Shared, Settings):
    """What every task that generates can be asked for, with the defaults of the reference's pipelines.

    The rest is what generating can be told; see `triarch.generation.Settings`. What a checkpoint says in
    generation_config.json goes before these defaults.
    """

    return_text: bool | None = None  # answers hold texts, as they do anyway
    return_tensors: bool | None = None  # answers hold ids in the place of texts
    clean_up_tokenization_spaces: bool | None = None  # none left before punctuation; None: unless the form is fixed
    details: bool = False  # answers say why they ended, and how they can be drawn again
    stop: list[str] = field(default_factory=list)  # texts that end a sequence
    include_stop: bool = True  # they are part of it
    assistant_model: str | Any = None  # a smaller model of the same vocabulary that guesses: a folder or a repo id

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        self.check_counts("batch_size")
        if self.return_text is not None and self.return_tensors is not None:
            raise InvalidInput("return_text and return_tensors exclude each other; give one")

    @property
    def cleans(self) -> bool:
        chosen = self.clean_up_tokenization_spaces
        return not self.forms if chosen is None else chosen


class Generating(Task):
    """A task that answers with what the model writes."""

    NEEDS: ClassVar[tuple[type, ...]] = WRITES
    OPTIONS: ClassVar[type[Any]] = Options
    READ_AHEAD = budgets.WRITTEN_AHEAD

    def __init__(self, model: Network, **defaults: Any):
        self.assistants: dict[str, Network] = {}
        self.loading = Lock()  # of an assistant, which only those calls wait for that ask for one
        super().__init__(model, **defaults)

    def prompt(self, ids: list[int], options: Options) -> Piece:
        """What the model goes on from, or writes from; it costs its tokens and those to come."""
        return Piece(ids, (len(ids) + (options.max_new_tokens or NEW_TOKENS)) * options.rows)

    def options(self, given: dict[str, Any]) -> Any:
        return make(self.model, self.asked(given), self.OPTIONS)

    def asked(self, given: dict[str, Any]) -> dict[str, Any]:
        """`generate_kwargs` holds options of its own, as in the reference."""
        more = given.get("generate_kwargs") or {}
        if not isinstance(more, dict):
            raise InvalidInput(f"generate_kwargs is {type(more).__name__}, wanted a dict of options")
        flat: dict[str, Any] = more | {name: value for name, value in given.items() if name != "generate_kwargs"}
        asked = super().asked({RENAMED.get(name, name): value for name, value in flat.items()})
        if isinstance(assistant := asked.get("assistant_model"), str | os.PathLike):
            asked["assistant_model"] = self._assistant(os.fspath(assistant))
        return asked

    def budget(self) -> int:
        return budgets.WRITING.of(self.model)

    def together(self, options: Options) -> int:
        if options.prefix_allowed_tokens_fn is not None:  # which is told the number of the prompt
            return 1
        most = limits.ROWS // options.rows
        return min(options.batch_size or most, most)

    def scored(
        self, pieces: list[Piece], options: Options, cancelled: Callable[[], bool]
    ) -> Sequence[list[Generated] | TriarchError]:
        """The sequences of each prompt; one that fails does so alone."""
        from triarch.generation.call import answers

        try:
            prompts = [piece.content for piece in pieces]
            found = answers(self.model, prompts, _seeded(options, len(prompts)), cancelled=cancelled)
        except TriarchError as error:
            if len(pieces) == 1:
                return [error]
            half = len(pieces) // 2
            parts = (self.scored(part, options, cancelled) for part in (pieces[:half], pieces[half:]))
            return [one for part in parts for one in part]
        return [one if isinstance(one, list) else [one] for one in found]

    def checked(self, outputs: list[Any]) -> list[list[Generated]] | TriarchError:
        return next((one for one in outputs if isinstance(one, TriarchError)), outputs)

    def record(self, name: str, prompt: list[int], text: Any, found: Generated, options: Options) -> dict[str, Any]:
        """One sequence as the user gets it, under `name` followed by _text or _token_ids."""
        if options.return_tensors:
            made: dict[str, Any] = {f"{name}_token_ids": [*prompt, *found.ids]}
        else:
            made = {f"{name}_text": text}
        if options.logprobs is not None:
            made["tokens"] = self._tokens(found)
        if options.prompt_logprobs:
            made["prompt_logprobs"] = found.prompt_logprobs
        if options.details:
            made |= {"finish_reason": found.finish_reason, "seed": found.seed, "score": found.score}
        return made

    def text(self, found: Generated, options: Options) -> str:
        from triarch.inputs.text.processor import cleaned

        return cleaned(found.text) if options.cleans else found.text

    def _tokens(self, found: Generated) -> list[dict[str, Any]]:
        """Each token with its log-probability, and the likeliest ones in its place."""

        def token(id: int, logprob: float) -> dict[str, Any]:
            return {"id": id, "token": self.processor.target.decode([id]), "logprob": logprob}

        made = [token(id, logprob) for id, logprob in zip(found.ids, found.logprobs or [], strict=True)]
        if found.alternatives is not None:
            for one, others in zip(made, found.alternatives, strict=True):
                one["alternatives"] = [token(*other) for other in others]
        return made

    def _assistant(self, name: str) -> Network:
        with self.loading:
            if name not in self.assistants:
                device = next(self.model.parameters()).device
                self.assistants[name] = self.load(name, device=device)
            return self.assistants[name]


def _seeded(options: Options, prompts: int) -> Options:
    """Seeds for each sequence of a prompt serve every prompt of a batch."""
    return replace(options, seed=[*options.seed] * prompts) if isinstance(options.seed, list | tuple) else options
