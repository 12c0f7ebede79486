"""The starters in the tour, on stand-ins: what they are asked, what counts as right, the page and the terminal."""

import dataclasses
import re
import shlex

import pytest
import torch

import stand_ins
import triarch
from pages import Page
from triarch import starters
from triarch.cli import main
from triarch.errors import TriarchError
from triarch.tour import lesson_page, lesson_rows, lessons, page, terminal
from triarch.tour.lessons import (
    Aligned,
    Blank,
    Continuation,
    Guess,
    Name,
    Pair,
    Post,
    Reply,
    Span,
    Summed,
    Tagged,
    Token,
    Utterance,
    Word,
    Written,
)


def taught(school, task):
    return next(lesson for lesson in school.lessons if lesson.task == task)


def test_there_is_a_lesson_for_each_task_that_a_starter_serves(school):
    assert [lesson.task for lesson in school.lessons] == [
        task for task, name in stand_ins.SERVES.items() if name in stand_ins.FOLDERS
    ]
    assert school.absent == {}


def test_every_lesson_has_a_section_and_a_table(html, school, findings):
    report = terminal.report(findings, school)
    ids = {attrs.get("id") for _, attrs in Page(html).tags}
    for lesson in school.lessons:
        assert lesson.task in ids
        assert f"{lesson.task} with the starter {lesson.starter}" in report


def test_page_says_what_a_starter_was_measured_on(html):
    assert "test part of a set for intents: f1 macro 0.875" in Page(html).text


def test_every_input_is_on_the_page(html):
    text, given = Page(html).text, lessons.inputs()
    shown = [one["text"] for one in [*given["utterances"], *given["passage"]["questions"]]]
    shown += [one[side] for one in given["pairs"] for side in ("first", "second")]
    shown += [part for one in given["masks"] for part in one["text"].split("[MASK]")]
    assert [one for one in shown if one not in text] == []


def test_meant_labels_of_utterances_are_intents_of_the_starter():
    meant = {one["meant"] for one in lessons.inputs()["utterances"] if "meant" in one}
    assert meant <= set(triarch.load(starters.folder("intents")).config.id2label.values())


def test_meant_tags_are_universal_ones():
    tags = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
    words = [word for line in lessons.inputs()["tagged"]["sentences"] for word in line.split()]
    assert {word.rsplit("/", 1)[1] for word in words} <= {*tags.split()}


def test_meant_names_stand_once_in_their_posts_and_have_a_colour():
    for post in lessons.inputs()["posts"]:
        assert all(post["text"].count(name) == 1 for name in post["names"])
        assert set(post["names"].values()) <= lesson_page.KINDS.keys()


def test_meant_answers_stand_in_the_passage_and_one_question_has_none():
    passage = lessons.inputs()["passage"]
    answers = [asked["answers"] for asked in passage["questions"]]
    assert all(answer in passage["text"] for several in answers for answer in several)
    assert answers.count([]) == 1


def test_each_sentence_with_a_mask_has_one():
    assert all(one["text"].count("[MASK]") == 1 for one in lessons.inputs()["masks"])


def test_every_word_has_the_tag_of_its_first_token(school):
    for row, line in zip(
        taught(school, "token-classification").rows, lessons.inputs()["tagged"]["sentences"], strict=True
    ):
        assert [f"{word.text}/{word.meant}" for word in row.words] == line.split()
        assert {word.tag for word in row.words} <= set(stand_ins.TAGS)


def test_tokens_are_those_of_what_follows_with_their_probabilities(school, tmp_path, monkeypatch):
    monkeypatch.setattr(starters, "home", lambda: stand_ins.write(tmp_path))
    follows = [pair for pair in lessons.inputs()["pairs"] if pair["follows"]]
    model = triarch.load(starters.folder("text-books"))
    for row, pair in zip(taught(school, "text-generation").rows, follows, strict=True):
        assert "".join(token.text for token in row.tokens).strip() == pair["second"]
        ids = model.processor.encode(f"{pair['first']} {pair['second']}").ids
        last = model(torch.tensor([ids])).logits[0, -2].softmax(-1).detach()
        assert row.tokens[-1].score == pytest.approx(float(last[ids[-1]]), rel=1e-5)
        assert row.tokens[-1].likeliest == (int(last.argmax()) == ids[-1])


def test_answers_are_spans_of_the_passage(school):
    for row in taught(school, "question-answering").rows:
        assert all(row.passage[span.start : span.end] == span.text for span in row.spans)


def test_each_word_of_a_translation_divides_its_attention_among_those_of_the_text(school):
    rows = taught(school, "translation").rows
    assert [row.text for row in rows] == [one["text"] for one in lessons.inputs()["translations"]]
    for row in rows:
        for _, shares in row.looks:
            assert len(shares) == len(row.words)
            assert sum(shares) == pytest.approx(1)


def test_the_picture_of_an_alignment_has_a_square_for_each_pair_of_words():
    row = Aligned("le chat", "the cat", "the cat", ["le", "chat"], [("the", [0.75, 0.25]), ("cat", [0.1, 0.9])])
    html = lesson_page.translations([row])
    assert [float(share) for share in re.findall(r"--share:([0-9.]+)", html)] == [0.75, 0.25, 0.1, 0.9]


def test_sentences_that_a_summary_looked_at_are_those_of_the_text_and_share_its_attention(school):
    for row in taught(school, "summarization").rows:
        assert all(row.text[source.start : source.end] == source.text for source in row.sources)
        assert 0 < sum(source.score for source in row.sources) <= 1 + 1e-6


def test_a_summary_shades_the_sentences_that_it_looked_at():
    row = Summed("One <b>. Two. Three.", "Two.", "Two.", [Span(9, 13, 0.75, "Two.")])
    html = lesson_page.summaries([row])
    assert 'One &lt;b&gt;. <span class="looked" style="--share:0.75" title="75%">Two.</span> Three.' in html


