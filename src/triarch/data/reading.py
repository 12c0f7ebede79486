"""Reading data: files or a list -> Rows in canonical columns, every bad row named with its place."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from triarch import limits
from triarch.data import datafiles
from triarch.data.answers import answers_in
from triarch.data.columns import NUMBER, Column, Kinds, Reading, infer, sort_of, value_in
from triarch.data.datafiles import Paths
from triarch.data.formats import READERS, Asked
from triarch.data.rows import Complaints, Origin, Rows
from triarch.errors import InvalidInput, TriarchError, show
from triarch.kinds import Medium, Text

Columns = Mapping[str, str | int]
POLICIES = ("refuse", "skip")
MANY = 20  # labels; of more, most occur several times if they are labels


def read(
    paths: Paths,
    kinds: Kinds,
    *,
    format: str | None = None,
    columns: Columns | None = None,
    kind: str | None = None,
    on_bad_row: str = "refuse",
) -> Rows:
    """Rows of files and folders, in the canonical columns of their kind, one of `kinds`.

    `columns` says which column of the data is which ({ours: theirs}; in a table without a header, and in CoNLL, theirs
    are numbers from 1); what it leaves out is told by usual names, and `kind` by the columns and their values. The
    answer is in `.reading`. All is read before bad rows are refused with InvalidInput, or skipped and reported.
    White space around a label in the cell of a table is taken off. Raises what `datafiles.find` and `columns.infer`
    raise, CorruptFile for a file that breaks its format as a whole.
    """
    rows, complaints = _gather(paths, kinds, format, columns, on_bad_row)
    return _canonical(rows, kinds, complaints, columns, kind, on_bad_row)


def rows_of(
    rows: Iterable[dict[str, Any] | str],
    kinds: Kinds,
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
    return _canonical(raw, kinds, complaints, columns, kind, on_bad_row)


def _check(on_bad_row: str) -> None:
    if on_bad_row not in POLICIES:
        raise InvalidInput(f"on_bad_row is {show(on_bad_row)!r}; wanted {' or '.join(POLICIES)}")


def _gather(
    paths: Paths, kinds: Kinds, format: str | None, columns: Columns | None, on_bad_row: str
) -> tuple[Rows, Complaints]:
    _check(on_bad_row)
    media = {c.sort for kind in kinds for c in kind.columns.values() if isinstance(c.sort, Medium) and c.sort.suffixes}
    given = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    if media and len(given) == 1 and (inside := datafiles.inputs_in(given[0], media)):
        return _of_inputs(inside, given[0]), Complaints()
    files = datafiles.find(given, format)
    origins = [Origin(str(file.path), READERS[file.format].unit, file.format not in ("csv", "tsv")) for file in files]
    rows, complaints = Rows(origins), Complaints()
    asked = Asked(columns, kinds)
    for origin, file in enumerate(files):
        empty = True
        for number, row in READERS[file.format].read(file, asked):
            empty = False
            if isinstance(row, TriarchError):
                complaints.add(origin, number, str(row))
            else:
                rows.append(row, origin, number)
        if empty:
            complaints.add(origin, 0, f"{file} holds no rows; leave it out")
    return rows, complaints


def _of_inputs(inside: list[tuple[Medium, Path]], folder: Path) -> Rows:
    """A row for each file that is one input; a folder around some of them is their label."""
    rows = Rows([Origin(str(folder / path), "") for _, path in inside])
    for number, (medium, path) in enumerate(inside):
        label = {"label": path.parent.name} if path.parent.name else {}
        rows.append({medium.name: str(folder / path), **label}, number, 0)
    return rows


def _settled(rows: Rows, complaints: Complaints, total: int, on_bad_row: str) -> Rows:
    """The good rows, if the bad ones may be left out and do not leave nothing."""
    if on_bad_row == "refuse" or not len(rows):
        complaints.refuse(total + complaints.count)
    if not len(rows):
        raise InvalidInput("there are no rows; give at least one")
    rows.skipped, rows.skipped_count = complaints.lines(), complaints.count
    return rows


def _canonical(
    raw: Rows, kinds: Kinds, complaints: Complaints, columns: Columns | None, kind: str | None, on_bad_row: str
) -> Rows:
    if not len(raw):
        return _settled(raw, complaints, 0, on_bad_row)
    reading = infer(raw, kinds, columns, kind, typed=raw.typed())
    rows, shared = Rows(raw.origins), dict[str, str]()
    rows.reading = reading
    for i, row in enumerate(raw):
        origin, number = raw.where(i)
        try:
            fitted = fit(row, reading, shared, typed=raw.origins[origin].typed)
            if raw.origins[origin].unit and raw.origins[origin].name:
                fitted |= _found_beside(fitted, reading, Path(raw.origins[origin].name).parent)
            rows.append(fitted, origin, number)
        except InvalidInput as error:
            complaints.add(origin, number, f"{raw.place(i)}: {error}")
    settled = _settled(rows, complaints, len(rows), on_bad_row)
    for ours, column in reading.fields.items():
        if column.sort in ("class", "classes"):
            settled.warnings = _doubts(settled, ours, reading)
    return settled


def _doubts(rows: Rows, ours: str, reading: Reading) -> list[str]:
    """Whether labels look as if they were none, but numbers of rows, amounts or texts."""
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
        value, column = value_in(row, theirs), reading.fields[ours]
        if value is None and column.gaps:
            continue
        if not typed and column.sort in ("class", "number") and isinstance(value, str):
            value = value.strip()
        fitted[ours] = _value(value, column, _named(ours, theirs), reading, shared, fitted)
        if column.like and len(fitted[ours]) != len(fitted[column.like]):
            one, other = len(fitted[column.like]), len(fitted[ours])
            raise InvalidInput(f"{one} {column.like} have {other} {ours}; give each one of its own")
    return fitted


def _found_beside(row: dict[str, Any], reading: Reading, folder: Path) -> dict[str, Any]:
    """The paths of inputs in a row of a file, which are relative to the file's folder and stay in it."""
    found = {}
    for ours, value in row.items():
        sort = reading.fields[ours].sort
        if isinstance(sort, Medium) and sort.suffixes and isinstance(value, str):
            if not Path(os.path.realpath(folder / value)).is_relative_to(os.path.realpath(folder)):
                raise InvalidInput(f"{ours} is {_shown(value)}, outside of {show(folder)}; keep inputs beside the rows")
            found[ours] = str(folder / value)
    return found


