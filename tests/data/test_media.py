"""Inputs that are files of their own, of a made-up medium: in folders by class, and named in rows."""

import pytest

from triarch.cli._inputs import read as inputs_of
from triarch.data.reading import read, rows_of
from triarch.errors import InvalidInput, UnsafeFile
from triarch.kinds import Medium
from triarch.objectives import kinds

SMELL = Medium("smell", usual=("odour",), suffixes=(".sml", ".nose"))


@pytest.fixture
def smells(tmp_path):
    folder = tmp_path / "smells"
    for name in ("rose/1.sml", "rose/2.SML", "fish/1.nose"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00\x01")
    return folder


def test_a_folder_for_each_class_is_rows_with_labels(smells):
    rows = read(smells, kinds(SMELL))
    assert rows.reading.kind == "classification"
    assert [row["label"] for row in rows] == ["fish", "rose", "rose"]
    assert rows[0]["smell"] == str(smells / "fish/1.nose")
    assert rows.place(0) == str(smells / "fish/1.nose")


def test_a_folder_without_classes_has_no_labels(smells):
    with pytest.raises(InvalidInput, match=r"the columns \(smell\) fit no kind of rows"):
        read(smells / "rose", kinds(SMELL))


def test_other_files_between_inputs_are_named(smells):
    (smells / "rose" / "notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match=r"holds smell files and others \(rose/notes.txt\)"):
        read(smells, kinds(SMELL))


def test_folders_in_folders_of_classes_are_refused(smells):
    (smells / "rose" / "deep").mkdir()
    (smells / "rose" / "deep" / "3.sml").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="a folder for each class"):
        read(smells, kinds(SMELL))


def test_a_link_out_of_the_folder_is_refused(smells, tmp_path):
    (tmp_path / "out.sml").write_bytes(b"x")
    (smells / "rose" / "9.sml").symlink_to(tmp_path / "out.sml")
    with pytest.raises(UnsafeFile, match="a link that leaves its folder"):
        read(smells, kinds(SMELL))


def test_a_table_names_inputs_beside_it(smells):
    (smells / "table.csv").write_text("odour,label\nrose/1.sml,rose\nfish/1.nose,fish\n")
    rows = read(smells / "table.csv", kinds(SMELL))
    assert list(rows)[1] == {"smell": str(smells / "fish/1.nose"), "label": "fish"}


@pytest.mark.parametrize("path", ["../secret.sml", "/etc/passwd"])
def test_a_table_names_no_input_outside_of_its_folder(smells, path):
    (smells / "table.csv").write_text(f"smell,label\nrose/1.sml,rose\n{path},fish\n")
    with pytest.raises(InvalidInput, match=r"table.csv line 3: smell is .*, outside of"):
        read(smells / "table.csv", kinds(SMELL))


def test_bytes_and_values_in_memory_stay_as_they_are():
    rows = rows_of([{"smell": b"x", "label": "a"}, {"smell": [1.0], "label": "b"}], kinds(SMELL))
    assert rows.column("smell") == [b"x", [1.0]]


def test_texts_of_pairs_are_for_models_that_read_text():
    assert "text_pair" not in next(kind for kind in kinds(SMELL) if kind.name == "classification").columns


def test_the_shell_takes_a_file_as_one_input_and_a_folder_as_all_of_them(smells):
    def given(*inputs):
        return list(inputs_of(None, tuple(map(str, inputs)), "smell", None, SMELL.suffixes))

    assert given(smells / "rose/1.sml") == [smells / "rose/1.sml"]
    assert given(smells) == [smells / "fish/1.nose", smells / "rose/1.sml", smells / "rose/2.SML"]
    (smells / "table.jsonl").write_text('{"smell": "rose/1.sml"}\n')
    assert given(smells / "table.jsonl") == [{"smell": "rose/1.sml"}]
    with pytest.raises(InvalidInput, match=r"holds no file that ends in \.sml, \.nose"):
        (smells / "empty").mkdir()
        given(smells / "empty")
