"""Answers as HTML: which renderer draws what, what stands in it, and that hostile text stays text."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import tiny
import triarch
from pages import Page, asks_by_style
from triarch.errors import InvalidInput, TriarchError
from triarch.pages import opening, percent, renderers, stylesheet
from triarch.pages.asked import Asked
from triarch.pages.renderers import choose
from triarch.pages.renderers.spans import Mark, marked

TEXT = "Ada lives in London"
ADA = {"entity_group": "PER", "score": 0.98, "word": "Ada", "start": 0, "end": 3}
LONDON = {"entity": "B-LOC", "score": 0.4, "index": 4, "word": "London", "start": 13, "end": 19}
REPLY = {"score": 0.9, "start": 13, "end": 19, "answer": "London"}
LABEL = {"label": "praise", "score": 0.75}
WORD = {"word": "the", "source": "le", "start": 0, "end": 2, "score": 0.75}
SOURCES = [{"sentence": "It fell.", "sources": [{"text": "It fell.", "start": 0, "end": 8, "score": 0.5}]}]
TOKENS = [
    {"id": 1, "token": " a", "logprob": -0.1, "alternatives": [{"id": 2, "token": " b", "logprob": -3.0}]},
    {"id": 3, "token": " c", "logprob": -2.0, "alternatives": [{"id": 4, "token": " d", "logprob": -0.2}]},
]
KINDS = [
    ("labels", [LABEL], "x"),
    ("labels", LABEL, "x"),
    ("labels", {"sequence": "x", "labels": ["a", "b"], "scores": [0.6, 0.4]}, "x"),
    ("labels", [{"score": 0.5, "token": 1, "token_str": "fox", "sequence": "a fox"}], "a [MASK]"),
    ("spans", [ADA], TEXT),
    ("spans", [LONDON], TEXT),
    ("replies", REPLY, {"question": "Where?", "context": TEXT}),
    ("replies", [REPLY, {"score": 0.1, "start": 0, "end": 0, "answer": ""}], None),
    ("similarity", [0.5, -0.25], {"source_sentence": "x", "sentences": ["a", "b"]}),
    ("similarity", [{"corpus_id": 0, "score": 0.5, "text": "x"}], "query"),
    ("similarity", [np.ones(3), np.arange(3.0)], ["a", "b"]),
    ("alignment", [{"translation_text": "the cat", "alignment": [WORD]}], "le chat"),
    ("alignment", [{"summary_text": "It fell.", "sources": SOURCES}], "It fell. It rose."),
    ("text", [{"generated_text": "x y"}], "x"),
    ("text", {"generated_text": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}, None),
    ("text", [{"generated_token_ids": [1, 2]}], "x"),
    ("vectors", np.arange(6.0), "x"),
    ("vectors", [[[0.1, 0.2], [0.3, -0.4]]], "x"),
    ("vectors", torch.ones(1, 2, 3), "x"),
    ("vectors", [0.1, 0.2], None),
    ("records", [{"a": 1, "b": "x"}], None),
    ("records", [], "x"),
    ("records", None, None),
]


def chosen(answer, input=None):
    return choose(answer, Asked(input)).__name__.rpartition(".")[2]


def text_of(shown):
    return Page(shown.html).text


@pytest.mark.parametrize("kind, answer, input", KINDS)
def test_renderer_is_chosen_by_the_answer(kind, answer, input):
    assert chosen(answer, input) == kind


@pytest.mark.parametrize("kind, answer, input", KINDS)
def test_every_answer_is_a_page_that_stands_alone(kind, answer, input, tmp_path):
    triarch.show(answer, input).save(tmp_path / "answer.html")
    text = (tmp_path / "answer.html").read_text(encoding="utf-8")
    page = Page(text)
    assert (page.asking(), page.undescribed(), asks_by_style(text)) == (set(), [], False)
    assert not page.all("script")


@pytest.mark.parametrize("kind, answer, input", KINDS)
def test_every_answer_can_be_shown_without_its_input(kind, answer, input):
    assert Page(triarch.show(answer).html).all("article")


def test_a_renderer_is_added_by_its_file_alone(tmp_path, monkeypatch):
    code = (
        'def fits(answer, asked):\n    return 9 * ("boxes" in answer)\ndef render(answer, asked):\n    return "drawn"\n'
    )
    (tmp_path / "made_up.py").write_text(code)
    monkeypatch.setattr(renderers, "__path__", [*renderers.__path__, str(tmp_path)])
    renderers._all.cache_clear()
    try:
        assert "drawn" in triarch.show({"boxes": []}).html
    finally:
        renderers._all.cache_clear()
        sys.modules.pop("triarch.pages.renderers.made_up", None)


def test_the_answers_of_each_text_task_have_a_renderer():
    said = "Ada lived in London."
    for task, name, input, options in (
        ("text-classification", "bert-labels", said, {}),
        ("ner", "bert-tags", said, {"ignore_labels": []}),
        ("question-answering", "bert-qa", {"question": "Where?", "context": said}, {}),
        ("fill-mask", "bert-words", "Paris is the [MASK].", {}),
        ("next-sentence", "bert-next", {"text": said, "text_pair": said}, {}),
        ("zero-shot-classification", "bert-nli", said, {"candidate_labels": "a,b"}),
        ("embedding", "bert", said, {}),
        ("feature-extraction", "bert", said, {}),
        ("text-generation", "gpt2", said, {"max_new_tokens": 3, "logprobs": 2, "details": True}),
        ("sentence-similarity", "bert", said, {"sentences": [said, "no"]}),
        ("semantic-search", "bert", said, {"corpus": [said, "no"]}),
    ):
        answer = triarch.pipeline(task, tiny.load(name))(input, **options)
        assert choose(answer, Asked(input, options)).__name__.rpartition(".")[2] != "records", task
        assert Page(triarch.show(answer, input, **options).html).all("article"), task


def test_what_generate_gives_is_shown():
    model = tiny.load("gpt2")
    said = triarch.generate(model, "Ada lived", max_new_tokens=3, do_sample=False)
    assert said.text.strip() in text_of(triarch.show(said))


# What stands in them


def test_labels_have_their_percentages():
    text = text_of(triarch.show([LABEL], "Well done"))
    assert "praise" in text
    assert "75%" in text
    assert "Well done" in text


def test_scores_that_are_no_probabilities_are_written_as_numbers():
    shown = triarch.show([{"label": "stars", "score": 4.25}, {"label": "low", "score": -1.0}])
    assert "4.25" in text_of(shown)
    assert "%" not in text_of(shown)


def test_scores_that_are_no_numbers_do_not_stop_the_page():
    assert "nan" in text_of(triarch.show([{"label": "x", "score": float("nan")}]))


def test_entities_are_marked_in_their_text():
    city = ADA | {"entity_group": "LOC", "score": 0.4, "word": "London", "start": 13, "end": 19}
    shown = triarch.show([ADA, city], TEXT)
    assert re.findall(r"<mark[^>]*>(\w+)", shown.html) == ["Ada", "London"]
    assert "LOC 40%" in text_of(shown)


def test_entities_without_their_text_are_words_with_labels():
    shown = triarch.show([ADA])
    assert "<mark" not in shown.html
    assert "Ada" in text_of(shown)
    assert "PER" in text_of(shown)


def test_entities_of_another_text_are_not_marked_in_it():
    assert "<mark" not in triarch.show([LONDON], "Ada").html


def test_entities_of_words_are_marked_in_the_sentence_that_they_make():
    shown = triarch.show([[ADA]], TEXT.split())
    assert re.findall(r"<mark[^>]*>(\w+)", shown.html) == ["Ada"]


def test_labels_of_one_kind_have_one_colour_on_a_page():
    inside = LONDON | {"entity": "I-LOC"}
    assert len({*re.findall(r'<mark class="(\w+)"', triarch.show([[LONDON], [inside]], [TEXT, TEXT]).html)}) == 1


def test_overlapping_marks_leave_the_text_as_it_was():
    html = marked("abcdef", [Mark(0, 4, "g0"), Mark(2, 6, "g1"), Mark(3, 3, "g2")])
    assert re.sub(r"<[^>]*>", "", html) == "abcdef"
    assert html.count("<mark") == 3


def test_an_answer_is_marked_in_its_context_with_its_question():
    for shown in (
        triarch.show(REPLY, {"question": "Where?", "context": TEXT}),
        triarch.show(REPLY, question="Where?", context=TEXT),
        triarch.show(REPLY, TEXT, question="Where?"),
    ):
        assert "<sup>1</sup>London</mark>" in shown.html
        assert "Where?" in text_of(shown)


def test_no_answer_is_said_in_words():
    assert "the text does not say" in text_of(triarch.show(REPLY | {"start": 0, "end": 0, "answer": ""}, TEXT))


def test_cosines_have_the_names_of_their_sentences():
    text = text_of(triarch.show([0.5, -0.25], "x", sentences=["a cat", "a dog"]))
    assert re.search(r"a cat\s*0\.50.*a dog\s*-0\.25", text)


def test_several_vectors_are_compared_with_one_another():
    shown = triarch.show([np.array([1.0, 0.0]), np.array([0.0, 2.0])], ["one", "other"])
    assert "one and other: 0.00" in text_of(shown)
    assert "one and one: 1.00" in text_of(shown)


def test_an_alignment_with_all_shares_is_a_square_of_words():
    record = {"translation_text": "the", "alignment": [WORD | {"shares": [0.75, 0.25]}]}
    assert "--share:0.75" in triarch.show([record], "le chat").html


def test_an_alignment_with_the_best_alone_is_a_row_of_words():
    text = text_of(triarch.show([{"translation_text": "the", "alignment": [WORD]}], "le chat"))
    assert re.search(r"the\s*le\s*75%", text)


def test_sources_of_a_summary_are_shaded_in_the_text():
    shown = triarch.show([{"summary_text": "It fell.", "sources": SOURCES}], "It fell. It rose.")
    assert '<mark class="looked" style="--share:0.50" title="50%">It fell.</mark> It rose.' in shown.html


def test_tokens_have_their_probabilities_and_their_alternatives():
    shown = triarch.show([{"generated_text": " a c", "tokens": TOKENS}], "x")
    assert "90%" in text_of(shown)
    assert re.findall(r'<li class="(\w+)"', shown.html) == ["g1", "none"]
    assert "' d' 82%" in text_of(shown)


def test_numbers_of_a_short_vector_are_written_out():
    assert "2 numbers, length 5: 3, -4" in text_of(triarch.show(np.array([3.0, -4.0])))


def test_coverage_is_told():
    answer = {"result": [LABEL], "coverage": {"tokens": 900, "seen": 512, "windows": 1, "strategy": "truncate"}}
    assert "seen 512" in text_of(triarch.show(answer, "x"))


def test_several_inputs_have_an_answer_each():
    for answers, inputs in (([LABEL, LABEL], ["a b", "c d"]), ([[ADA], []], [TEXT, "none here"])):
        shown = triarch.show(answers, inputs)
        assert len(Page(shown.html).all("article")) == 2
        assert all(one.split()[-1] in text_of(shown) for one in inputs)


def test_a_chat_is_one_input():
    chat = [{"role": "user", "content": "hi there"}]
    shown = triarch.show([{"generated_text": "ho"}], chat)
    assert len(Page(shown.html).all("article")) == 1
    assert "user hi there" in text_of(shown)


def test_an_error_stands_in_the_place_of_its_answer():
    text = text_of(triarch.show([InvalidInput("<b>empty</b>"), LABEL], ["", "x"]))
    assert "InvalidInput <b>empty</b>" in text


@pytest.mark.parametrize(
    "input, said", [(b"123", "3 bytes"), (np.zeros((4, 6, 3)), "ndarray of 4 × 6 × 3"), (7, "7")], ids=str
)
def test_an_input_that_is_no_text_is_described(input, said):
    assert said in text_of(triarch.show([LABEL], input))


@pytest.mark.parametrize("score, text", [(0.004, "<1%"), (0.006, "1%"), (0.5, "50%"), (0.996, ">99%"), (1.0, ">99%")])
def test_percentages_claim_no_certainty(score, text):
    assert percent(score) == text


# Hostile text, notebooks, colours


def hostile(value):
    """The same answer with every text in it made hostile, and as long as it was where it is not."""
    bad = '</style><script>alert(1)</script><img src=x onerror="x">&'
    if isinstance(value, str):
        return bad
    if isinstance(value, dict):
        return {name: hostile(one) for name, one in value.items()}
    return [hostile(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind, answer, input", KINDS)
def test_hostile_text_stays_text(kind, answer, input):
    shown = triarch.show(hostile(answer), hostile(input))
    assert chosen(answer, input) == chosen(hostile(answer), hostile(input))
    page = Page(shown._repr_html_())
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_names_of_columns_are_escaped():
    assert "<i>" not in triarch.show([{"<i>a": 1, "b": 2}]).html


def test_a_notebook_gets_a_piece_whose_style_holds_for_it_alone():
    html = triarch.show([LABEL])._repr_html_()
    assert html.startswith('<div class="triarch"><style>')
    style = re.sub(r"/\*.*?\*/", "", html[html.index("<style>") + 7 : html.index("</style>")], flags=re.DOTALL)
    assert ":root" not in style
    depth, outer = 0, ""
    for c in style:
        depth += (c == "{") - (c == "}")
        outer += c if depth == 0 and c != "}" else ""
    assert re.fullmatch(r"(\s|\.triarch|@media screen and \(prefers-color-scheme: dark\))*", outer)


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(TriarchError, match=r"cannot write .*nowhere"):
        triarch.show([LABEL]).save(tmp_path / "nowhere" / "a.html")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_words_can_be_read_on_cards_and_on_marks(mode):
    found = dict(re.findall(r"--(\w+): (#\w{6})", stylesheet("palette").split("@media")[mode]))
    card = found["card"]
    written = [name for name in found if re.fullmatch(r"g\d|ink|soft|good|accent|first|second", name)]
    assert {name: round(contrast(found[name], card), 2) for name in written if contrast(found[name], card) < 4.5} == {}
    for n in range(8):  # 20 % of its colour over the card is behind a mark's text
        parts = zip(
            *([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (found[f"g{n}"], card)), strict=True
        )
        behind = "#" + "".join(f"{round(0.2 * c + 0.8 * b):02x}" for c, b in parts)
        assert contrast(found["ink"], behind) >= 4.5


def test_the_common_style_is_in_every_page():
    assert all(stylesheet(name) in opening("x") for name in ("palette", "answers", "page"))


def test_importing_pages_does_not_import_torch():
    code = "import sys, triarch; triarch.show([{'label': 'a', 'score': 0.5}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
