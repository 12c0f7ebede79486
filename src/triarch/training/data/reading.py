"""Reading data: files or a list -> Rows in canonical columns, every bad row named with its place."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from triarch import limits
from triarch.errors import InvalidInput, TriarchError, show
from triarch.training.data import datafiles
from triarch.training.data.columns import GROUP, NUMBER, Reading, infer, sort_of
from triarch.training.data.datafiles import Paths
from triarch.training.data.formats import READERS
from triarch.training.data.rows import Complaints, Origin, Rows, place

Columns = Mapping[str, str | int]
POLICIES = ("refuse", "skip")


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
    Raises what `datafiles.find` and `columns.infer` raise, CorruptFile for a file that breaks its format as a whole.
    """
    rows, complaints = _gather(paths, format, columns, on_bad_row)
    return _canonical(rows, complaints, columns, kind, on_bad_row)


def records(
    paths: Paths, *, format: str | None = None, columns: Columns | None = None, on_bad_row: str = "refuse"
) -> Rows:
    """Rows with the columns that the files have, for a recipe to choose from; cells of a table are strings.

    `columns` only says where a table has no header and which columns of CoNLL to read. Bad rows as in `read`.
    """
    rows, complaints = _gather(paths, format, columns, on_bad_row)
    return _settled(rows, complaints, len(rows), on_bad_row)


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
        if isinstance(row, str | dict):
            raw.append(row if isinstance(row, dict) else {"text": row}, 0, number)
        else:
            complaints.add(0, number, f"row {number} is a {type(row).__name__}; wanted a dict with a value a column")
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
        try:
            rows.append(fit(row, reading, shared), *raw.where(i))
        except InvalidInput as error:
            complaints.add(*raw.where(i), f"{place(raw.origins[raw.where(i)[0]], raw.where(i)[1])}: {error}")
    return _settled(rows, complaints, len(rows), on_bad_row)


def fit(row: Mapping[str, Any], reading: Reading, shared: dict[str, str]) -> dict[str, Any]:
    """A row in canonical columns. `shared` holds strings that recur, so that rows need not repeat them.

    Raises InvalidInput for a value that its column cannot have.
    """
    fitted: dict[str, Any] = {}
    for ours, theirs in reading.columns.items():
        value = row.get(theirs)
        if ours in ("id", GROUP):
            if value is None or not isinstance(value, str | int | float):
                raise InvalidInput(f"{_named(ours, theirs)} is {_shown(value)}; wanted a name or a number")
            fitted[ours] = str(value)
        elif ours in ("tokens", "tags"):
            fitted[ours] = _words(value, _named(ours, theirs), shared)
        elif ours == "label":
            fitted[ours] = _label(value, _named(ours, theirs), reading, shared)
        elif ours == "labels":
            fitted[ours] = _labels(value, _named(ours, theirs), shared)
        elif ours == "answers":
            fitted[ours] = _answers(value, fitted["context"])
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


def _answers(value: Any, context: str) -> list[dict[str, Any]]:
    """Spans of the context, of SQuAD's form (a list of objects) or of data sets' (an object of lists)."""
    if value is None:
        raise InvalidInput("answers are missing; write a list, empty where there is no answer")
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if not isinstance(texts, list | tuple) or not isinstance(starts, list | tuple) or len(texts) != len(starts):
            raise InvalidInput("answers are no lists text and answer_start of one length; write one start a text")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list | tuple) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start", answer.get("start"))) for answer in value]
    else:
        raise InvalidInput(f"answers are {_shown(value)}; wanted a list of {{text, answer_start}}")
    for text, start in pairs:
        if not isinstance(text, str) or not text or sort_of(start) != "int":
            raise InvalidInput(f"an answer is {_shown(text)} at {_shown(start)}; wanted a text, and where it starts")
        if not start >= 0 or start + len(text) > len(context):
            end = f"runs from {start} to {start + len(text)}, outside of the context of {len(context)} characters"
            raise InvalidInput(f"the answer {show(text, 40)!r} {show(end)}; mend the row")
        if context[start : start + len(text)] != text:
            there = show(context[start : start + len(text)], 40)
            raise InvalidInput(
                f"the answer {show(text, 40)!r} starts at {start}, where the context has {there!r}; mend it"
            )
    return [{"text": text, "start": int(start)} for text, start in pairs]