@pytest.mark.parametrize("task", lessons.TASKS)
def test_command_below_a_section_runs(task, tmp_path, monkeypatch):
    stand_ins.write(tmp_path)
    monkeypatch.setattr(starters, "home", lambda: tmp_path)
    assert main(["run", task, *shlex.split(lesson_page.COMMANDS[task]), "-m", "starter", "--json"]) == 0


def test_probabilities_are_probabilities(school):
    scores = [guess.score for row in taught(school, "text-classification").rows for guess in row.guesses]
    scores += [word.score for row in taught(school, "token-classification").rows for word in row.words]
    scores += [name.score for row in taught(school, "ner").rows for name in row.found]
    scores += [span.score for row in taught(school, "question-answering").rows for span in row.spans]
    scores += [guess.score for row in taught(school, "fill-mask").rows for guess in row.guesses]
    scores += [row.score for row in taught(school, "next-sentence").rows]
    scores += [token.score for row in taught(school, "text-generation").rows for token in row.tokens]
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    "row, points",
    [
        (Utterance("x", [Guess("a", 0.9), Guess("b", 0.1)], "a"), (1, 1)),
        (Utterance("x", [Guess("a", 0.9), Guess("b", 0.1)], "b"), (0, 1)),
        (Utterance("x", [Guess("a", 0.9)], None), (0, 0)),
        (Aligned("x", "The cat, the cat.", "The cat the dog.", [], []), (4, 5)),
        (Written("x", "It fell. It rose.", "It fell. It stood."), (5, 6)),
        (Tagged([Word("x", "NOUN", 0.9, "NOUN"), Word("y", "NOUN", 0.9, "VERB")]), (1, 2)),
        (Post("Ada in Rome", [Name(0, 3, "person"), Name(7, 11, "group")], [Name(0, 3, "person")]), (1, 1)),
        (Post("Ada in Rome", [Name(0, 2, "person")], [Name(0, 3, "person")]), (0, 1)),
        (Reply("?", "", "In Rome.", [Span(3, 7, 0.9, "Rome")], ["rome", "in Rome"]), (1, 1)),
        (Reply("?", "", "In Rome.", [Span(3, 7, 0.9, "Rome")], []), (0, 1)),
        (Reply("?", "", "In Rome.", [Span(0, 0, 0.9, "")], []), (1, 1)),
        (Blank("a ", " b", [Guess("x", 0.5), Guess("y", 0.2)], "y", "book"), (1, 1)),
        (Blank("a ", " b", [Guess("x", 0.5)], "y", "book"), (0, 1)),
        (Pair("a", "b", said=False, score=0.9, follows=False), (1, 1)),
        (Pair("a", "b", said=True, score=0.9, follows=False), (0, 1)),
        (Continuation("a", [Token(" b", 0.5, True), Token(" c", 0.1, False)], " d"), (1, 2)),
    ],
)
def test_only_what_was_meant_is_right(row, points):
    assert row.points == points


def test_out_of_scope_utterance_gets_no_tick():
    shown = lesson_page.utterances([Utterance("x", [Guess("a", 0.9)], None)])
    assert "✓" not in shown
    assert "None of the labels fits" in shown


def test_overlapping_answers_leave_the_passage_as_it_was():
    passage = "Ada lived in the city of London."
    spans = [Span(13, 31, 0.5, "the city of London"), Span(17, 21, 0.5, "city"), Span(0, 0, 0.5, "")]
    rows = [Reply("?", "", passage, [span], []) for span in spans]
    shown = re.sub(r"<sup>\d</sup>", "", lesson_page._marked(passage, rows))
    assert re.sub(r"<[^>]*>", "", shown) == passage
    assert shown.count("<mark") == 3


@pytest.mark.parametrize("score, text", [(0.004, "<1%"), (0.006, "1%"), (0.5, "50%"), (0.996, ">99%"), (1.0, ">99%")])
def test_percentages_claim_no_certainty(score, text):
    assert lesson_page.percent(score) == text


def test_rows_have_as_many_cells_as_headers(school):
    for lesson in school.lessons:
        headers, *rows = lesson_rows.rows(lesson)
        assert len(rows) >= len(lesson.rows)
        assert {len(row) for row in rows} == {len(headers)}


def test_missing_starters_are_one_line_and_the_rest_is_shown(findings, monkeypatch, tmp_path):
    monkeypatch.setattr(starters, "home", lambda: tmp_path / "nowhere")
    found = lessons.attend(lambda note: None)
    assert found.lessons == []
    report = terminal.report(findings, found)
    (line,) = [line for line in report.splitlines() if "Left out" in line]
    assert "text-classification, token-classification, ner" in line
    assert "install triarch from" in line
    assert "Search: 8 of 8" in report
    shown = page.render(findings, found)
    assert "Left out, because their starters were not found: text-classification" in Page(shown).text
    assert str(tmp_path) not in shown


def test_one_missing_starter_leaves_the_others(school, findings):
    some = dataclasses.replace(school, lessons=school.lessons[1:], absent={"text-classification": "it is not here"})
    text = Page(page.render(findings, some)).text
    assert "were not found: text-classification" in text
    assert "What kind of word" in text
    assert "What is wanted" not in text


def test_damaged_starter_is_an_error_and_not_left_out(monkeypatch, tmp_path):
    stand_ins.write(tmp_path)
    (tmp_path / "pos" / "config.json").write_text("{")
    monkeypatch.setattr(starters, "home", lambda: tmp_path)
    with pytest.raises(TriarchError, match=r"config\.json is not JSON"):
        lessons.attend(lambda note: None)
