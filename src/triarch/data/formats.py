"""Readers of data files: each gives (number of the line or row, its values by column), or an error in its place.

Columns are those of the file. `asked` holds the column names that a caller wants, by the canonical names: a CoNLL file
is read for two of its columns only, and a table without a header is known by its columns being asked for by number.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from triarch import limits
from triarch.data import parquet
from triarch.data.columns import Kinds
from triarch.data.datafiles import DataFile
from triarch.data.inputs import decoded, numbered_lines, numbered_objects
from triarch.data.tables import Cells, one, records
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, show, some
from triarch.files import parse_json
from triarch.suggest import did_you_mean


class Asked(dict[str, str | int]):
    """The columns that a caller wants, {ours: theirs}."""

    def __init__(self, columns: Mapping[str, str | int] | None, kinds: Kinds):
        super().__init__(columns or {})
        declared = [(ours, column) for kind in kinds for ours, column in kind.columns.items() if ours in self]
        self.usual = {name for ours, column in declared for name in (ours, *column.usual)}
        self.usual |= {second for _, column in declared for _, second in column.pairs}


Found = Iterator[tuple[int, dict[str, Any] | TriarchError]]

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


class Reader(NamedTuple):
    read: Callable[[DataFile, Asked], Found]
    unit: str  # what its numbers count; empty if the file is one row


def text(file: DataFile, asked: Asked) -> Found:
    """The whole file is one document."""
    with file.open() as opened:
        data = opened.read(limits.WHOLE_BYTES + 1)
    try:
        whole = decoded(data, str(file), limits.WHOLE_BYTES).replace("\r\n", "\n")
    except TriarchError as error:
        yield 1, error
    else:
        yield 1, {"text": whole}


def lines(file: DataFile, asked: Asked) -> Found:
    """Each line is a document; blank ones between them are passed over."""
    with file.open() as opened:
        for number, line in numbered_lines(opened, str(file)):
            if isinstance(line, TriarchError):
                yield number, line
            elif line.strip():
                yield number, {"text": line}


def sentences(file: DataFile, asked: Asked) -> Found:
    """A sentence a line, and a blank line between documents: what BERT's own scripts were given to learn from.

    A sentence becomes a paragraph of its document, so that it is never joined with the next.
    """
    for number, found in _blocks(file):
        errors = [line for _, line in found if isinstance(line, TriarchError)]
        lines = [line for _, line in found if isinstance(line, str)]
        yield number, errors[0] if errors else {"text": "\n\n".join(lines)}


def jsonl(file: DataFile, asked: Asked) -> Found:
    """Each line is an object, or the string of a document."""
    with file.open() as opened:
        for number, value in numbered_objects(opened, str(file)):
            yield number, _object(value, f"{file} line {number}")


def json(file: DataFile, asked: Asked) -> Found:
    """A list of objects, by itself or under "data"; or what SQuAD has there."""
    whole = _whole(file)
    rows = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(rows, list):
        keys = some([str(key) for key in whole]) if isinstance(whole, dict) else type(whole).__name__
        raise InvalidInput(f"{file} holds no list of rows, but {keys}; save the rows as JSONL")
    if isinstance(whole, dict) and rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:
        yield from _questions(rows, str(file))
    else:
        yield from ((i, _object(row, f"{file} row {i}")) for i, row in enumerate(rows, 1))


def squad(file: DataFile, asked: Asked) -> Found:
    """Questions of SQuAD, version 1 or 2 (Rajpurkar et al. 2016, 2018), counted through the file."""
    whole = _whole(file)
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        raise CorruptFile(f'{file} is not SQuAD, which is an object with a list "data"; give its true format')
    yield from _questions(whole["data"], str(file))


def table(delimiter: str) -> Callable[[DataFile, Asked], Found]:
    """Rows under a header; without one, columns are numbers from 1. Cells are strings.

    A cell of a comma-separated table may hold line ends between its quotes. In a tab-separated one a line is always a
    row, and quotes that are not around a whole cell are text: few such files quote anything.
    """

    def read(file: DataFile, asked: Asked) -> Found:
        with file.open() as opened:
            tabs, where = delimiter == "\t", str(file)
            rows = _by_tabs(opened, where) if tabs else records(numbered_lines(opened, where), where, delimiter)
            header: list[str] | None = None
            for number, cells in rows:
                if header is None:
                    if isinstance(cells, TriarchError):
                        raise cells
                    header, titled = _header(cells, asked, f"{file} line {number}")
                    if titled:
                        continue
                if isinstance(cells, TriarchError):
                    yield number, cells
                elif len(cells) != len(header):
                    wanted = f"{len(cells)} cells, wanted {len(header)}"
                    yield number, InvalidInput(f"{file} line {number} has {wanted}; mend the row")
                else:
                    yield number, dict(zip(header, cells, strict=True))

    return read


def conll(file: DataFile, asked: Asked) -> Found:
    """Sentences, a word a line: first the word, last its tag, or at the numbers asked for. `-DOCSTART-` is no word."""
    names = str(asked.get("tokens", "tokens")), str(asked.get("tags", "tags"))
    word, tag = (_place_of(asked, ours, default) for ours, default in (("tokens", 0), ("tags", -1)))
    width = 0
    for number, words in _blocks(file):
        values: tuple[list[str], list[str]] = [], []
        error: TriarchError | None = None
        for at, line in words:
            if isinstance(line, TriarchError):
                error = error or line
                continue
            cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
            if cells[0] == "-DOCSTART-":
                continue
            width = width or len(cells)
            if len(cells) != width or not -width <= max(word, tag) < width or width < 2:
                needed = max(2, word + 1, tag + 1, width)
                found = f"{len(cells)} columns, wanted {needed}"
                error = error or InvalidInput(f"{file} line {at} has {found}; write a word, its columns, and its tag")
                continue
            for column, place in zip(values, (word, tag), strict=True):
                column.append(cells[place])
        if error or values[0]:
            yield number, error or dict(zip(names, values, strict=True))


def conllu(file: DataFile, asked: Asked) -> Found:
    """Sentences of CoNLL-U (universaldependencies.org/format), of which forms and one other column are read.

    Lines of multiword tokens ("8-9") and of empty nodes ("8.1") repeat or add to the words, and are passed over.
    """
    names = str(asked.get("tokens", "form")), str(asked.get("tags", "upos"))
    for name in names:
        if name not in CONLLU:
            raise InvalidInput(f"CoNLL-U has no column {show(name)!r}{did_you_mean(name, CONLLU)}: {', '.join(CONLLU)}")
    places = [CONLLU.index(name) for name in names]
    for number, words in _blocks(file):
        values: tuple[list[str], list[str]] = [], []
        error: TriarchError | None = None
        for at, line in words:
            if isinstance(line, TriarchError):
                error = error or line
                continue
            if line.startswith("#"):
                continue
            cells = line.split("\t")
            if len(cells) != len(CONLLU) or not re.fullmatch(r"[0-9]{1,9}([-.][0-9]{1,9})?", cells[0]):
                error = error or InvalidInput(f"{file} line {at} is no line of CoNLL-U, which has 10 columns; mend it")
            elif cells[0].isdigit():
                for column, place in zip(values, places, strict=True):
                    column.append(cells[place])
                if cells[places[1]] == "_" != cells[1]:
                    error = error or InvalidInput(f"{file} line {at}: the word has no {names[1]}; write one")
        if error or values[0]:
            yield number, error or dict(zip(names, values, strict=True))


READERS = {
    "text": Reader(text, ""),
    "lines": Reader(lines, "line"),
    "sentences": Reader(sentences, "line"),
    "jsonl": Reader(jsonl, "line"),
    "json": Reader(json, "row"),
    "squad": Reader(squad, "row"),
    "csv": Reader(table(","), "line"),
    "tsv": Reader(table("\t"), "line"),
    "conll": Reader(conll, "line"),
    "conllu": Reader(conllu, "line"),
    "parquet": Reader(parquet.read, "row"),
}


def _whole(file: DataFile) -> Any:
    with file.open() as opened:
        data = decoded(opened.read(limits.WHOLE_BYTES + 1), str(file), limits.WHOLE_BYTES)
    if not data.strip():
        raise InvalidInput(f"{file} is empty; wanted rows")
    return parse_json(data.encode(), str(file))


def _object(value: Any, place: str) -> dict[str, Any] | TriarchError:
    if isinstance(value, dict | TriarchError):
        return value
    if isinstance(value, str):
        return {"text": value}
    return InvalidInput(f"{place} is a {type(value).__name__}; wanted an object with a value for each column")


def _questions(articles: list[Any], where: str) -> Found:
    number = 0

    def each(value: Any, key: str) -> list[Any]:
        items = value.get(key) if isinstance(value, dict) else None
        if not isinstance(items, list):
            raise CorruptFile(f"{where} is not SQuAD: after row {number}, there is no list {key!r}; mend it")
        return items

    for article in articles:
        for paragraph in each(article, "paragraphs"):
            for question in each(paragraph, "qas"):
                number += 1
                if not isinstance(question, dict):
                    yield number, InvalidInput(f"{where} row {number} is no question; wanted an object")
                    continue
                row = {"title": article.get("title"), "context": paragraph.get("context"), **question}
                if question.get("is_impossible") is True and question.get("answers"):
                    yield number, InvalidInput(f"{where} row {number} is_impossible, and has answers; keep one of both")
                else:
                    yield number, row


def _header(cells: list[str], asked: Asked, where: str) -> tuple[list[str], bool]:
    """Names of the columns, and whether the first line holds them."""
    wanted = [str(name) for name in asked.values()]
    if wanted and all(name.isdigit() for name in wanted) and not set(wanted) <= set(cells):
        if {cell.strip().lower() for cell in cells} & asked.usual:
            raise InvalidInput(f"{where} is a header ({some(cells)}); ask for columns by their names in it")
        return [str(i) for i in range(1, len(cells) + 1)], False
    if twice := sorted({cell for cell in cells if cells.count(cell) > 1}):
        raise InvalidInput(
            f"{where} names the column {show(twice[0])!r} twice; rename one, or where that line is no header, ask for "
            "columns by number (text=1)"
        )
    return cells, True


def _by_tabs(opened: Any, where: str) -> Cells:
    for number, line in numbered_lines(opened, where):
        if isinstance(line, TriarchError):
            yield number, line
        elif line:
            yield number, one(line, "\t")


def _place_of(asked: Asked, ours: str, default: int) -> int:
    if ours not in asked:
        return default
    number = str(asked[ours])
    if not re.fullmatch("[1-9][0-9]{0,3}", number):
        raise InvalidInput(
            f"columns of CoNLL have no names but numbers from 1; {ours} was asked for as {show(number)!r}"
        )
    return int(number) - 1


def _blocks(file: DataFile) -> Iterator[tuple[int, list[tuple[int, str | TriarchError]]]]:
    """The lines of each block, which a line of white space ends; and the number of its first."""
    block: list[tuple[int, str | TriarchError]] = []
    size = 0
    with file.open() as opened:
        for number, line in numbered_lines(opened, str(file)):
            if isinstance(line, TriarchError) or line.strip(" \t\r"):
                block.append((number, line))
                size += 0 if isinstance(line, TriarchError) else len(line)
                if size > limits.WHOLE_BYTES:
                    raise LimitExceeded(
                        f"{file} has over {limits.WHOLE_BYTES:,} characters from line {block[0][0]} on without a blank "
                        "line, which ends a sentence or a document; write some, or give its true format"
                    )
            elif block:
                yield block[0][0], block
                block, size = [], 0
    if block:
        yield block[0][0], block
