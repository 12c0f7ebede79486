"""What kind of rows a data set holds, told by the names of its columns and the values in them.

A kind is what an objective declares of the rows that it reads, or running text. Who reads rows says which kinds there
are.
"""

import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from triarch.errors import InvalidInput, show, some
from triarch.kinds import Medium, Text
from triarch.suggest import did_you_mean

GROUP = "group"  # a column that any kind may have: rows of one group stay on one side of a split
TRANSLATION = "translation"  # a column of objects with a text in each of two languages
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Column:
    """One column of the rows that an objective learns from."""

    # What its values are: inputs of a medium, None for the medium that the model reads, or else "class", "classes",
    # "number", "words", "answers" (that lie in the row's context), "name", "messages" or "objects"
    sort: Medium | str | None
    usual: tuple[str, ...] = ()  # other names of such columns in data sets
    optional: bool = False  # data may lack the column
    gaps: bool = False  # rows may lack a value
    recurs: bool = False  # many rows have the same value, which is then kept once
    bounded: bool = True  # of text: no longer than `limits.TEXT_CHARACTERS`
    like: str = ""  # of words: the column that has as many of them
    asked_as: str = ""  # another name by which `columns` may ask for it
    pairs: tuple[tuple[str, str], ...] = ()  # names that the kind's first column and this one have together


SECOND = Column(  # the second of two texts
    Text,
    optional=True,
    pairs=(
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
    ),
)


class Candidate(NamedTuple):
    """Columns that have the names of a kind, before it is known whether they hold its values."""

    rows: Any
    columns: dict[str, str]  # canonical name -> the data's own
    found: list[str]  # all columns of the data
    values: str  # of labels, as `values_of` has them; empty for a kind without

    def lists(self, ours: str) -> bool:
        """Whether any row has a list in a column."""
        return any(isinstance(row.get(self.columns[ours]), list | tuple) for row in self.rows)


@dataclass(frozen=True)
class Kind:
    """What rows an objective reads: what it declares, as reading takes it."""

    name: str
    columns: Mapping[str, Column]
    is_mine: Callable[[Candidate], bool] = lambda candidate: True
    keys: tuple[tuple[str, ...], ...] = ()  # columns that make two rows the same, whatever their labels: any of these

    @property
    def label(self) -> str | None:
        """The column of the label, if there is one."""
        return next((name for name, column in self.columns.items() if column.sort in LABELS), None)


LABELS = ("class", "classes", "number")  # sorts of columns that are labels
DOCUMENTS = Kind("documents", {"text": Column(Text, Text.usual, bounded=False)}, keys=(("text",),))
Kinds = Sequence[Kind]  # in the order in which they are tried


@dataclass(frozen=True)
class Reading:
    """What rows were taken for, and which of their columns became what."""

    kind: str
    columns: dict[str, str]  # canonical name -> the data's own
    unused: tuple[str, ...]  # columns of the data that are not read
    values: str = ""  # of labels: "str", "bool", "int", "float" or "list"
    fields: Mapping[str, Column] = field(default_factory=dict, repr=False)  # what the columns are declared as
    keys: tuple[tuple[str, ...], ...] = ()  # as the kind has them

    def __str__(self) -> str:
        taken = ", ".join(ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in self.columns.items())
        return f"{self.kind} ({taken}{'; not read: ' + some(list(self.unused)) if self.unused else ''})"


