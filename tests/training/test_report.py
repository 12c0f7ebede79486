"""The report of a run: what its log says, the pictures, and a page that stands alone."""

import json
import math
import re

import numpy as np
import pytest

from pages import Page, asks_by_style
from triarch.errors import TriarchError
from triarch.pages import number
from triarch.training import drawings, history, report
from triarch.training.drawings import Line, chart, ticks
from triarch.training.facts import Data, Facts, Mistakes, Wrong, duration, flat
from triarch.training.history import Points

HOSTILE = '</style><script>alert(1)</script> & "it\'s" \x1b[31m'


def train(step, loss=1.0, **more):
    return {
        "step": step,
        "epoch": step / 10,
        "loss": loss,
        "lr": 1e-4,
        "grad_norm": 1.0,
        "tokens": 100,
        "seconds": 0.5,
    } | more


def measured(step, **metrics):
    return {"step": step, "evaluation": metrics, "seconds": 1.0}


def log(folder, lines):
    path = folder / "log.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def facts(**more):
    return Facts(
        **({"name": "tiny", "objective": "classification", "architecture": "BertForSequenceClassification"} | more)
    )


def page(lines, folder, mistakes=None, **more):
    path = report.write_report(folder, log(folder, lines), facts(**more), mistakes)
    return path.read_text(encoding="utf-8")


RUN = [
    *(train(step, 3 / step, losses={"mlm": 2 / step, "nsp": 1 / step}) for step in range(1, 41)),
    *(measured(step, loss=3 / step, accuracy=step / 50) for step in (10, 20, 30, 40)),
]
MISTAKES = Mistakes(("no", "yes"), np.array([[7, 3], [1, 9]]), (Wrong("surely not", "no", "yes", 4.5),))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    read = (Data("train.csv", "training", 900), Data("held.csv", "validation", 100, license="mit"))
    return page(
        RUN,
        tmp_path_factory.mktemp("report"),
        MISTAKES,
        settings={"lr": 1e-4, "options": {"share": 0.15}, "model": None},
        data=read,
        metrics={"loss": 0.1, "accuracy": 0.8},
        measured_on=read[1],
        metric="accuracy",
        best_step=30,
        seed=7,
    )


# The log


def test_steps_and_measurements_are_told_apart(tmp_path):
    past = history.read(log(tmp_path, RUN))
    assert (len(past.steps), len(past.evaluations)) == (40, 4)
    assert (past.losses(), past.metrics()) == (["mlm", "nsp"], ["loss", "accuracy"])
    assert past.of_loss("nsp").values[:2].tolist() == [1, 0.5]
    assert past.of_evaluations("accuracy").steps.tolist() == [10, 20, 30, 40]


def test_steps_that_were_made_again_count_once(tmp_path):
    lines = [train(1, 1.0), train(2, 2.0), measured(2, loss=9), train(3, 3.0), train(2, 4.0), measured(2, loss=8)]
    past = history.read(log(tmp_path, lines))
    assert past.of_steps("loss").values.tolist() == [1, 4]
    assert past.of_evaluations("loss").values.tolist() == [8]


def test_half_a_line_is_counted_and_the_rest_is_read(tmp_path):
    past = history.read(log(tmp_path, [train(1), "[1]\n", '{"step": "x"}\n', '{"step": 2, "lo']))
    assert (len(past.steps), past.unreadable) == (1, 3)


def test_what_could_not_be_read_is_said(tmp_path):
    assert "Not shown: 2 lines of the log that could not be read." in page([train(1), "[1]\n", "{"], tmp_path)


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path):
    past = history.read(log(tmp_path, [train(1), train(2, None), train(3)]))
    assert np.isnan(past.of_steps("loss").values).tolist() == [False, True, False]
    assert "Not a number: at 1 step." in page([train(1), train(2, None), train(3)], tmp_path)


