"""Which model of a run is kept: the best, the last, and when a run ends before its last step."""

import pytest
import torch

import runs
import triarch
from runs import ROWS, after_step
from triarch.errors import TriarchError
from triarch.training import run, state


def scored(monkeypatch, values):
    """Measurements give these accuracies, one after the other."""
    measure = run.Run.measure
    given = iter(values)

    def call(self, source):
        metrics, outcomes = measure(self, source)
        return metrics | {"accuracy": next(given, 0.0)}, outcomes

    monkeypatch.setattr(run.Run, "measure", call)


def test_the_best_model_is_kept(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.1, 0.8, 0.8, 0.3])
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, keep=1)
    assert outcome["best step"] == 6
    assert runs.steps_of(tmp_path / "o") == [6, 12]
    best = state.verified(tmp_path / "o/training/checkpoints/step-00000006", 6).read("weights")
    kept = triarch.load(tmp_path / "o").state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in best.items())
    assert "step 6" in (tmp_path / "o" / "README.md").read_text()


def test_a_best_model_that_could_not_be_saved_leaves_the_one_before_the_best(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.5, 0.9, 0.4, 0.3])
    write = state.write

    def full(root, step, *rest):
        if step == 6:
            raise TriarchError("cannot write the checkpoint (no space); free some")
        return write(root, step, *rest)

    monkeypatch.setattr(state, "write", full)
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, save_every=3, keep=1)
    assert outcome["best step"] == 3
    assert runs.steps_of(tmp_path / "o") == [3, 12]


def test_the_tokens_of_the_data_do_not_stay_with_the_model(train, model, tmp_path):
    train("o", [{"text": row["text"]} for row in ROWS], objective="mlm", model=model("bert-words"), steps=1)
    assert not (tmp_path / "o" / "training" / "tokens").exists()


def test_the_last_is_kept_if_asked_for(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.8, 0.1, 0.1, 0.1])
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, keep=1, best=False)
    assert "best step" not in outcome
    assert runs.steps_of(tmp_path / "o") == [12]
    last = state.newest(tmp_path / "o/training/checkpoints", pytest.fail).read("weights")
    kept = triarch.load(tmp_path / "o").state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in last.items())


def test_a_best_one_that_is_damaged_is_said_to_be_lost(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.8, 0.1, 0.1, 0.1])
    path = tmp_path / "o/training/checkpoints/step-00000003/weights.safetensors"
    after_step(monkeypatch, 8, lambda: path.write_bytes(b"x"))
    outcome = train("o", validation=ROWS[:4], evaluate_every=3)
    assert "best step" not in outcome
    assert any("the best model, that of step 3, is lost; keeping the last" in note for note in train.notes)


@pytest.mark.parametrize(
    "values, metric, steps, best", [([0.5, 0.6, 0.6, 0.5], "accuracy", 12, 6), ([0.5, 0.4, 0.4], "accuracy", 9, 3)]
)
def test_without_improvement_a_run_ends(train, monkeypatch, values, metric, steps, best):
    scored(monkeypatch, values)
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, patience=2, epochs=30)
    assert outcome["steps"] == steps
    assert outcome["best step"] == best
    assert f"{metric} has not improved in 2 measurements: stopped" in train.notes
    assert train("o", validation=ROWS[:4], evaluate_every=3, patience=2, epochs=30, resume=True)["steps"] == steps
