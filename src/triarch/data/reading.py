"""Reading data: files or a list -> Rows in canonical columns, every bad row named with its place."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from triarch import limits
from triarch.data import datafiles
from triarch.data.columns import GROUP, NUMBER, Reading, infer, sort_of, value_in
from triarch.data.datafiles import Paths
from triarch.data.formats import READERS
from triarch.data.rows import Complaints, Origin, Rows
from triarch.errors import InvalidInput, TriarchError, show
from triarch.objectives._answers import answers_in

Columns = Mapping[str, str | int]
POLICIES = ("refuse", "skip")
MANY = 20  # labels; of more, most occur several times if they are labels


def read(
    paths: Paths,
    *,
    format: str | None = None,
    columns: Columns | None = None,
    kind: str | None = None,
    on_bad_row: str = "refuse",
) -> Rows:
    """Rows of files and folders, in the canonical columns of their kind.

    `columns` says which column of the data is which ({ours: theirs}; in a table without a header, and in CoNLL, theirs
    are numbers from 1); what it leaves out is told by usual names, and `kind` by the columns and their values. The
    answer is in `.reading`. All is read before bad rows are refused with InvalidInput, or skipped and reported.
    White space around a label in the cell of a table is taken off. Raises what `datafiles.find` and `columns.infer`
    raise, CorruptFile for a file that breaks its format as a whole.
    """
    rows, complaints = _gather(paths, format, columns, on_bad_row)
    return _canonical(rows, complaints, columns, kind, on_bad_row)


def rows_of(
    rows: Iterable[dict[str, Any] | str],
    *,
    columns: Columns | None = None,
    kind: str | None = None,
    on_bad_row: str = "refuse",
) -> Rows:
    """The same from rows in memory: dicts, or strings that are documents."""
    _check(on_bad_row)
    raw, complaints = Rows([Origin("")]), Complaints()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, str | dict):
            complaints.add(0, number, f"row {number} is a {type(row).__name__}; wanted a dict with a value a column")
        elif odd := [name for name in row if not isinstance(name, str)]:
            complaints.add(0, number, f"row {number} has a column {_shown(odd[0])}; wanted names that are strings")
        else:
            raw.append(row if isinstance(row, dict) else {"text": row}, 0, number)
    return _canonical(raw, complaints, columns, kind, on_bad_row)


def _check(on_bad_row: str) -> None:
    if on_bad_row not in POLICIES:
        raise InvalidInput(f"on_bad_row is {show(on_bad_row)!r}; wanted {' or '.join(POLICIES)}")


def _gather(paths: Paths, format: str | None, columns: Columns | None, on_bad_row: str) -> tuple[Rows, Complaints]:
    _check(on_bad_row)
    files = datafiles.find(paths, format)
    origins = [Origin(str(file.path), READERS[file.format].unit, file.format not in ("csv", "tsv")) for file in files]
    rows, complaints = Rows(origins), Complaints()
    for origin, file in enumerate(files):
        empty = True
        for number, row in READERS[file.format].read(file, columns or {}):
            empty = False
            if isinstance(row, TriarchError):
                complaints.add(origin, number, str(row))
            else:
                rows.append(row, origin, number)
        if empty:
            complaints.add(origin, 0, f"{file} holds no rows; leave it out")
    return rows, complaints


def _settled(rows: Rows, complaints: Complaints, total: int, on_bad_row: str) -> Rows:
    """The good rows, if the bad ones may be left out and do not leave nothing."""
    if on_bad_row == "refuse" or not len(rows):
        complaints.refuse(total + complaints.count)
    if not len(rows):
        raise InvalidInput("there are no rows; give at least one")
    rows.skipped, rows.skipped_count = complaints.lines(), complaints.count
    return rows


def _canonical(raw: Rows, complaints: Complaints, columns: Columns | None, kind: str | None, on_bad_row: str) -> Rows:
    if not len(raw):
        return _settled(raw, complaints, 0, on_bad_row)
    reading = infer(raw, columns, kind, typed=raw.typed())
    rows, shared = Rows(raw.origins), dict[str, str]()
    rows.reading = reading
    for i, row in enumerate(raw):
        origin, number = raw.where(i)
        try:
            rows.append(fit(row, reading, shared, typed=raw.origins[origin].typed), origin, number)
        except InvalidInput as error:
            complaints.add(origin, number, f"{raw.place(i)}: {error}")
    settled = _settled(rows, complaints, len(rows), on_bad_row)
    if reading.kind in ("classification", "multi-label"):
        settled.warnings = _doubts(settled, reading)
    return settled


def _doubts(rows: Rows, reading: Reading) -> list[str]:
    """Whether labels look as if they were none, but numbers of rows, amounts or texts."""
    ours = "labels" if reading.kind == "multi-label" else "label"
    counts = Counter(label for found in rows.column(ours) for label in (found if isinstance(found, list) else [found]))
    once = sum(count == 1 for count in counts.values())
    if len(counts) <= MANY or 2 * once <= len(counts):
        return []
    return [
        f"of {len(counts):,} labels in column {show(reading.columns[ours])} {once:,} occur only once; if they are "
        f"amounts, set the objective to regression, if they are no labels, name another column: --column {ours}=NAME"
    ]


def fit(row: Mapping[str, Any], reading: Reading, shared: dict[str, str], *, typed: bool = True) -> dict[str, Any]:
    """A row in canonical columns. `shared` holds strings that recur, so that rows need not repeat them; `typed` is
    false for cells of a table.

    Raises InvalidInput for a value that its column cannot have.
    """
    fitted: dict[str, Any] = {}
    for ours, theirs in reading.columns.items():
        value = value_in(row, theirs)
        if ours in ("id", GROUP):
            if value is None or not isinstance(value, str | int | float):
                raise InvalidInput(f"{_named(ours, theirs)} is {_shown(value)}; wanted a name or a number")
            fitted[ours] = str(value)
        elif ours == "messages":
            fitted[ours] = _objects(value, _named(ours, theirs))
            if odd := [message for message in fitted[ours] if not isinstance(message.get("role"), str)]:
                raise InvalidInput(f"{_named(ours, theirs)} hold {_shown(odd[0])}; wanted each with a role")
        elif ours == "tools":
            if value is not None:
                fitted[ours] = _objects(value, _named(ours, theirs))
        elif ours in ("tokens", "tags"):
            fitted[ours] = _words(value, _named(ours, theirs), shared)
        elif ours == "label":
            bare = value if typed or not isinstance(value, str) else value.strip()
            fitted[ours] = _label(bare, _named(ours, theirs), reading, shared)
        elif ours == "labels":
            fitted[ours] = _labels(value, _named(ours, theirs), shared)
        elif ours == "answers":
            found = answers_in(value, fitted["context"])
            fitted[ours] = [{"text": text, "start": start} for text, start in found]
        elif ours == "negative" and value is None:
            continue
        else:
            fitted[ours] = _text(value, _named(ours, theirs), bounded=reading.kind != "documents")
            if ours == "context":
                fitted[ours] = shared.setdefault(fitted[ours], fitted[ours])
    if reading.kind == "tagging" and len(fitted["tokens"]) != len(fitted["tags"]):
        words, tags = len(fitted["tokens"]), len(fitted["tags"])
        raise InvalidInput(f"{words} tokens have {tags} tags; give each token one")
    return fitted


def _named(ours: str, theirs: str) -> str:
    return ours if ours == theirs else f"{ours} (column {show(theirs)})"


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{show(repr(value), 40)}"


def _text(value: Any, name: str, *, bounded: bool) -> str:
    if value is None:
        raise InvalidInput(f"{name} is missing; write one")
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {_shown(value)}; wanted a string")
    if not value.strip():
        raise InvalidInput(f"{name} is empty; write one")
    if bounded and len(value) > limits.TEXT_CHARACTERS:
        raise InvalidInput(f"{name} has {len(value):,} characters, over {limits.TEXT_CHARACTERS:,}; split it")
    return _encodable(value, name)


def _encodable(value: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{name} has half of a surrogate pair at {error.start}; decode it anew") from None
    return value


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    """A list of objects, and no text in it that cannot be encoded."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, dict) for one in value):
        raise InvalidInput(f"{name} are {_shown(value)}; wanted a list of objects")
    _encodable(json.dumps(value, ensure_ascii=False, default=str), name)
    return list(value)