@pytest.mark.parametrize(
    "lines",
    [[], [train(1)], [train(1, None)], [train(1), train(2)], [measured(1, loss=1.0)], [train(1, 0.0), train(2, 0.0)]],
    ids=["empty", "one line", "no number", "two lines", "a measurement", "all zero"],
)
def test_the_shortest_logs_have_a_page(tmp_path, lines):
    drawn = Page(page(lines, tmp_path))
    assert not [attrs for _, attrs in drawn.tags if "nan" in " ".join(map(str, attrs.values()))]


def test_a_run_without_a_log_has_a_page(tmp_path):
    path = report.write_report(tmp_path, tmp_path / "log.jsonl", facts())
    assert "The log holds no loss" in path.read_text(encoding="utf-8")


# The pictures


def curve(values, **more):
    return Line("a", Points(np.arange(1.0, len(values) + 1), np.array(values, dtype=float)), **more)


def test_a_long_run_is_drawn_small_with_its_extremes():
    values = np.sin(np.arange(200_000) / 1e4)
    values[123_456] = 1.5
    drawn = chart([curve(values, noisy=True)], label="x")
    assert len(drawn.drawing) < 20_000
    assert drawings.bins(curve(values).points)[2].max() == 1.5


def test_the_smoothed_line_is_a_mean_without_the_pull_of_its_start():
    assert drawings.smooth(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    noise = 3 + np.random.default_rng(0).standard_normal(4000)
    assert np.abs(drawings.smooth(noise)[200:] - 3).max() < 0.5


def test_a_gap_is_not_drawn_over():
    (where,) = re.findall(r'class="line c0" d="([^"]*)"', chart([curve([1, 2, math.nan, 3, 4])], label="x").drawing)[:1]
    lines = re.findall(r'class="line c0"', chart([curve([1, 2, math.nan, 3, 4])], label="x").drawing)
    assert len(lines) == 2
    assert "nan" not in where


def test_a_spike_does_not_flatten_all_else_and_is_counted():
    values = [1 + 0.1 * (i % 7) for i in range(1000)]
    values[500] = 1e6
    drawn = chart([curve(values)], label="x")
    assert drawn.beyond == 1
    assert ">1<" in drawn.drawing


def test_the_best_step_is_marked(whole):
    marked = [attrs for attrs in Page(whole).all("circle") if "chosen" in attrs["class"]]
    assert len(marked) == 2
    assert whole.count("at step 30 (best)") == 2
    assert "accuracy: 0.6 at step 30 (best)" in whole


def test_ticks_are_round_and_inside():
    assert ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(-3.0, 12_000.0, 5) == [0, 2000, 4000, 6000, 8000, 10000, 12000]


def test_rates_are_those_of_the_whole_time():
    amounts, seconds = curve([100.0, 300.0]).points, curve([1.0, 3.0]).points
    assert drawings.rates(amounts, seconds).values.tolist() == [100, 100]
    long = drawings.rates(curve(np.full(1000, 50.0)).points, curve(np.full(1000, 0.5)).points)
    assert (len(long), set(long.values)) == (100, {100.0})


@pytest.mark.parametrize(
    "value, spelled",
    [(0.88125, "0.8812"), (5e-5, "5e-5"), (12_345, "12,345"), (1e9, "1e9"), (0, "0"), (0.001, "0.001"), (-2.5, "-2.5")],
)
def test_numbers_are_short(value, spelled):
    assert number(value) == spelled


@pytest.mark.parametrize(
    "seconds, said", [(3.21, "3.2 s"), (1034, "17 min"), (3599, "1 h 00 min"), (7384, "2 h 03 min")]
)
def test_times_are_short(seconds, said):
    assert duration(seconds) == said


def test_settings_in_tables_are_named_with_a_dot():
    table = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [], "f": False, "g": 0}
    assert flat(table) == {"a": "1", "b.c": "1, 2", "f": "False", "g": "0"}


# What went wrong


def confused(labels):
    counts = np.full((labels, labels), 2)
    np.fill_diagonal(counts, 50)
    counts[3, 1] = 40
    return Mistakes(tuple(f"label {i}" for i in range(labels)), counts)


