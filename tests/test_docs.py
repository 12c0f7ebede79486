"""README, docs/ and CONTRIBUTING: every snippet runs, every link leads somewhere, the tables name all that there is.

Snippets of a page run in their order, in a folder with the files of `FILES`. Where they name a model of the hub, a tiny
one stands in for it: those of `STAND_INS`, and no other. The starters are the tiny ones of `stand_ins`.
"""

import glob
import json
import re
import shlex
import subprocess
from io import BytesIO, TextIOWrapper
from pathlib import Path

import PIL.Image
import pytest

import runs
import samples
import stand_ins
import tiny
import triarch
from triarch import cli, hub, starters
from triarch.errors import TriarchError
from triarch.models import families, family
from triarch.objectives import objectives
from triarch.tasks import task_class, tasks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
README_LINES, PICTURE_BYTES = 150, 300_000

STAND_INS = {
    "bert-base-cased": tiny.MODELS["bert-words"],
    "distilbert-base-cased-distilled-squad": tiny.MODELS["distilbert-qa"],
    "distilbert-base-uncased-finetuned-sst-2-english": tiny.MODELS["distilbert-labels"],
    "dslim/bert-base-NER": tiny.MODELS["bert-tags"],
    "facebook/bart-base": tiny.MODELS["bart"],
    "facebook/bart-large-cnn": tiny.MODELS["bart"],
    "google-t5/t5-small": tiny.MODELS["t5"],
    "Helsinki-NLP/opus-mt-fr-en": tiny.MODELS["marian"],
    "google/vit-base-patch16-224": {"architecture": "ViTForImageClassification"},
    "google/vit-base-patch16-224-in21k": {"architecture": "ViTModel"},
    "HuggingFaceTB/SmolLM2-135M-Instruct": tiny.MODELS["gpt2-chat"] | {"n_positions": 512},
    "openai-community/gpt2": tiny.MODELS["gpt2-long"],
    "roberta-large-mnli": tiny.MODELS["roberta-nli"],
    starters.ENCODER: tiny.MODELS["bert"],
}

REVIEWS = [(row["text"], row["label"]) for row in runs.reviews(12)]
QUESTION = {"question": "Where did she live?", "context": "Ada Lovelace lived in London."}
ANSWER = {"answers": [{"text": "London", "start": 22}]}
FILES = {
    "reviews.csv": "text,label\n" + "".join(f"{text},{label}\n" for text, label in REVIEWS),
    "more-reviews.csv": "text,label\n" + "".join(f"{text},{label}\n" for text, label in REVIEWS[:4]),
    "table.csv": "what_they_wrote,verdict\n" + "".join(f"{text},{label}\n" for text, label in REVIEWS),
    "reviews.txt": "".join(f"{text}\n" for text, _ in REVIEWS[:3]),
    "story.txt": "Ada Lovelace lived in London and wrote the first program.\n",
    "notes.txt": "Rice needs water.\nCats purr.\n",
    "report.txt": " ".join(tiny.SENTENCES[:6]) + "\n",
    "prompts.txt": "Once upon a time\nThe cat\n",
    "french.txt": "Le chat dort.\nLe chien dort.\nIl pleut.\nLe chat et le chien.\n" * 20,
    "pairs.jsonl": json.dumps({"source": "Le chat dort.", "target": "The cat sleeps."}) + "\n",
    "questions.jsonl": json.dumps(QUESTION | ANSWER) + "\n",
    "tags.conllu": samples.CONLLU,
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Makers of what stands in: the starters, and the model of a repo id, each made once."""
    made = tmp_path_factory.mktemp("hub")
    stand_ins.write(made / "starters")

    def folder(repo):
        place = made / repo.replace("/", "--")
        if not place.exists():
            write = tiny.write_checkpoint if "model_type" in STAND_INS[repo] else write_vit
            write(place, **STAND_INS[repo])
        return place

    folder.starters = made / "starters"
    return folder


def write_vit(folder, architecture):
    kind = family("vit")
    model = kind.build(kind.tiny, architecture)
    model.processor = kind.reads.new(None, kind.tiny)
    triarch.save(model, folder)


@pytest.fixture
def place(folder_of, tmp_path, monkeypatch, fast_disk):
    """A folder with what snippets read; the hub holds the models that stand in."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    runs.write_books(tmp_path / "books")
    for name in ("photo.jpg", *(f"photos/{label}/{i}.png" for label in ("cat", "dog") for i in range(4))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40, 30), "white" if "cat" in name else "black").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starters, "home", lambda: folder_of.starters)
    monkeypatch.setattr(hub, "packaged", lambda repo: folder_of(repo) if repo == starters.ENCODER else None)

    def snapshot(repo, revision):
        if repo not in STAND_INS:
            raise hub.Offline(f"no model stands in for {repo}; add one to STAND_INS of tests/test_docs.py")
        return str(folder_of(repo))

    monkeypatch.setattr(hub, "_snapshot", snapshot)


