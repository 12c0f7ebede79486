"""Files: strict parsing, and writing whole or not at all."""

import os
import stat

import pytest

from triarch.errors import CorruptFile, LimitExceeded, NotFound, TriarchError, UnsafeFile, show
from triarch.files import Folder, parse_json, replacing, write_text


def test_json_is_parsed():
    assert parse_json(b'{"a": [1, 2.5, null, "\xc3\xa9"]}', "x") == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b'{"a":Infinity}', b'{"a":1,"a":1}', b"[" * 100_000, b"9" * 10_000])
def test_json_that_is_none_is_refused(raw):
    with pytest.raises(CorruptFile):
        parse_json(raw, "x")


def test_a_file_at_its_limit_is_read_and_one_byte_more_is_not(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    assert len(Folder(tmp_path).read("a", 10)) == 10
    with pytest.raises(LimitExceeded):
        Folder(tmp_path).read("a", 9)


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "../a", "a/../b", "a/b/c", "a\\b", "a\0b", "ä", "a" * 201])
def test_names_that_are_not_plain_are_refused(tmp_path, name):
    with pytest.raises(UnsafeFile):
        Folder(tmp_path).find(name)


def test_links_within_the_hub_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("{}")
    snapshot = tmp_path / "snapshots" / "commit"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert Folder(snapshot).json("config.json") == {}


def test_links_that_leave_the_hub_cache_are_refused(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "secret").write_text("{}")
    snapshot = tmp_path / "snapshots" / "commit"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../secret")
    with pytest.raises(UnsafeFile):
        Folder(snapshot).json("config.json")


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises((NotFound, UnsafeFile)):
        Folder(tmp_path).open("a")


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(TriarchError, match="the old file is untouched"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_new_files_can_be_read_as_the_umask_says(tmp_path):
    mask = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_text_from_outside_cannot_paint_the_terminal():
    assert show("\x1b[31mred\n") == "\\x1b[31mred\\n"


def test_long_text_from_outside_is_shortened():
    assert show("x" * 1000, limit=10) == "xxxxxxxxx…"
