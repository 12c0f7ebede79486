"""Everything that generating can be told, by the names of the reference library's GenerationConfig where it has one.

What a checkpoint asks for in generation_config.json holds unless a call says otherwise. What a call says is checked
before the model runs: what has no effect, or contradicts something else, is refused rather than passed over.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from triarch import limits
from triarch.checks import check_fields, fits, kinds
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, Unsupported, show
from triarch.kinds import NextWordScores, TargetWordScores
from triarch.suggest import did_you_mean

if TYPE_CHECKING:
    from triarch.family import Network

WRITES = (NextWordScores, TargetWordScores)  # kinds of scores that can generate
NEW_TOKENS = 256  # where nothing says how many, and the model has room for them
CONFIG = "generation_config.json"
# Keys of a checkpoint that ask for what is not implemented, unless they hold one of these
FOREIGN: dict[str, tuple[Any, ...]] = {
    "dola_layers": (None,),
    "top_h": (None,),
    "watermarking_config": (None,),
    "token_healing": (None, False),
    "forced_decoder_ids": (None, []),
}
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
IDS = (
    *("eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
)
FORMS = ("json_schema", "regex", "grammar", "choice")
OF_SOURCE = (  # what only an encoder–decoder has
    "decoder_start_token_id",
    "decoder_input_ids",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
)
POSITIVE = ("repetition_penalty", "encoder_repetition_penalty", "top_p", "typical_p", "max_time", "penalty_alpha")
BEAMS = ("length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty")


@dataclass(frozen=True, kw_only=True)
class Settings:
    # How long
    max_new_tokens: int | None = None  # None: 256, or as many as the model has room for
    max_length: int | None = None  # the same, with the prompt
    min_new_tokens: int = 0  # before these the end is out of reach
    min_length: int = 0  # the same, with the prompt
    max_time: float | None = None  # seconds
    stop: list[str] = field(default_factory=list)  # texts that end a sequence, and are not part of it
    include_stop: bool = False  # they are part of it
    skip_special_tokens: bool = True  # special tokens are no part of the text
    eos_token_id: int | list[int] | None = None  # tokens that end a sequence; none: those of the checkpoint
    ignore_eos: bool = False  # nothing but length ends a sequence
    decoder_start_token_id: int | None = None  # what a target begins with; none: what the checkpoint says
    decoder_input_ids: list[int] | None = None  # of every target: what it goes on from, after that token

    # How the next token is chosen
    do_sample: bool = False  # draw it; else take the likeliest
    temperature: float = 1.0  # 0: the likeliest
    top_k: int = 0  # draw among the k likeliest; 0: among all
    top_p: float = 1.0  # among the likeliest that together have this probability
    min_p: float | None = None  # among those that have this share of the likeliest one's probability
    typical_p: float = 1.0  # among those closest to the expected surprise that together have this probability
    epsilon_cutoff: float = 0.0  # among those of at least this probability
    eta_cutoff: float = 0.0  # the same, lower where many words are likely
    seed: int | list[int] | None = None  # of a prompt's first sequence, the next has the next one; or one for each
    num_return_sequences: int = 1  # of each prompt

    # What is ruled out, or made more or less likely
    repetition_penalty: float = 1.0  # scores of tokens that occurred, in the prompt too, are divided by it
    presence_penalty: float = 0.0  # taken from the scores of tokens that were generated (OpenAI)
    frequency_penalty: float = 0.0  # the same, once for each time
    no_repeat_ngram_size: int = 0  # no sequence of so many tokens occurs twice
    encoder_no_repeat_ngram_size: int = 0  # none of the source's sequences of so many tokens occurs
    encoder_repetition_penalty: float = 1.0  # above 1, tokens of the source are likelier
    bad_words_ids: list[list[int]] = field(default_factory=list)
    suppress_tokens: list[int] = field(default_factory=list)
    begin_suppress_tokens: list[int] = field(default_factory=list)  # as the first token alone
    forced_bos_token_id: int | None = None  # the first token, where there is no prompt but one token
    forced_eos_token_id: int | list[int] | None = None  # the last token, when the length is used up
    logit_bias: dict[int, float] = field(default_factory=dict)  # added to the scores of tokens
    sequence_bias: list[Any] = field(default_factory=list)  # [[ids], bias]: added to the last of them after the others
    exponential_decay_length_penalty: list[float] | None = None  # (from that many new tokens on, growth of the end)
    renormalize_logits: bool = False
    prefix_allowed_tokens_fn: Callable[..., Any] | None = None  # (number of the prompt, ids so far) -> allowed ids
    guidance_scale: float = 1.0  # how far to lean from what the negative prompt makes likely
    negative_prompt: str | list[int] | None = None  # None: the prompt's last token

    # Form of what is generated: at most one of these
    json_schema: dict[str, Any] | str | bool | None = None  # True: any JSON object
    regex: str | None = None
    grammar: str | None = None  # in the Lark notation
    choice: list[str] = field(default_factory=list)  # one of these texts

    # Searching with several beams
    num_beams: int = 1
    length_penalty: float = 1.0  # scores are divided by the length to this power
    early_stopping: bool | Literal["never"] = False
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0  # for a token that another group has chosen at this place
    force_words_ids: list[Any] = field(default_factory=list)  # lists of ids that must occur; of such lists: one of each
    penalty_alpha: float | None = None  # contrastive search among the top_k: how much sameness counts

    # Faster, with the same tokens
    prompt_lookup_num_tokens: int | None = None  # guess so many tokens from what followed the same words before
    assistant_model: Any = None  # a smaller model of the same vocabulary that guesses
    num_assistant_tokens: int = 5
    use_cache: bool = True
    cache_room: int | None = None  # tokens of a cache of fixed size; none: it grows

    # What is said beside the tokens
    logprobs: int | None = None  # log-probabilities of tokens, and of so many alternatives each
    prompt_logprobs: bool = False  # of the prompt's tokens too

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least, most in BOUNDS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InvalidInput(f"{name} is {show(value)}, wanted {least} to {most:,}")
        for name in POSITIVE:
            if getattr(self, name) == 0:
                raise InvalidInput(f"{name} is 0, wanted more than 0")
        for text in (*self.stop, *self.choice):
            if not text:
                raise InvalidInput("a stop or choice text is empty; leave it out")
        for token, bias in self.logit_bias.items():
            if type(token) is not int or not fits(bias, float):
                raise InvalidInput(f"logit_bias gives {show(repr(token))} {show(repr(bias))}, wanted a number to an id")
        if self.eos_token_id in ([], ()):
            raise InvalidInput("eos_token_id is an empty list; pass ignore_eos for a text that nothing but length ends")
        if self.negative_prompt in ("", [], ()):
            raise InvalidInput("negative_prompt is empty; leave it out to lean from the prompt's last token")
        if not all(self.bad_words_ids):
            raise InvalidInput("bad_words_ids holds an empty list; leave it out")
        if len(self.stop) > limits.STOPS or any(len(text) > limits.STOP_CHARACTERS for text in self.stop):
            raise LimitExceeded(
                f"stop holds {len(self.stop)} texts, or a long one; wanted up to {limits.STOPS} of "
                f"{limits.STOP_CHARACTERS} characters"
            )
        decay = self.exponential_decay_length_penalty
        if decay is not None and (len(decay) != 2 or decay[0] < 0 or decay[1] <= 0):
            raise InvalidInput(f"exponential_decay_length_penalty is {show(decay)}, wanted (tokens, factor above 0)")
        for seed in self.seeds:
            if not 0 <= seed < limits.SEED:
                raise InvalidInput(f"seed {show(seed)} is out of range; wanted 0 to 2^63 - 1")
        self._check_combinations()

    @property
    def seeds(self) -> list[int]:
        return list(self.seed) if isinstance(self.seed, list | tuple) else [] if self.seed is None else [self.seed]

    @property
    def sampled(self) -> bool:
        return self.do_sample and self.temperature > 0

    @property
    def forms(self) -> list[str]:
        """Names of the options that ask for a form."""
        return [name for name in FORMS if getattr(self, name) not in (None, [], ())]

    @property
    def speculative(self) -> bool:
        return self.prompt_lookup_num_tokens is not None or self.assistant_model is not None

    @property
    def rows(self) -> int:
        """Sequences that are worked on for one prompt."""
        return max(self.num_beams, self.num_return_sequences, 1 if self.penalty_alpha is None else self.top_k)

    def _check_combinations(self) -> None:
        if self.regex == "":
            raise InvalidInput("regex is empty, and allows no text; leave it out")
        if len(self.forms) > 1:
            raise InvalidInput(f"{' and '.join(self.forms)} exclude each other; name one")
        if self.forms and self.ignore_eos:
            raise InvalidInput(f"{self.forms[0]} ends where it is complete, which ignore_eos rules out; leave one out")
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise InvalidInput(f"min_new_tokens {self.min_new_tokens} is over max_new_tokens {self.max_new_tokens}")
        if self.max_length is not None and self.min_length > self.max_length:
            raise InvalidInput(f"min_length {self.min_length} is over max_length {self.max_length}")
        if self.num_beams % self.num_beam_groups:
            raise InvalidInput(f"num_beams {self.num_beams} do not split into num_beam_groups {self.num_beam_groups}")
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise InvalidInput(
                f"num_return_sequences {self.num_return_sequences} is over num_beams {self.num_beams}; ask for fewer"
            )
        if self.num_return_sequences > 1 and self.num_beams == 1 and not self.sampled:
            raise InvalidInput("num_return_sequences without do_sample or num_beams gives one text several times")
        if self.cache_room is not None and not self.use_cache:
            raise InvalidInput("cache_room only matters with use_cache; leave one of them out")
        if self.guidance_scale == 1 and self.negative_prompt is not None:
            raise InvalidInput("negative_prompt does nothing without guidance_scale; give both, or neither")
        modes = {
            "num_beams": self.num_beams > 1,
            "penalty_alpha": self.penalty_alpha is not None,
            "prompt_lookup_num_tokens or assistant_model": self.speculative,
        }
        if len(asked := [name for name, on in modes.items() if on]) > 1:
            raise InvalidInput(f"{' and '.join(asked)} are different ways to search; choose one")
        if self.prompt_lookup_num_tokens is not None and self.assistant_model is not None:
            raise InvalidInput("prompt_lookup_num_tokens and assistant_model both guess; choose one")
        if self.num_beam_groups > 1 and (self.do_sample or self.force_words_ids):
            raise InvalidInput("num_beam_groups goes with neither do_sample nor force_words_ids")
        if (self.num_beam_groups > 1) != (self.diversity_penalty > 0):
            raise InvalidInput("num_beam_groups and diversity_penalty do nothing alone; give both, or neither")
        if self.force_words_ids and (self.num_beams == 1 or self.do_sample):
            raise InvalidInput("force_words_ids needs num_beams above 1, and no do_sample")
        if self.penalty_alpha is not None and (self.do_sample or self.top_k < 2):
            raise InvalidInput("penalty_alpha needs top_k of at least 2, and no do_sample")
        if self.penalty_alpha is not None and self.guidance_scale != 1:
            raise InvalidInput("penalty_alpha compares what one prompt is seen as, guidance reads two; choose one")
        if self.speculative and self.num_return_sequences > 1:
            raise InvalidInput("guessing ahead works on one sequence a prompt; leave num_return_sequences out")


BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("max_new_tokens", 1, limits.POSITIONS),
    ("max_length", 1, limits.POSITIONS),
    ("min_new_tokens", 0, limits.POSITIONS),
    ("min_length", 0, limits.POSITIONS),
    ("max_time", 0, 1e9),
    ("temperature", 0, 1e4),
    ("top_k", 0, limits.VOCABULARY),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("typical_p", 0, 1),
    ("epsilon_cutoff", 0, 1),
    ("eta_cutoff", 0, 1),
    ("num_return_sequences", 1, limits.SEQUENCES),
    ("repetition_penalty", 0, 1e4),
    ("presence_penalty", -100, 100),
    ("frequency_penalty", -100, 100),
    ("no_repeat_ngram_size", 0, limits.POSITIONS),
    ("encoder_no_repeat_ngram_size", 0, limits.POSITIONS),
    ("encoder_repetition_penalty", 0, 1e4),
    ("guidance_scale", 0, 1e4),
    ("num_beams", 1, limits.SEQUENCES),
    ("length_penalty", -10, 10),
    ("num_beam_groups", 1, limits.SEQUENCES),
    ("diversity_penalty", 0, 1e4),
    ("penalty_alpha", 0, 1),
    ("prompt_lookup_num_tokens", 1, 256),
    ("num_assistant_tokens", 1, 256),
    ("cache_room", 1, limits.POSITIONS),
    ("logprobs", 0, limits.ALTERNATIVES),
)


Kind = TypeVar("Kind", bound=Settings)


def make(
    model: Network,
    given: Mapping[str, Any],
    kind: type[Kind] = Settings,  # type: ignore[assignment]
    *,
    said: Mapping[str, Any] | None = None,
) -> Kind:
    """What a call says, on top of what the checkpoint says, on top of the defaults of `kind`.

    `said`: what the checkpoint says of the task at hand, which goes before what it says of generating.

    Raises InvalidInput for unknown names, values out of bounds, and what has no effect beside the rest of the call.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    given = {RENAMED.get(name, name): value for name, value in given.items()}
    for name in given:
        if name not in known:
            raise InvalidInput(f"no option {show(name)!r}{did_you_mean(name, known)}; see triarch generate --help")
    wanted = {name: value for name, value in given.items() if value is not None or fits(None, kinds(kind)[name])}
    if isinstance(wanted.get("stop"), str):
        wanted["stop"] = [wanted["stop"]]
    kept = _of_checkpoint(model, wanted, kind.do_sample, said or {})
    try:
        made = kind(**kept | wanted)
    except InvalidInput as error:
        if not kept:
            raise
        kind(**wanted)  # raises what is wrong with the call alone
        raise InvalidInput(f"{CONFIG} and the call together: {error}") from None
    _check_effect(made, wanted)
    idle = [name for name in OF_SOURCE if wanted.get(name) is not None]
    if idle and model.kind is not TargetWordScores:
        raise InvalidInput(f"{' and '.join(idle)} do nothing to {model.architecture}, which has no encoder")
    return made


