"""Answers as spans of a context: targets, windows, questions without an answer, and what is measured."""

import tracemalloc

import pytest
import torch

import tiny
import triarch
from material import CONTEXT, S
from triarch.errors import InvalidInput
from triarch.objectives.span import Span


@pytest.fixture(scope="module", params=["bert-qa", "distilbert-qa", "roberta-qa"])
def spans(request):
    return tiny.load(request.param).processor


def question(text, start, context=CONTEXT):
    return {"question": "Where?", "context": context, "answers": [{"text": text, "start": start}]}


@pytest.mark.parametrize("text", ["Ada", "London", "the first", "program.", "café 😀", "  in London "])
def test_targets_are_the_tokens_of_the_answer(text, spans):
    context = CONTEXT.replace("program", "café 😀 program").replace(" in London ", "   in London  ")
    row = question(text, context.index(text), context)
    (example,) = Span(spans).examples(row)
    begin, end = example.target
    window = spans.encode(row["question"], context)
    assert context[window.offsets[begin][0] : window.offsets[end][1]].strip() == text.strip()


def test_windows_hold_the_answer_whole_or_point_at_their_first_token(spans):
    context = " ".join(S)
    answer = "Berlin"
    made = Span(spans, max_tokens=40, stride=12)
    examples = made.examples(question(answer, context.index(answer), context))
    assert len(examples) > 4
    found = []
    for example in examples:
        begin, end = example.target
        found.append(spans.decode(example.ids[begin : end + 1]).strip().lower().replace(" ", ""))
        assert example.length <= 40
        whole = spans.decode(example.ids).lower()
        assert (example.target == (0, 0)) == ("berlin" not in whole.replace(" ", ""))
    assert answer.lower() in found


def test_an_answer_that_no_window_holds_is_refused(spans):
    context = " ".join(S)
    with pytest.raises(InvalidInput, match="fits whole into no window of 40 tokens"):
        Span(spans, max_tokens=40, stride=2).examples(question(context[:400], 0, context))


@pytest.mark.parametrize(
    "row, message",
    [
        (question("London", 23), "'London' starts at 23, where the context has 'ondon '; mend the start, which counts"),
        (question("London", -36), "runs from -36 to -30, outside of the context"),
        (question("London", None), "an answer is 'London' at missing"),
        (question("London", True), "an answer is 'London' at True"),
        (question(" ", 3), "an answer is ' ' at 3; wanted a text"),
        (question(None, 3), "an answer is missing at 3"),
        (question("London", 22) | {"question": " "}, "question or context is empty"),
        (question("London", 22) | {"answers": None}, "answers are missing"),
        (question("London", 22) | {"answers": ["London"]}, r"answers are \['London'\]; wanted a list of"),
    ],
)
def test_questions_that_cannot_be_used(row, message, spans):
    with pytest.raises(InvalidInput, match=message):
        Span(spans).examples(row)


def span_scores(batch, wanted, null):
    """Logits that make spans of the row's windows score as wanted, and the first token `null`."""
    start, end = torch.full((2, *batch.inputs["input_ids"].shape), -50.0)
    for row, (begin, stop, score) in enumerate(wanted):
        start[row, begin] = end[row, stop] = score / 2
    start[:, 0] = end[:, 0] = torch.tensor(null) / 2
    return triarch.kinds.SpanScores(start, end)


def test_the_best_span_of_all_windows_answers(processor):
    context = " ".join(S)
    made = Span(processor, max_tokens=40, stride=12)
    examples = made.examples(question("Berlin", context.index("Berlin"), context))
    batch = made.batch(examples)
    holds = next(i for i, example in enumerate(examples) if example.target != (0, 0))
    spans = [(example.note.first, example.note.first, 1.0) for example in examples]
    spans[holds] = (*examples[holds].target, 2.0)
    outcomes = made.outcomes(span_scores(batch, spans, [9.0] * len(spans)), batch)
    assert outcomes[holds].text == "Berlin"
    assert made.measure(outcomes) == {"exact_match": 1.0, "f1": 1.0}
    spans[0] = (*spans[0][:2], 3.0)
    assert made.measure(made.outcomes(span_scores(batch, spans, [9.0] * len(spans)), batch))["exact_match"] == 0.0


def test_no_answer_wins_only_where_it_may(processor):
    rows = [question("London", 22), question("London", 22) | {"answers": []}]

    def measured(rows, null, **options):
        made = Span(processor, **options)
        examples = [e for row in rows for e in made.examples(row)]
        batch = made.batch(examples)
        at = Span(processor).examples(rows[0])[0].target
        outcomes = made.outcomes(span_scores(batch, [(*at, 2.0)] * len(rows), null), batch)
        return made.measure(outcomes)

    assert measured(rows[:1], [9.0]) == {"exact_match": 1.0, "f1": 1.0}
    assert measured(rows[:1], [9.0], no_answer=True) == {"exact_match": 0.0, "f1": 0.0}
    assert measured(rows[:1], [9.0], no_answer=True, threshold=8.0) == {"exact_match": 1.0, "f1": 1.0}
    found = measured(rows, [1.0, 9.0])
    assert found["exact_match"] == found["f1_answerable"] == found["f1_unanswerable"] == 1.0
    found = measured(rows, [9.0, 9.0])
    assert (found["f1"], found["f1_answerable"], found["f1_unanswerable"]) == (0.5, 0.0, 1.0)


def test_spans_stay_in_the_context_and_within_their_length(processor):
    made = Span(processor, max_answer_tokens=2)
    examples = made.examples(question("London", 22))
    batch = made.batch(examples)
    place = examples[0].note
    last = place.first + len(place.offsets) - 1
    start, end = torch.zeros(2, 1, examples[0].length)
    start[0, 1], end[0, 2], start[0, place.first], end[0, last], end[0, -1] = 9, 9, 5, 5, 9
    (outcome,) = made.outcomes(triarch.kinds.SpanScores(start, end), batch)
    assert outcome.score == 5
    assert outcome.text in ("Ada", "Ada Lovelace", ".", "program.")


def test_a_window_is_kept_in_little_memory(processor):
    made, context = Span(processor, max_tokens=64, stride=16), " ".join(S)
    made.examples(question("Berlin", context.index("Berlin"), context))
    tracemalloc.start()
    try:
        examples = [e for i in range(20) for e in made.examples(question("Berlin", context.index("Berlin"), context))]
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 40 * sum(example.length for example in examples)


def test_answers_of_both_forms_are_taken_as_they_are(processor):
    lists = question("London", 22) | {"answers": {"text": ["London"], "answer_start": [22]}}
    one, other = (Span(processor).examples(row)[0].target for row in (question("London", 22), lists))
    assert one == other != (0, 0)
