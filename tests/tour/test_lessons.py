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
from triarch.pages.renderers.alignment import shares
from triarch.pages.renderers.replies import passage
from triarch.tasks._alignment import WORD
from triarch.tour import lessons, page, reading, terminal, writing
from triarch.tour.subject import Row, inputs


def taught(school, task):
    return next(lesson for lesson in school.lessons if lesson.task == task)


def test_there_is_a_lesson_for_each_task_that_a_starter_serves(school):
    served = [task for task, name in stand_ins.SERVES.items() if name in stand_ins.FOLDERS]
    assert sorted(lesson.task for lesson in school.lessons) == sorted(served)
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
    text, given = Page(html).text, inputs()
    shown = [one["text"] for one in [*given["utterances"], *given["passage"]["questions"]]]
    shown += [one[side] for one in given["pairs"] for side in ("first", "second")]
    shown += [part for one in given["masks"] for part in one["text"].split("[MASK]")]
    assert [one for one in shown if one not in text] == []


def test_meant_labels_of_utterances_are_intents_of_the_starter():
    meant = {one["meant"] for one in inputs()["utterances"] if "meant" in one}
    assert meant <= set(triarch.load(starters.folder("intents")).config.id2label.values())


def test_meant_tags_are_universal_ones():
    tags = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
    words = [word for line in inputs()["tagged"]["sentences"] for word in line.split()]
    assert {word.rsplit("/", 1)[1] for word in words} <= {*tags.split()}


def test_meant_names_stand_once_in_their_posts_and_have_a_colour():
    for post in inputs()["posts"]:
        assert all(post["text"].count(name) == 1 for name in post["names"])
        assert set(post["names"].values()) <= reading.KINDS.keys()


def test_meant_answers_stand_in_the_passage_and_one_question_has_none():
    passage = inputs()["passage"]
    answers = [asked["answers"] for asked in passage["questions"]]
    assert all(answer in passage["text"] for several in answers for answer in several)
    assert answers.count([]) == 1


def test_each_sentence_with_a_mask_has_one():
    assert all(one["text"].count("[MASK]") == 1 for one in inputs()["masks"])


def test_every_word_has_the_tag_of_its_first_token(school):
    for row, line in zip(taught(school, "token-classification").rows, inputs()["tagged"]["sentences"], strict=True):
        words = list(zip(row.asked["words"], row.asked["meant"], row.answer, strict=True))
        assert [f"{word}/{meant}" for word, meant, _ in words] == line.split()
        assert {piece["entity"] for _, _, piece in words} <= set(stand_ins.TAGS)
        assert [piece["start"] for _, _, piece in words] == [
            len(" ".join([*row.asked["words"][:number], ""])) for number in range(len(words))
        ]


def test_tokens_are_those_of_what_follows_with_their_probabilities(school, tmp_path, monkeypatch):
    monkeypatch.setattr(starters, "home", lambda: stand_ins.write(tmp_path))
    follows = [pair for pair in inputs()["pairs"] if pair["follows"]]
    model = triarch.load(starters.folder("text-books"))
    for row, pair in zip(taught(school, "text-generation").rows, follows, strict=True):
        tokens = row.asked["tokens"]
        assert "".join(text for text, _, _ in tokens).strip() == pair["second"]
        ids = model.processor.encode(f"{pair['first']} {pair['second']}").ids
        last = model(torch.tensor([ids])).logits[0, -2].softmax(-1).detach()
        assert tokens[-1][1] == pytest.approx(float(last[ids[-1]]), rel=1e-5)
        assert tokens[-1][2] == (int(last.argmax()) == ids[-1])


def test_answers_are_spans_of_the_passage(school):
    for row in taught(school, "question-answering").rows:
        assert all(row.asked["context"][one["start"] : one["end"]] == one["answer"] for one in row.answer)


def test_each_word_of_a_translation_divides_its_attention_among_those_of_the_text(school):
    rows = taught(school, "translation").rows
    assert [row.asked["text"] for row in rows] == [one["text"] for one in inputs()["translations"]]
    for row in rows:
        for one in row.answer["alignment"]:
            assert len(one["shares"]) == len(WORD.findall(row.asked["text"]))
            assert sum(one["shares"]) == pytest.approx(1)


def test_the_picture_of_an_alignment_has_a_square_for_each_pair_of_words():
    looks = [{"word": "the", "shares": [0.75, 0.25]}, {"word": "cat", "shares": [0.1, 0.9]}]
    row = Row({"text": "le chat", "meant": "the cat"}, {"translation_text": "the cat", "alignment": looks})
    html = writing.Translations().section([row])
    assert [float(share) for share in re.findall(r"--share:([0-9.]+)", html)] == [0.75, 0.25, 0.1, 0.9]


