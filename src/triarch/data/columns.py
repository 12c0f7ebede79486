"""What kind of rows a data set holds, told by the names of its columns and the values in them.

A kind is what an objective reads, by the objective's name, or running text. Each has its columns, by canonical names;
USUAL lists the names under which data sets out there have them.
"""

import math
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from triarch.errors import InvalidInput, show, some
from triarch.kinds import Text
from triarch.objectives import objective, objectives
from triarch.suggest import did_you_mean

_FIELDS = {name: objective(name).FIELDS for name in objectives()}
KINDS = {name: columns for name, columns in _FIELDS.items() if columns} | {"documents": ("text",)}
LABELLED = ("classification", "multi-label", "regression")
CANONICAL = tuple(dict.fromkeys(name.rstrip("?") for names in KINDS.values() for name in names))
GROUP = "group"  # a column that any kind may have: rows of one group stay on one side of a split
PAIRS = (  # names that two texts of a row have together
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("sentence_a", "sentence_b"),
)
WRITTEN = (  # names that a text and what is to be written from it have together
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("input", "target"),
    ("inputs", "targets"),
    ("input_text", "target_text"),
    ("document", "summary"),
    ("article", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("dialogue", "summary"),
)
TRANSLATION = "translation"  # a column of objects with a text in each of two languages
_LABELS = (
    *("label", "labels", "intent", "sentiment", "category", "class", "score", "stars", "rating", "target", "topic"),
    *("emotion", "similarity", "relatedness_score", "coarse_label"),
)
USUAL: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation"),
    "tools": ("tools",),
    "text": (Text.name, *Text.usual),
    "text_pair": tuple(dict.fromkeys(second for _, second in PAIRS)),
    "label": _LABELS,
    "labels": ("labels", "label", *_LABELS[2:]),
    "tokens": ("tokens", "words", "form"),
    "tags": ("tags", "ner_tags", "pos_tags", "upos", "xpos", "ner", "pos", "labels", "deprel", "lemma"),
    "question": ("question",),
    "context": ("context",),
    "answers": ("answers",),
    "id": ("id",),
    "anchor": ("anchor", "query"),
    "positive": ("positive", "passage", "document"),
    "negative": ("negative", "hard_negative"),
    "source": tuple(dict.fromkeys(first for first, _ in WRITTEN)),
    "target": tuple(dict.fromkeys(second for _, second in WRITTEN)),
}
# In which kinds are tried; those of labels are told apart by these
ORDER = ("chat", "tagging", "span", "contrastive", "seq2seq", "classification", "documents")
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Reading:
    """What rows were taken for, and which of their columns became what."""

    kind: str
    columns: dict[str, str]  # canonical name -> the data's own
    unused: tuple[str, ...]  # columns of the data that are not read
    values: str = ""  # of labels: "str", "bool", "int", "float" or "list"

    def __str__(self) -> str:
        taken = ", ".join(ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in self.columns.items())
        return f"{self.kind} ({taken}{'; not read: ' + some(list(self.unused)) if self.unused else ''})"


def kind_of(rows: Any) -> str:
    """The kind of rows, by their columns and values. Raises InvalidInput as `infer` does."""
    reading = getattr(rows, "reading", None)
    return (reading or infer(rows)).kind


