"""One frozen dataclass per family, read from and written to a checkpoint's config.json."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from types import NoneType
from typing import Any, ClassVar, Self, cast, get_args, get_type_hints

from triarch import limits
from triarch.errors import InvalidInput, Unsupported, show, some


def hf(
    name: str,
    default: Any,
    *,
    least: int = 1,
    most: int = limits.HIDDEN_SIZE,
    choices: tuple[str, ...] = (),
    also: str = "",
) -> Any:
    """Declare a field that config.json calls `name`; the reference reads it under the name `also`, too.

    Whole numbers lie in `least`..`most`, others in 0..`most`, strings among `choices`.
    """
    return field(default=default, metadata={"hf": name, "least": least, "most": most, "choices": choices, "also": also})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a model is built from. Keys that no field names are kept in `extra` and written back."""

    LABELS: ClassVar[int] = 2  # where the file does not say how many

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Self:
        """Read config.json. Raises InvalidInput for a value out of bounds, Unsupported for unknown mathematics."""
        ours = {f.metadata["hf"]: f.name for f in fields(cls) if f.metadata}
        for name, also in ((f.metadata["hf"], f.metadata["also"]) for f in fields(cls) if f.metadata):
            if also in raw:
                if raw.get(name, raw[also]) != raw[also]:
                    raise InvalidInput(f"config has {name}={show(raw[name])} and {also}={show(raw[also])}; leave one")
                raw = {key: value for key, value in raw.items() if key != also} | {name: raw[also]}
        known = {ours[key]: value for key, value in raw.items() if key in ours}
        return cls(**known, extra={key: value for key, value in raw.items() if key not in ours})

    def to_hf(self) -> dict[str, Any]:
        """The inverse of `from_hf`."""
        return self.extra | {f.metadata["hf"]: getattr(self, f.name) for f in fields(self) if f.metadata}

    def only(self, **values: Any) -> None:
        """Refuse a checkpoint in which a key that we do not read would change the mathematics."""
        for key, value in values.items():
            if self.extra.get(key, value) != value:
                raise Unsupported(f"config {key}={show(self.extra[key])} is not implemented, only {value!r}")

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for f in fields(self):
            if f.metadata:
                _check(f.metadata, getattr(self, f.name), types[f.name])
        _ = self.id2label  # checked now, not when a head first asks

    @cached_property
    def id2label(self) -> dict[int, str]:
        """Names of the classes, by their number; LABEL_0, LABEL_1, … where the file gives none."""
        named = self.extra.get("id2label")
        if named is None or named == {}:
            count = self.extra.get("num_labels", self.extra.get("_num_labels", self.LABELS))
            if type(count) is not int or not 0 < count <= limits.LABELS:
                raise InvalidInput(f"config num_labels={show(count)} is not a count up to {limits.LABELS:,}")
            return {i: f"LABEL_{i}" for i in range(count)}
        if not isinstance(named, dict) or len(named) > limits.LABELS:
            raise InvalidInput(f"config id2label is not a table of up to {limits.LABELS:,} labels; mend config.json")
        wanted = {str(i) for i in range(len(named))}
        if odd := [key for key in named if str(key) not in wanted]:
            raise InvalidInput(f"config id2label has keys {some(odd)}, wanted 0..{len(named) - 1}; mend config.json")
        return {i: str(name) for i, name in sorted((int(key), name) for key, name in named.items())}

    @property
    def target_vocab_size(self) -> int:
        """Words that can be written; of an encoder–decoder it may have others than can be read."""
        return cast(Any, self).vocab_size

    @property
    def max_target_tokens(self) -> int:
        """The longest text that can be written, with what it begins with."""
        return cast(Any, self).max_tokens

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {name: number for number, name in self.id2label.items()}


def _check(rule: Any, value: Any, wanted: Any) -> None:
    """One field against its type and bounds; `bool` is no number and a string of digits neither."""
    name, types = rule["hf"], get_args(wanted) or (wanted,)
    if value is None and NoneType in types:
        return
    if float in types and type(value) in (int, float):
        good = 0 <= value <= rule["most"]
    elif int in types and type(value) is int:
        good = rule["least"] <= value <= rule["most"]
    else:
        good = type(value) in types and (not rule["choices"] or value in rule["choices"])
    if not good:
        one_of = f"one of {', '.join(rule['choices'])}" if rule["choices"] else types[0].__name__
        least = {int: rule["least"], float: 0}.get(types[0])
        bound = "" if least is None else f" in {least}..{rule['most']:,}"
        raise InvalidInput(f"config {name}={show(repr(value))}, wanted {one_of}{bound}; mend config.json")