def _value(
    value: Any, column: Column, name: str, reading: Reading, shared: dict[str, str], fitted: dict[str, Any]
) -> Any:
    """What a column declares, of a value. `fitted` is what the row has so far."""
    match column.sort:
        case "name":
            if value is None or not isinstance(value, str | int | float):
                raise InvalidInput(f"{name} is {_shown(value)}; wanted a name or a number")
            return str(value)
        case "messages":
            found = _objects(value, name)
            if odd := [message for message in found if not isinstance(message.get("role"), str)]:
                raise InvalidInput(f"{name} hold {_shown(odd[0])}; wanted each with a role")
            return found
        case "objects":
            return _objects(value, name)
        case "words":
            return _words(value, name, shared)
        case "class" | "number":
            return _label(value, name, reading.values, column.sort == "number", shared)
        case "classes":
            return _labels(value, name, shared)
        case "answers":
            return [{"text": text, "start": start} for text, start in answers_in(value, fitted["context"])]
    if isinstance(column.sort, Medium) and column.sort != Text:
        if value is None or (isinstance(value, str | bytes) and not value):
            raise InvalidInput(f"{name} is missing; give one")
        return value  # what the model's processor reads; a path was made safe where the row was read
    text = _text(value, name, bounded=column.bounded)
    return _share(text, shared) if column.recurs else text


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


def _label(value: Any, name: str, values: str, amount: bool, shared: dict[str, str]) -> str | int | float:
    """A class, as a string or a whole number; or an amount. Truth values are the classes "true" and "false"."""
    sort = sort_of(value)
    numeric = values in ("int", "float", "whole") or amount
    if sort == "str" and numeric and value.strip().lower() == "nan":
        sort = "missing"
    if sort == "missing":
        raise InvalidInput(f"{name} is missing; write one")
    if numeric and sort == "str" and NUMBER.fullmatch(value.strip()):
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        sort = "int" if isinstance(value, int) else "float" if math.isfinite(value) else "other"
    if amount:
        if sort not in ("int", "float"):
            raise InvalidInput(f"{name} is {_shown(value)}; wanted a finite number")
        return float(value)
    if sort == "float" and float(value).is_integer():
        value, sort = int(value), "int"
    wanted = "int" if values == "whole" else values
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