def _words(value: Any, name: str, shared: dict[str, str]) -> list[str]:
    if value is None:
        raise InvalidInput(f"{name} is missing; write a list")
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{name} is {_shown(value)}; wanted a list of strings")
    words: list[str] = []
    for word in value:
        sort = sort_of(word)
        if sort not in ("str", "int") and not (isinstance(word, str) and word):
            raise InvalidInput(f"{name} hold {_shown(word) if word != '' else 'an empty one'}; wanted strings")
        words.append(_share(_encodable(str(word), name), shared))
    if not words:
        raise InvalidInput(f"{name} are empty; leave the row out")
    return words


def _share(text: str, shared: dict[str, str]) -> str:
    return shared.setdefault(text, text)


def _label(value: Any, name: str, reading: Reading, shared: dict[str, str]) -> str | int | float:
    """A class, as a string or a whole number; or an amount. Truth values are the classes "true" and "false"."""
    sort = sort_of(value)
    numeric = reading.values in ("int", "float", "whole") or reading.kind == "regression"
    if sort == "str" and numeric and value.strip().lower() == "nan":
        sort = "missing"
    if sort == "missing":
        raise InvalidInput(f"{name} is missing; write one")
    if numeric and sort == "str" and NUMBER.fullmatch(value.strip()):
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        sort = "int" if isinstance(value, int) else "float" if math.isfinite(value) else "other"
    if reading.kind == "regression":
        if sort not in ("int", "float"):
            raise InvalidInput(f"{name} is {_shown(value)}; wanted a finite number")
        return float(value)
    if sort == "float" and float(value).is_integer():
        value, sort = int(value), "int"
    wanted = "int" if reading.values == "whole" else reading.values
    if sort != wanted:
        words = {"str": "a name", "int": "a whole number", "bool": "true or false"}.get(wanted, "a name or a number")
        raise InvalidInput(f"{name} is {_shown(value)}; wanted {words}, as in other rows")
    if sort == "bool":
        return "true" if value else "false"
    return _share(_encodable(value, name), shared) if sort == "str" else int(value)


def _labels(value: Any, name: str, shared: dict[str, str]) -> list[str]:
    """The names that apply: any number of them, none included."""
    if sort_of(value) != "list":
        raise InvalidInput(f"{name} are {_shown(value)}; wanted a list of names")
    if wrong := [label for label in value if sort_of(label) not in ("str", "int")]:
        raise InvalidInput(f"{name} hold {_shown(wrong[0])}; wanted names")
    labels = [_share(_encodable(str(label), name), shared) for label in value]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InvalidInput(f"{name} hold {show(twice[0])!r} twice; list the names that apply, not a number a class")
    return labels