RENAMED = {"stop_strings": "stop", "stop_sequence": "stop"}


def _check_effect(made: Settings, wanted: Mapping[str, Any]) -> None:
    """Raises InvalidInput for an option of the call that does nothing beside the others."""

    def changed(names: tuple[str, ...]) -> list[str]:
        defaults = {f.name: f.default for f in dataclasses.fields(Settings)}
        return [name for name in names if name in wanted and wanted[name] != defaults[name]]

    for one, other in (("max_new_tokens", "max_length"), ("ignore_eos", "eos_token_id")):
        if wanted.get(one) and wanted.get(other) is not None:
            raise InvalidInput(f"{one} and {other} exclude each other; leave one out")
    drawn = () if made.penalty_alpha is None else ("top_k",)
    idle = [name for name in changed(SAMPLING) if name not in drawn and name != "temperature"]
    if idle and not made.do_sample:
        raise InvalidInput(f"{_matters(idle)} when drawing; pass do_sample=True, or leave it out")
    if made.do_sample and made.temperature == 0 and (idle := [*idle, *changed(("seed",))]):
        raise InvalidInput(f"temperature 0 takes the likeliest token, beside which {' and '.join(idle)} do nothing")
    if wanted.get("temperature") and not made.do_sample and wanted["temperature"] != 1:
        raise InvalidInput("temperature only matters when drawing; pass do_sample=True, or leave it out")
    if wanted.get("seed") is not None and not made.do_sample:
        raise InvalidInput("seed only matters when drawing; pass do_sample=True, or leave it out")
    if made.assistant_model is None and changed(("num_assistant_tokens",)):
        raise InvalidInput("num_assistant_tokens only matters with assistant_model; give both, or neither")
    if wanted.get("include_stop") and not made.stop:
        raise InvalidInput("include_stop only matters with stop; give both, or neither")
    if made.num_beams == 1 and (alone := changed(BEAMS)):
        raise InvalidInput(f"{_matters(alone)} with num_beams above 1; give both, or neither")


