"""Running text as tokens on disk: memory-mapped, so that its size is bounded by the disk and opening takes no time.

A store is a folder of four files, all little-endian:
    tokens.bin     uint32, ids without special tokens; the highest bit is set where a word begins
    sentences.bin  int64, where each sentence begins in the tokens, and the end of the last
    documents.bin  int64, where each document begins in the sentences, and the end of the last
    header.json    counts, sizes and sha256 of the above, what the store was made of, and where documents were read
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from triarch import limits
from triarch.data import datafiles, origins
from triarch.data.columns import DOCUMENTS
from triarch.data.datafiles import Paths
from triarch.data.documents import Document, digest, documents
from triarch.data.origins import Origins
from triarch.data.reading import Columns, rows_of
from triarch.data.rows import Complaints, Rows
from triarch.data.sentences import parts
from triarch.errors import CorruptFile, InvalidInput, TriarchError, show
from triarch.files import Folder
from triarch.inputs.text.sentences import sentence_ends

if TYPE_CHECKING:
    from tokenizers import Encoding

    from triarch.inputs.text.processor import TextProcessor

VERSION = 1
STARTS = np.uint32(1 << 31)  # the bit of a token that begins a word
FILES = {"tokens": ("tokens.bin", "<u4"), "sentences": ("sentences.bin", "<i8"), "documents": ("documents.bin", "<i8")}
CHECKED = 1 << 22  # values looked at in one go
TRIED = 8  # documents that a trial is of, at least


@dataclass(frozen=True)
class TokenStore:
    """An open store. The arrays are mapped: what is read of them is what is held."""

    tokens: np.ndarray  # (T,) uint32
    sentences: np.ndarray  # (S + 1,) int64, into tokens
    documents: np.ndarray  # (D + 1,) int64, into sentences
    header: dict[str, Any]

    @classmethod
    def build(
        cls,
        source: Paths | Rows | list[dict[str, Any]],
        processor: "TextProcessor",
        folder: str | os.PathLike[str],
        *,
        format: str | None = None,
        columns: Columns | None = None,
        on_bad_row: str = "refuse",
        trial: int | None = None,
        exact: bool = False,
    ) -> "TokenStore":
        """Tokenize documents into a store, which appears whole or not at all; strings are paths.

        Files are streamed. A store made before of the same documents by the same tokenizer is opened as it is. With
        `trial`, only the beginnings of the first documents are taken, about that many tokens in all. `exact` keeps
        line ends and blank lines as they are, which else end sentences and paragraphs, or count as spaces. Raises
        InvalidInput for bad rows, or where the folder holds something else, and whatever reading the data raises.
        """
        if on_bad_row not in ("refuse", "skip"):
            raise InvalidInput(f"on_bad_row is {show(on_bad_row)!r}; wanted refuse or skip")
        path, complaints = Path(folder), Complaints()
        made_of: dict[str, Any] = {"version": VERSION, "tokenizer": processor.fingerprint()}
        if isinstance(source, Rows) or (isinstance(source, list) and source and isinstance(source[0], dict)):
            rows = source if isinstance(source, Rows) else rows_of(source, [DOCUMENTS], columns=columns)
            found = _of_rows(rows, exact)
            made_of["texts"] = _digest_rows(rows)
        else:
            files = datafiles.find(source, format)  # type: ignore[arg-type]
            found = documents(files, columns, complaints, exact)
            made_of |= {
                "files": [digest(file) for file in files],
                "read_as": [sorted({file.format for file in files}), sorted((columns or {}).items()), on_bad_row],
            }
        if trial is not None:
            made_of["trial"] = trial
        if exact:
            made_of["exact"] = True
        made = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        if _is_made(path, made):
            try:
                return cls.open(path)
            except CorruptFile:
                pass  # and is built anew
        with _replacing_folder(path) as temporary:
            header = _write(found, processor, temporary, complaints, trial)
            total = header["documents"] + complaints.count
            if on_bad_row == "refuse":
                complaints.refuse(total)
            if not header["tokens"]:
                complaints.refuse(total)
                raise InvalidInput("the documents hold no text; give at least one that does")
            header |= {"fingerprint": made, "skipped": complaints.count, "skipped_first": complaints.lines()[:5]}
            if "files" in made_of:
                made_of["files"] = made_of["files"][: limits.ORIGINS]  # of all of them there is the fingerprint
            header |= {"vocab_size": processor.vocab_size, "made_of": made_of}
            _synced(temporary / "header.json", json.dumps(header, indent=2).encode())
        return cls.open(path, verify=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> "TokenStore":
        """Map a store. Raises CorruptFile for one that breaks the format, UnsafeFile for links, NotFound for none.

        `verify` reads all of it, about a second for a gigabyte: sums, offsets in order, ids within the vocabulary.
        """
        inside = Folder(Path(folder))
        header = inside.json("header.json")
        sizes = _checked(header, str(inside.path / "header.json"))
        arrays = {name: _mapped(inside, name, size) for name, size in sizes.items()}
        store = cls(**arrays, header=header)
        for name, last in (("sentences", header["tokens"]), ("documents", header["sentences"])):
            offsets = arrays[name]
            if offsets[0] != 0 or offsets[-1] != last:
                raise CorruptFile(f"{inside.path / FILES[name][0]} does not cover the store; delete the folder")
        if verify:
            _verify(store, inside)
        return store

    @property
    def tokenizer(self) -> str:
        """The fingerprint of the tokenizer whose ids these are."""
        return str(self.header["made_of"]["tokenizer"])

    def check(self, processor: "TextProcessor") -> None:
        """Raises InvalidInput unless these are tokens of that processor."""
        if self.tokenizer != processor.fingerprint():
            raise InvalidInput("the token store was built by another tokenizer; build it with the model's own")

    @property
    def fingerprint(self) -> str:
        """Of the documents, the tokenizer, and the way they were read."""
        return str(self.header["fingerprint"])

    def place(self, document: int) -> str:
        """Where a document was read, such as "books.jsonl line 3", or its number, from 1, where that was not kept."""
        found = origins.place(self.header.get("origins"), document)
        return found or f"document {document + 1}"

    def __repr__(self) -> str:
        counts = (f"{self.header[name]:,} {name}" for name in ("documents", "sentences", "tokens"))
        return f"<token store: {', '.join(counts)}>"


def _of_rows(rows: Rows, exact: bool) -> Iterator[Document]:
    for i, row in enumerate(rows):
        file, number = rows.where(i)
        origin = rows.origins[file]
        text = row["text"] if origin.unit else row["text"].removesuffix("\n")  # of a whole file, as it is streamed
        yield Document(file, number, origin, parts(text.split("\n"), exact))


def _digest_rows(rows: Rows) -> str:
    if rows.reading is None or rows.reading.kind != "documents":
        raise InvalidInput(f"the rows are {rows.reading or 'as read'}, wanted documents; give rows of a text alone")
    digest = hashlib.sha256()
    for row in rows:
        text = row["text"].encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()


def _is_made(path: Path, made: str) -> bool:
    """Whether a folder holds the store of this fingerprint."""
    try:
        return path.is_dir() and Folder(path).json("header.json").get("fingerprint") == made
    except (TriarchError, AttributeError):
        return False


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that takes its place at the end; or is gone on failure."""
    names = {name for name, _ in FILES.values()} | {"header.json"}
    if path.exists() and (not path.is_dir() or {inside.name for inside in path.iterdir()} - names):
        raise InvalidInput(f"{show(path)} holds something other than a token store; name another folder")
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        _clean(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise TriarchError(f"cannot write {show(path)} ({error.strerror or show(error)}); make room, or name another "
                           "folder") from None  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _clean(path: Path) -> None:
    """Remove what builds of this store that were killed have left beside it."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"([0-9]{1,9})\.(tmp|old)")
    for beside in path.parent.iterdir() if path.parent.is_dir() else ():
        if (found := pattern.fullmatch(beside.name)) and not _runs(int(found[1])):
            shutil.rmtree(beside, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _write(
    found: Iterable[Document], processor: "TextProcessor", folder: Path, complaints: Complaints, trial: int | None
) -> dict[str, Any]:
    """Write the arrays of a store, and return its counts, its files' sums, and where its documents were read."""
    counts = {"tokens": 0, "sentences": 0, "documents": 0}
    read = Origins()
    with ExitStack() as stack:
        files = {name: stack.enter_context(_Array(folder / file, kind)) for name, (file, kind) in FILES.items()}
        progress = stack.enter_context(tqdm(desc="tokenizing", unit=" tokens", unit_scale=True, disable=None))
        for name in ("sentences", "documents"):
            files[name].add(np.zeros(1, dtype=np.int64))
        empty, seen = True, False  # of the document that is being written
        for paragraph in _encoded(found, processor, trial):
            if isinstance(paragraph, Document):
                if not empty:
                    read.add(counts["documents"], paragraph)
                    files["documents"].add(np.array([counts["sentences"]]))
                    counts["documents"] += 1
                elif seen:
                    complaint = f"{paragraph.place}: the tokenizer finds no token in the text; leave it out"
                    complaints.add(paragraph.file, paragraph.number, complaint)
                empty, seen = True, False
                continue
            tokens, ends = paragraph
            files["tokens"].add(tokens)
            files["sentences"].add(counts["tokens"] + ends)
            counts["tokens"] += len(tokens)
            counts["sentences"] += len(ends)
            empty, seen = empty and not len(tokens), True
            progress.update(len(tokens))
    header: dict[str, Any] = {"format": "triarch token store", "version": VERSION, **counts, "origins": read.kept}
    return header | {"files": {FILES[name][0]: file.sums() for name, file in files.items()}}


def _encoded(
    found: Iterable[Document], processor: "TextProcessor", trial: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray] | Document]:
    """The parts of documents as tokens, and where sentences end in them; and each document after its last part.

    For a trial, one document does not take the place of all others: some objectives need several.
    """
    most, each = (math.inf, math.inf) if trial is None else (trial, trial // TRIED)
    total = 0
    for document in found:
        own = 0
        for text in document.parts:
            # Text that spells a special token is the text that it is.
            tokens, ends = _tokens(text, processor.encode(text, special_tokens=False, parse_special=False))
            yield tokens, ends
            own += len(tokens)
            if own >= each:
                break
        yield document
        total += own
        if total >= most:
            return


def _tokens(text: str, encoding: "Encoding") -> tuple[np.ndarray, np.ndarray]:
    """Ids (T,) uint32 with their bit for words; and where each sentence ends in them."""
    ids = np.array(encoding.ids, dtype=np.uint32)
    if not len(ids):
        return ids, np.zeros(0, dtype=np.int64)
    words = np.array([-1 if word is None else word for word in encoding.word_ids])
    ids[0] |= STARTS
    ids[1:][words[1:] != words[:-1]] |= STARTS
    ends = np.array([len(ids)])
    if places := sentence_ends(text):
        begins = np.array(encoding.offsets)[:, 0]
        inner = np.searchsorted(begins, places)
        ends = np.unique(np.append(inner[inner > 0], len(ids)))
    return ids, ends


class _Array:
    """A file that values are added to, with the sum of its bytes."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind, self.bytes, self.sum = path, kind, 0, hashlib.sha256()

    def __enter__(self) -> "_Array":
        self.file = self.path.open("wb")
        return self

    def __exit__(self, *error: object) -> None:
        with self.file:
            self.file.flush()
            os.fsync(self.file.fileno())

    def add(self, values: np.ndarray) -> None:
        data = values.astype(self.kind, copy=False).tobytes()
        self.file.write(data)
        self.sum.update(data)
        self.bytes += len(data)

    def sums(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self.sum.hexdigest()}


def _checked(header: Any, where: str) -> dict[str, int]:
    """How many values each array of a store has, if its header is one."""
    if not isinstance(header, dict) or header.get("format") != "triarch token store":
        raise CorruptFile(f"{where} is not the header of a token store; delete the folder, and build it again")
    if header.get("version") != VERSION:
        raise CorruptFile(f"{where} is of version {show(header.get('version'))}, not {VERSION}; build the store again")
    counts = [header.get(name) for name in ("tokens", "sentences", "documents", "vocab_size")]
    files, made_of = header.get("files"), header.get("made_of")
    if (
        not all(type(count) is int and 0 < count < 1 << 48 for count in counts)
        or not isinstance(made_of, dict)
        or "fingerprint" not in header
    ):
        raise CorruptFile(f"{where} lacks its counts; delete the folder, and build the store again")
    if not isinstance(made_of.get("tokenizer"), str) or not isinstance(header.get("fingerprint"), str):
        raise CorruptFile(f"{where} does not say what it is made of; delete the folder, and build the store again")
    if not origins.sound(header.get("origins")):
        raise CorruptFile(f"{where} does not say where its documents were read; delete the folder, and build it again")
    if not isinstance(files, dict) or not all(isinstance(files.get(file), dict) for file, _ in FILES.values()):
        raise CorruptFile(f"{where} lacks the sums of its files; delete the folder, and build the store again")
    return {"tokens": header["tokens"], "sentences": header["sentences"] + 1, "documents": header["documents"] + 1}


def _mapped(folder: Folder, name: str, size: int) -> np.ndarray:
    file, kind = FILES[name]
    with folder.open(file) as opened:
        there, wanted = os.fstat(opened.fileno()).st_size, size * np.dtype(kind).itemsize
        if there != wanted:
            raise CorruptFile(f"{folder.path / file} has {there:,} bytes, wanted {wanted:,}; build the store again")
        return np.memmap(opened, dtype=kind, mode="r", shape=(size,))


def _verify(store: TokenStore, folder: Folder) -> None:
    for name, (file, _) in FILES.items():
        array, total = getattr(store, name), hashlib.sha256()
        ordered, highest, before = True, 0, np.int64(-1)
        for first in range(0, len(array), CHECKED):
            part = array[first : first + CHECKED]
            total.update(part.tobytes())
            if name == "tokens":
                highest = max(highest, int((part & ~STARTS).max()))
            else:
                ordered = ordered and before < part[0] and bool((np.diff(part) > 0).all())
                before = part[-1]
        where = f"{folder.path / file}"
        if total.hexdigest() != store.header["files"][file].get("sha256"):
            raise CorruptFile(f"{where} has changed since it was written; delete the folder, and build the store again")
        if not ordered or highest >= store.header["vocab_size"]:
            wrong = "offsets out of order" if not ordered else f"the id {highest}, outside of the vocabulary"
            raise CorruptFile(f"{where} holds {wrong}; delete the folder, and build the store again")


def _synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