def test_sentences_that_a_summary_looked_at_are_those_of_the_text_and_share_its_attention(school):
    for row in taught(school, "summarization").rows:
        sources = [source for sentence in row.answer["sources"] for source in sentence["sources"]]
        assert all(row.asked["text"][one["start"] : one["end"]] == one["text"] for one in sources)
        assert 0 < sum(shares(row.answer["sources"]).values()) <= 1 + 1e-6


def test_a_summary_shades_the_sentences_that_it_looked_at():
    sources = [{"sentence": "Two.", "sources": [{"text": "Two.", "start": 9, "end": 13, "score": 0.75}]}]
    row = Row({"text": "One <b>. Two. Three.", "meant": "Two."}, {"summary_text": "Two.", "sources": sources})
    html = writing.Summaries().section([row])
    assert 'One &lt;b&gt;. <mark class="looked" style="--share:0.75" title="75%">Two.</mark> Three.' in html


@pytest.mark.parametrize("subject", lessons.SUBJECTS, ids=lambda subject: subject.TASK)
def test_command_below_a_section_runs(subject, tmp_path, monkeypatch):
    stand_ins.write(tmp_path)
    monkeypatch.setattr(starters, "home", lambda: tmp_path)
    assert main(["run", subject.TASK, *shlex.split(subject.COMMAND), "-m", "starter", "--json"]) == 0


def test_probabilities_are_probabilities(school):
    rows = [row for lesson in school.lessons[:6] for row in lesson.rows]
    answers = [row.answer if isinstance(row.answer, list) else [row.answer] for row in rows]
    scores = [one["score"] for answer in answers for one in answer]
    scores += [score for row in taught(school, "text-generation").rows for _, score, _ in row.asked["tokens"]]
    assert len(scores) > 100
    assert all(0 <= score <= 1 for score in scores)


def label(name, score=0.9):
    return {"label": name, "score": score}


def name(start, end, kind):
    return {"start": start, "end": end, "entity_group": kind, "score": 0.9}


ADA = {"text": "Ada in Rome", "names": {"Ada": "person"}}


@pytest.mark.parametrize(
    "subject, asked, answer, points",
    [
        (reading.Intents, {"text": "x", "meant": "a"}, [label("a"), label("b", 0.1)], (1, 1)),
        (reading.Intents, {"text": "x", "meant": "b"}, [label("a"), label("b", 0.1)], (0, 1)),
        (reading.Intents, {"text": "x"}, [label("a")], (0, 0)),
        (
            writing.Translations,
            {"text": "x", "meant": "The cat the dog."},
            {"translation_text": "The cat, the cat."},
            (4, 5),
        ),
        (
            writing.Summaries,
            {"text": "x", "meant": "It fell. It stood."},
            {"summary_text": "It fell. It rose."},
            (5, 6),
        ),
        (
            reading.Tags,
            {"words": ["x", "y"], "meant": ["NOUN", "VERB"]},
            [{"entity": "NOUN", "score": 0.9}, {"entity": "NOUN", "score": 0.9}],
            (1, 2),
        ),
        (reading.Names, ADA, [name(0, 3, "person"), name(7, 11, "group")], (1, 1)),
        (reading.Names, ADA, [name(0, 2, "person")], (0, 1)),
        (reading.Names, ADA, [name(0, 3, "group")], (0, 1)),
        (reading.Answers, {"meant": ["rome", "in Rome"]}, [{"answer": "Rome"}], (1, 1)),
        (reading.Answers, {"meant": []}, [{"answer": "Rome"}], (0, 1)),
        (reading.Answers, {"meant": []}, [{"answer": ""}], (1, 1)),
        (reading.Blanks, {"word": "y"}, [{"token_str": "x"}, {"token_str": "y"}], (1, 1)),
        (reading.Blanks, {"word": "y"}, [{"token_str": "x"}], (0, 1)),
        (reading.Pairs, {"follows": False}, label("NotNext"), (1, 1)),
        (reading.Pairs, {"follows": False}, label("IsNext"), (0, 1)),
        (writing.Continuations, {"tokens": [(" b", 0.5, True), (" c", 0.1, False)]}, {}, (1, 2)),
    ],
)
def test_only_what_was_meant_is_right(subject, asked, answer, points):
    assert subject().points(Row(asked, answer)) == points


def test_out_of_scope_utterance_gets_no_tick():
    shown = reading.Intents().section([Row({"text": "x"}, [label("a")])])
    assert "✓" not in shown
    assert "None of the labels fits" in shown


def test_overlapping_answers_leave_the_passage_as_it_was():
    text = "Ada lived in the city of London."
    shown = re.sub(r"<sup>\d</sup>", "", passage(text, [(13, 31), (17, 21), (0, 0)]))
    assert re.sub(r"<[^>]*>", "", shown) == text
    assert shown.count("<mark") == 3


def test_rows_have_as_many_cells_as_headers(school):
    for lesson in school.lessons:
        headers, *rows = lesson.table()
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