def test_up_to_thirty_labels_have_a_picture(tmp_path):
    drawn = page([train(1)], tmp_path, confused(30))
    assert "confusion" in [attrs["class"] for attrs in Page(drawn).all("svg")]
    assert len(drawn.encode()) < 300_000


def test_more_labels_have_their_most_confused_pairs(tmp_path):
    drawn = page([train(1)], tmp_path, confused(400))
    assert "confusion" not in [attrs["class"] for attrs in Page(drawn).all("svg")]
    assert '<tr><td class="number">40</td><td>label 3</td><td>label 1</td></tr>' in drawn
    assert "The 200 most frequent of 400." in drawn
    assert len(drawn.encode()) < 300_000


def test_precision_and_recall_of_each_label(whole):
    rows = ["yes", "10", "0.750", "0.900"], ["no", "10", "0.875", "0.700"]
    for label, *numbers in rows:
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        assert f"<tr><td>{label}</td>{cells}</tr>" in whole


def test_a_label_that_was_never_predicted_has_no_precision(tmp_path):
    drawn = page([train(1)], tmp_path, Mistakes(("a", "b"), np.array([[3, 0], [2, 0]])))
    assert '<tr><td>b</td><td class="number">2</td><td class="number">–</td><td class="number">0.000</td></tr>' in drawn


def test_the_most_wrong_examples_are_shown(whole):
    assert '<td>surely not</td><td>no</td><td>yes</td><td class="number">4.5</td>' in whole


def test_of_many_wrong_examples_the_first_are_shown_and_all_counted(tmp_path):
    many = tuple(Wrong(f"text {i}", "no", "yes", 50.0 - i) for i in range(30))
    drawn = page([train(1)], tmp_path, Mistakes(wrong=many))
    assert "Of 30 rows with a wrong answer" in drawn
    assert re.findall(r"text \d+", drawn) == [f"text {i}" for i in range(report.MOST_WRONG)]


# The page


def test_page_asks_for_nothing_from_outside(whole):
    assert Page(whole).asking() == set()
    assert Page(whole).all("a") == []
    assert not asks_by_style(whole)


def test_every_picture_is_described(whole):
    assert len(Page(whole).all("svg")) == 7
    assert Page(whole).undescribed() == []


def test_headings_do_not_skip_a_level(whole):
    assert len(Page(whole).all("h1")) == 1
    assert Page(whole).skipped() == []


def test_page_says_how_to_do_it_again(whole):
    text = Page(whole).text
    for wanted in ("options.share", "0.15", "seed", "train.csv", "900", "unknown", "mit"):
        assert wanted in text


def test_the_chosen_metric_comes_first(whole):
    assert whole.index("accuracy (validation)") < whole.index("loss (validation)")


def test_curves_differ_by_more_than_colour():
    drawn = report.files(report.__package__).joinpath("report.css").read_text()
    dashes = re.findall(r"--dash: ([\d ]+)", drawn)
    assert len(set(dashes)) == drawings.KINDS - 1


def test_hostile_text_stays_text(tmp_path):
    lines = [
        train(1, losses={HOSTILE: 1.0, "b": 2.0}),
        measured(1, **{HOSTILE: 0.5}),
    ]
    bad = Mistakes((HOSTILE, "b"), np.array([[1, 2], [3, 4]]), (Wrong(HOSTILE, HOSTILE, HOSTILE, 1.0),))
    texts = dict.fromkeys(("name", "objective", "architecture", "started", "metric"), HOSTILE)
    drawn = page(
        lines,
        tmp_path,
        bad,
        **texts,
        settings={HOSTILE: HOSTILE},
        hardware={HOSTILE: HOSTILE},
        data=(Data(HOSTILE, HOSTILE, 1, license=HOSTILE, note=HOSTILE),),
        best_step=1,
        metrics={HOSTILE: 1.0},
    )
    assert not {"script", "b onclick"} & {tag for tag, _ in Page(drawn).tags}
    assert drawn.count("</style>") == 1


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TriarchError, match=r"cannot write .*nowhere"):
        report.write_report(tmp_path / "nowhere", tmp_path / "log.jsonl", facts())