def _matters(names: list[str]) -> str:
    return f"{' and '.join(names)} only {'matters' if len(names) == 1 else 'matter'}"


def _of_checkpoint(
    model: Network, wanted: Mapping[str, Any], drawn: bool, of_task: Mapping[str, Any]
) -> dict[str, Any]:
    """What generation_config.json says, else what older checkpoints say of it in config.json; before it, what is said
    of the task.

    Values that a call rules out by another option are left: a checkpoint's beams do not stand in the way of drawing.
    `drawn`: whether tokens are drawn where neither says so.
    """
    raw = _sidecar(model)
    if raw is None:
        raw = model.config.to_hf()
    for name, harmless in FOREIGN.items():
        if (asked := of_task.get(name, raw.get(name))) not in harmless:
            raise Unsupported(f"{CONFIG} asks for {name}={show(asked)}, which is not implemented; remove it")
    known = kinds(Settings)
    if raw.get("max_length") == 20 and "max_new_tokens" not in raw:  # the reference's own default, written out
        raw = {name: value for name, value in raw.items() if name != "max_length"}
    said = {name: value for name, value in {**raw, **of_task}.items() if name in READ and value is not None}
    for name, value in said.items():
        if not fits(value, known[name]):
            raise CorruptFile(f"{CONFIG} says {name}={show(repr(value))}; mend it, or pass {name}=")
        if name in IDS and not all(0 <= token < model.config.target_vocab_size for token in _flat(value)):
            raise CorruptFile(
                f"{CONFIG} says {name}={show(repr(value))}, wanted 0 to {model.config.target_vocab_size - 1}; mend it"
            )
    if "max_new_tokens" in wanted or "max_length" in wanted:
        said.pop("max_new_tokens", None)
        said.pop("max_length", None)
    if any(wanted.get(name) is not None for name in FORMS):  # which ends where it is complete
        said.pop("forced_eos_token_id", None)
    if not wanted.get("do_sample", said.get("do_sample", drawn)) and "penalty_alpha" not in said:
        said.pop("top_k", None)
    if "num_beams" in wanted or "penalty_alpha" in wanted or wanted.get("do_sample"):
        for name in ("num_beams", "num_beam_groups", "diversity_penalty", "penalty_alpha", "num_return_sequences"):
            said.pop(name, None)
        said.pop("force_words_ids", None)
    return said


READ = frozenset(
    {
        *("max_new_tokens", "max_length", "min_new_tokens", "min_length", "max_time", "eos_token_id", "do_sample"),
        *SAMPLING,
        *BEAMS,
        *("num_beams", "num_return_sequences", "force_words_ids", "penalty_alpha"),
        *("repetition_penalty", "no_repeat_ngram_size", "decoder_start_token_id"),
        *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),
        *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
        *("exponential_decay_length_penalty", "renormalize_logits", "sequence_bias"),
    }
)


def _flat(ids: Any) -> list[int]:
    return [token for one in ids for token in _flat(one)] if isinstance(ids, list) else [ids]


def _sidecar(model: Network) -> dict[str, Any] | None:
    data = model.sidecars.get(CONFIG)
    if data is None:
        return None
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptFile(f"{CONFIG} is not JSON; download it again") from None
    if not isinstance(raw, dict):
        raise CorruptFile(f"{CONFIG} is not an object; download it again")
    if any(isinstance(value, float) and not math.isfinite(value) for value in raw.values()):
        raise CorruptFile(f"{CONFIG} holds a number that is not finite; mend it")
    return raw