def infer(
    rows: Any, columns: Mapping[str, str | int] | None = None, kind: str | None = None, *, typed: bool = True
) -> Reading:
    """What rows (dicts) are, with some columns named ({ours: theirs}), or the kind given, where that is known.

    `typed` is false for cells of a table, in which numbers are strings. Raises InvalidInput for a column that is not
    there, where columns or values fit no kind, or several, and for labels that are a table of 0 and 1.
    """
    asked = {ours: str(theirs) for ours, theirs in (columns or {}).items()}
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"there is no kind {show(kind)!r}{did_you_mean(kind, KINDS)}; wanted {', '.join(KINDS)}")
    known = (*CANONICAL, GROUP)
    if unknown := [ours for ours in asked if ours not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InvalidInput(f"no kind of rows has a column {show(unknown[0])!r}{hint}; wanted {', '.join(known)}")
    found = list(dict.fromkeys(name for row in rows for name in _names(row)))
    if absent := [theirs for theirs in asked.values() if theirs not in found]:
        raise InvalidInput(
            f"there is no column {show(absent[0])!r}{did_you_mean(absent[0], found)}; found {some(found)}"
        )
    for candidate in [kind] if kind else list(ORDER):
        chosen = _columns(candidate, found, asked, needed=kind is not None)
        if chosen is None or (kind is None and _is_other(candidate, chosen, found, rows)):
            continue
        values = ""
        if candidate in LABELLED:
            theirs = chosen[_label_of(chosen)]
            values = values_of((row.get(theirs) for row in rows), typed=typed)
            candidate = _labelled(kind, values, theirs)
            if candidate == "multi-label":
                _refuse_table([row.get(theirs) for row in rows], theirs)
            label = "labels" if candidate == "multi-label" else "label"
            chosen = {label if ours in ("label", "labels") else ours: theirs for ours, theirs in chosen.items()}
        chosen |= {GROUP: asked[GROUP]} if GROUP in asked else {}
        return Reading(candidate, chosen, tuple(name for name in found if name not in chosen.values()), values)
    raise InvalidInput(
        f"the columns ({some(found)}) fit no kind of rows; name what they are, such as --column text={_example(found)}"
    )


def value_in(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; of one language where the name says which, such as translation.fr. None for none."""
    outer, _, inner = name.partition(".")
    if name not in row and outer == TRANSLATION and isinstance(row.get(outer), Mapping):
        return row[outer].get(inner)
    return row.get(name)


def _names(row: Mapping[str, Any]) -> list[str]:
    """The columns of a row, the languages of a translation among them."""
    languages = row.get(TRANSLATION)
    if not isinstance(languages, Mapping):
        return list(row)
    inner = [f"{TRANSLATION}.{language}" for language in languages]
    return [other for name in row for other in (inner if name == TRANSLATION else [name])]


def values_of(values: Iterable[Any], *, typed: bool = True) -> str:
    """What most values of a label are: "str", "bool", "int", "float" or "list"; empty if all are missing.

    Where some numbers have a fraction, all are taken for float; where they are written as floats but have none,
    the answer is "whole".
    """
    values = list(values)
    sorts = Counter(sort_of(value) for value in values)
    del sorts["missing"]
    if sorts["str"] and not typed:
        cells = [value.strip() for value in values if sort_of(value) == "str"]
        filled = [
            cell for cell in cells if cell.lower() != "nan"
        ]  # which is a name, and no number left out, beside names
        if not filled or not all(NUMBER.fullmatch(cell) for cell in filled):
            return "str"
        if all(INTEGER.fullmatch(cell) for cell in filled):
            return "int"
        return "float" if any(not float(cell).is_integer() for cell in filled) else "whole"
    if sorts["float"]:
        whole = all(float(value).is_integer() for value in values if sort_of(value) == "float")
        sorts["float"] += sorts.pop("int", 0)
        if whole and sorts.most_common(1)[0][0] == "float":
            return "whole"
    return sorts.most_common(1)[0][0] if sorts.total() else ""


def sort_of(value: Any) -> str:
    """What a value is, in the words of `values_of`; "missing" or "other"."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "missing"
    if isinstance(value, str):
        return "str"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, numbers.Integral):
        return "int"
    if isinstance(value, numbers.Real):
        number = float(value)
        return "float" if math.isfinite(number) else "missing" if math.isnan(number) else "other"
    return "list" if isinstance(value, list | tuple) else "other"


def _columns(kind: str, found: list[str], asked: dict[str, str], *, needed: bool) -> dict[str, str] | None:
    """The columns of a kind; None if the data lacks one, or if it was asked for one that the kind does not have."""
    wanted = list(KINDS[kind])
    if kind in LABELLED:
        wanted[-1] = "labels" if "labels" in asked or kind == "multi-label" else "label"
        if kind == "multi-label" and "label" in asked:
            wanted[-1] = "label"
    if set(asked) - {GROUP} - {name.rstrip("?") for name in wanted}:
        if not needed:
            return None
        raise InvalidInput(
            f"rows for {kind} have {', '.join(wanted)}; asked for {', '.join(asked)}: leave out the rest"
        )
    chosen = _written(found) if kind == "seq2seq" and not asked.keys() & set(wanted) else {}
    if kind == "seq2seq" and not chosen and not asked and not needed:
        return None  # one of the names alone says little
    for name in wanted:
        if name in chosen:
            continue
        ours = name.rstrip("?")
        free = [theirs for theirs in found if theirs not in chosen.values() and theirs not in asked.values()]
        theirs = asked.get(ours) or (_pair(chosen, free) if ours == "text_pair" else _usual(ours, free, kind))
        if theirs:
            chosen[ours] = theirs
        elif not name.endswith("?"):
            if not needed:
                return None
            raise InvalidInput(f"no column is known as the {ours} of {kind} among {some(found)}; name it: "
                               f"--column {ours}={_example(found)}")  # fmt: skip
    return chosen


def _usual(ours: str, free: list[str], kind: str) -> str | None:
    """The column with a usual name; the canonical one before all. Raises InvalidInput if there are several."""
    plain = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in free}
    if ours in free:
        return ours
    near = [name for name in free if plain[name] in USUAL[ours]]
    seconds = {second for first, second in PAIRS if first in plain.values()}
    near = [name for name in near if not (ours == "text" and plain[name] in seconds)]
    if len(near) > 1:
        raise InvalidInput(
            f"the {ours} of {kind} may be any of {some(near)}; say which: --column {ours}={show(near[0])}"
        )
    return near[0] if near else None