def snippets(page):
    """(language, number of the line before it, text) of each fenced block."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], text.count("\n", 0, found.start(2)), found[2]


def commands(text):
    """Each command line as a list of the words of each of its stages."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        stages = [[]]
        for word in lexer:
            if word == "|":
                stages.append([])
            else:
                stages[-1] += sorted(glob.glob(word)) or [word]
        if stages != [[]]:
            yield line, stages


def run_command(stages, capfd, monkeypatch):
    """Exit code and stderr. What is not `triarch` may be `make`, of which the target must be there, or feed a pipe."""
    piped = b""
    for word, *rest in stages:
        if word == "make":
            assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), rest
        elif word == "triarch":
            monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(piped)))
            capfd.readouterr()
            code = cli.main(rest)
            out, err = capfd.readouterr()
            if code:
                return code, err
            piped = out.encode()
        else:
            assert word in ("cat", "printf"), f"{word} is not known to this test"
            piped = subprocess.run([word, *rest], capture_output=True, check=True).stdout
    return 0, ""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_snippet_runs(page, place, capfd, monkeypatch):
    names = {"__name__": page.stem}
    for language, before, text in snippets(page):
        if language == "python":
            exec(compile("\n" * before + text, str(page), "exec"), names)
        elif language == "sh":
            for line, stages in commands(text):
                code, err = run_command(stages, capfd, monkeypatch)
                assert code == 0, f"{page.name}: {line}\n{err}"
        else:
            pytest.fail(f"{page.name}:{before}: a snippet in {language or 'no language'}, wanted python or sh")


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]


def section(page, heading):
    """The text from a heading on to the next."""
    return (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(text):
    """The names in the first column of a table, those of links without their targets."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    return [name for row in rows for name in re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", row).split(", ")]


def test_the_readme_names_every_family_once():
    assert sorted(first_cells(section("README.md", "Families"))) == families()


def test_the_readme_names_every_task():
    named = first_cells(section("README.md", "Tasks"))
    assert {task_class(name) for name in named} == {task_class(name) for name in tasks()}
    assert set(tasks()) <= set(named)


def test_the_page_on_training_names_every_objective_once():
    assert sorted(first_cells(section("docs/training.md", "What can be learned"))) == sorted(objectives())


def test_the_readme_is_short_and_its_picture_small():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES
    assert (ROOT / "docs" / "tour.png").stat().st_size <= PICTURE_BYTES


def test_the_readme_leads_to_every_page():
    assert all(f"({name})" in (ROOT / "README.md").read_text(encoding="utf-8") for name in NAMES[1:])


def test_a_model_that_nothing_stands_in_for_is_an_error(place):
    with pytest.raises(TriarchError, match="no model stands in for someone/else"):
        hub.find("someone/else")


FAMILY_TESTS = """
import sys, pytest, triarch.models
triarch.models.__path__.append(sys.argv[1])
sys.exit(pytest.main([sys.argv[2], "-k", "electra", "-p", "no:cacheprovider"]))
"""


def test_the_family_of_the_worked_example_passes_the_tests_of_all_families(forks, tmp_path):
    """Its file is what CONTRIBUTING.md has of it, block by block."""
    blocks = [text for language, _, text in snippets(ROOT / "CONTRIBUTING.md") if language == "python"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "electra.py").write_text("\n\n".join(blocks), encoding="utf-8")
    out = tmp_path / "out"
    tests = ROOT / "tests" / "models" / "test_families.py"
    code = forks.start(FAMILY_TESTS, tmp_path / "models", tests, out=out, err=out).wait()
    said = out.read_text(encoding="utf-8")
    assert code == 0, said
    assert int(re.search(r"(\d+) passed", said)[1]) > 3 * blocks[-1].count('"Electra')