def infer(
    rows: Any,
    kinds: Kinds,
    columns: Mapping[str, str | int] | None = None,
    kind: str | None = None,
    *,
    typed: bool = True,
) -> Reading:
    """What rows (dicts) are, with some columns named ({ours: theirs}), or the kind given, where that is known.

    `typed` is false for cells of a table, in which numbers are strings. Raises InvalidInput for a column that is not
    there, where columns or values fit no kind, or several, and for labels that are a table of 0 and 1.
    """
    asked = {ours: str(theirs) for ours, theirs in (columns or {}).items()}
    names = [each.name for each in kinds]
    if kind is not None and kind not in names:
        raise InvalidInput(f"there is no kind {show(kind)!r}{did_you_mean(kind, names)}; wanted {', '.join(names)}")
    known = (*dict.fromkeys(name for each in kinds for name in each.columns), GROUP)
    if unknown := [ours for ours in asked if ours not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InvalidInput(f"no kind of rows has a column {show(unknown[0])!r}{hint}; wanted {', '.join(known)}")
    found = list(dict.fromkeys(name for row in rows for name in _names(row)))
    if absent := [theirs for theirs in asked.values() if theirs not in found]:
        raise InvalidInput(
            f"there is no column {show(absent[0])!r}{did_you_mean(absent[0], found)}; found {some(found)}"
        )
    sorts: dict[str, str] = {}  # of the values of columns that were looked at
    for each in kinds:
        if kind not in (None, each.name):
            continue
        chosen = _columns(each, found, asked, needed=kind is not None)
        if chosen is None:
            continue
        values = ""
        if each.label:
            theirs = chosen[each.label]
            if theirs not in sorts:
                sorts[theirs] = values_of((row.get(theirs) for row in rows), typed=typed)
            values = sorts[theirs]
            if kind is None:
                _check_values(values, theirs)
        if kind is None and not each.is_mine(Candidate(rows, chosen, found, values)):
            continue
        if each.label and each.columns[each.label].sort == "classes":
            _refuse_table([row.get(chosen[each.label]) for row in rows], chosen[each.label])
        chosen |= {GROUP: asked[GROUP]} if GROUP in asked else {}
        unused = tuple(name for name in found if name not in chosen.values())
        fields = {GROUP: Column("name"), **each.columns}
        return Reading(each.name, chosen, unused, values, fields, each.keys)
    example = f"--column {next(iter(kinds[-1].columns))}={_example(found)}"
    raise InvalidInput(f"the columns ({some(found)}) fit no kind of rows; name what they are, such as {example}")


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


def _columns(kind: Kind, found: list[str], asked: dict[str, str], *, needed: bool) -> dict[str, str] | None:
    """The columns of a kind; None if the data lacks one, or if it was asked for one that the kind does not have."""
    also = {column.asked_as: name for name, column in kind.columns.items() if column.asked_as}
    asked = {also.get(ours, ours): theirs for ours, theirs in asked.items()}
    if set(asked) - {GROUP} - set(kind.columns):
        if not needed:
            return None
        raise InvalidInput(
            f"rows for {kind.name} have {', '.join(kind.columns)}; asked for {', '.join(asked)}: leave out the rest"
        )
    first = next(iter(kind.columns))
    together = next((c.pairs for c in kind.columns.values() if c.pairs and not c.optional), ())
    chosen = _together(kind, together, found) if together and not asked.keys() & set(kind.columns) else {}
    if together and not chosen and not asked and not needed:
        return None  # one of the names alone says little
    for ours, column in kind.columns.items():
        if ours in chosen:
            continue
        free = [theirs for theirs in found if theirs not in chosen.values() and theirs not in asked.values()]
        theirs = asked.get(ours) or (
            _pair(chosen[first], column, free)
            if column.pairs and column.optional
            else _usual(ours, column, free, kind.name)
        )
        if theirs:
            chosen[ours] = theirs
        elif not column.optional:
            if not needed:
                return None
            raise InvalidInput(f"no column is known as the {ours} of {kind.name} among {some(found)}; name it: "
                               f"--column {ours}={_example(found)}")  # fmt: skip
    return chosen


def plain(name: str) -> str:
    """A column's name as usual names are written."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _usual(ours: str, column: Column, free: list[str], kind: str) -> str | None:
    """The column with a usual name; the canonical one before all. Raises InvalidInput if there are several."""
    if ours in free:
        return ours
    usual = {ours, *column.usual, *(second for _, second in column.pairs)}
    if ours == Text.name:  # and none that is the second beside one that is there
        usual -= {second for first, second in SECOND.pairs if first in map(plain, free)}
    near = [name for name in free if plain(name) in usual]
    if len(near) > 1:
        raise InvalidInput(
            f"the {ours} of {kind} may be any of {some(near)}; say which: --column {ours}={show(near[0])}"
        )
    return near[0] if near else None


def _pair(first: str, column: Column, free: list[str]) -> str | None:
    seconds = [second for one, second in column.pairs if one == plain(first)]
    near = [name for name in free if plain(name) in seconds]
    return near[0] if len(near) == 1 else None


def _together(kind: Kind, pairs: Iterable[tuple[str, str]], found: list[str]) -> dict[str, str]:
    """The two columns of a kind by names that they have together. Raises InvalidInput for several such pairs."""
    named = {plain(name): name for name in found}
    both = [(named[first], named[second]) for first, second in pairs if first in named and second in named]
    languages = [name for name in found if name.startswith(f"{TRANSLATION}.")]
    if len(languages) == 2:
        both.append((languages[0], languages[1]))
    if len(both) > 1:
        listed = " or ".join(f"{first} to {second}" for first, second in both[:3])
        given = " ".join(f"--column {ours}={show(theirs)}" for ours, theirs in zip(kind.columns, both[0], strict=False))
        raise InvalidInput(f"what is to be written may be {show(listed)}; say which: {given}")
    return dict(zip(kind.columns, both[0], strict=False)) if both else {}


def _refuse_table(values: list[Any], theirs: str) -> None:
    """Raises InvalidInput for lists with a 0 or a 1 for each class, which say no class by its name."""
    lists = [value for value in values if sort_of(value) == "list"]
    widths = {len(value) for value in lists}
    if len(widths) == 1 and widths.pop() > 1 and all(cell in (0, 1) for value in lists for cell in value):
        raise InvalidInput(
            f"column {show(theirs)!r} holds lists of 0 and 1, one number a class; wanted names: write those of the "
            "classes that apply"
        )


def _check_values(values: str, theirs: str) -> None:
    """Raises InvalidInput for labels of which nobody can say whether they are classes or amounts, or that are none."""
    if values == "whole":
        raise InvalidInput(
            f"column {show(theirs)!r} holds whole numbers written as fractions (1.0), which may be classes or amounts; "
            "say which as the objective: classification or regression"
        )
    if values in ("", "other"):
        raise InvalidInput(f"column {show(theirs)!r} holds no label that is a name, a number or a list; name another "
                           "column: --column label=...")  # fmt: skip


def _example(found: list[str]) -> str:
    return show(found[0]) if found else "review"