def _pair(chosen: dict[str, str], free: list[str]) -> str | None:
    first = re.sub(r"[\s-]+", "_", chosen["text"].strip().lower())
    seconds = [second for one, second in PAIRS if one == first]
    near = [name for name in free if re.sub(r"[\s-]+", "_", name.strip().lower()) in seconds]
    return near[0] if len(near) == 1 else None


def _written(found: list[str]) -> dict[str, str]:
    """The text to be read and the one to be written, by their usual names. Raises InvalidInput for several pairs."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in found}
    pairs = [(plain[first], plain[second]) for first, second in WRITTEN if first in plain and second in plain]
    languages = [name for name in found if name.startswith(f"{TRANSLATION}.")]
    if len(languages) == 2:
        pairs.append((languages[0], languages[1]))
    if len(pairs) > 1:
        listed = " or ".join(f"{first} to {second}" for first, second in pairs[:3])
        first, second = map(show, pairs[0])
        raise InvalidInput(
            f"what is to be written may be {show(listed)}; say which: --column source={first} --column target={second}"
        )
    return {"source": pairs[0][0], "target": pairs[0][1]} if pairs else {}


def _is_other(kind: str, chosen: dict[str, str], found: list[str], rows: Any) -> bool:
    """Whether columns that have the names of a kind hold something else, so that the next kind is looked at."""
    if kind == "chat":
        return not any(isinstance(row.get(chosen["messages"]), list | tuple) for row in rows)
    if kind == "tagging":
        return not any(isinstance(row.get(chosen["tokens"]), list | tuple) for row in rows)
    if kind == "seq2seq":
        texts = any(all(isinstance(value_in(row, chosen[ours]), str) for ours in ("source", "target")) for row in rows)
        of_label = chosen["target"].lower() in _LABELS and any(
            name.lower() in USUAL["text"] for name in found if name not in chosen.values()
        )
        return not texts or of_label  # a label, and the source that its text is from
    if kind == "contrastive":  # a query and a passage with a label are a pair to be classified
        return set(chosen) & set(chosen.values()) == set() and any(name.lower() in _LABELS for name in found)
    return False


def _label_of(chosen: dict[str, str]) -> str:
    return "labels" if "labels" in chosen else "label"


def _refuse_table(values: list[Any], theirs: str) -> None:
    """Raises InvalidInput for lists with a 0 or a 1 for each class, which say no class by its name."""
    lists = [value for value in values if sort_of(value) == "list"]
    widths = {len(value) for value in lists}
    if len(widths) == 1 and widths.pop() > 1 and all(cell in (0, 1) for value in lists for cell in value):
        raise InvalidInput(
            f"column {show(theirs)!r} holds lists of 0 and 1, one number a class; wanted names: write those of the "
            "classes that apply"
        )


def _labelled(kind: str | None, values: str, theirs: str) -> str:
    """The kind that the values of a label make; `kind`, where it was given."""
    if kind is not None:
        return kind
    if values == "whole":
        raise InvalidInput(
            f"column {show(theirs)!r} holds whole numbers written as fractions (1.0), which may be classes or amounts; "
            "say which as the objective: classification or regression"
        )
    if values in ("", "other"):
        raise InvalidInput(f"column {show(theirs)!r} holds no label that is a name, a number or a list; name another "
                           "column: --column label=...")  # fmt: skip
    return {"list": "multi-label", "float": "regression"}.get(values, "classification")


def _example(found: list[str]) -> str:
    return show(found[0]) if found else "review"
