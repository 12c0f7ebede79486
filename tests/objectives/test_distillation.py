"""Learning from a teacher: the loss, and teachers that do not fit."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

import tiny
import triarch
from material import LABELS, S, examples_of, loss_of
from triarch.errors import InvalidInput, Unsupported
from triarch.objectives import objective
from triarch.objectives._base import IGNORED
from triarch.objectives.classification import Classification
from triarch.objectives.distillation import Distillation
from triarch.objectives.mlm import Mlm
from triarch.objectives.regression import Regression


def distilled(name, **options):
    model = tiny.load({"classification": "bert-labels", "tagging": "bert-tags", "mlm": "bert-words"}[name])
    labels = {"labels": list(model.config.id2label.values())} if objective(name).LABELS else {}
    inner = objective(name)(model.processor, **labels)
    return Distillation(model.processor, inner=inner, teacher=model, **options), model


def distilled_examples(made):
    if made.READS == "documents":
        return examples_of(made)
    rows = {
        "classification": [{"text": S[0], "label": "positive"}, {"text": S[1], "label": "neutral"}],
        "tagging": [{"tokens": ["Ada", "lived", "smallish"], "tags": ["B-PER", "O", "O"]}],
    }[made.inner.NAME]
    return [example for row in rows for example in made.examples(row)]


@pytest.mark.parametrize("name", ["classification", "tagging", "mlm"])
def test_distillation_is_its_formula(name):
    made, teacher = distilled(name, alpha=0.3, temperature=3.0)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = made.batch(distilled_examples(made))
    scores = made.forward(student, batch)
    losses = made.losses(scores, batch)
    with torch.no_grad():
        full = [model(**batch.inputs).logits for model in (student, teacher)]
    targets = next(iter(batch.targets.values()))
    ours, theirs = (logits[targets != IGNORED].double() for logits in full)
    apart = (theirs / 3).softmax(-1) * ((theirs / 3).log_softmax(-1) - (ours / 3).log_softmax(-1))
    hard = F.cross_entropy(ours, targets[targets != IGNORED])
    wanted = 0.3 * 9 * apart.sum() / len(ours) + 0.7 * hard
    got = sum(loss / batch.counts[key] for key, loss in losses.items())
    torch.testing.assert_close(got.double(), wanted, atol=1e-4, rtol=1e-4)
    assert (made.SCORES, made.READS, made.METRIC) == (made.inner.SCORES, made.inner.READS, made.inner.METRIC)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it():
    made, teacher = distilled("classification", alpha=1.0)
    batch = made.batch(distilled_examples(made))
    losses = made.losses(made.forward(teacher, batch), batch)
    assert sum(float(loss.detach()) for loss in losses.values()) == pytest.approx(0, abs=1e-6)


def test_teachers_that_do_not_fit():
    made, model = distilled("classification")
    processor = model.processor
    with pytest.raises(InvalidInput, match=r"the teacher's labels are \['negative', 'neutral', 'positive'\]"):
        Distillation(processor, inner=Classification(processor, labels=LABELS), teacher=model)
    with pytest.raises(Unsupported, match="the teacher gives LabelScores, mlm needs WordScores"):
        Distillation(processor, inner=Mlm(processor), teacher=model)
    with pytest.raises(Unsupported, match="regression is no choice among classes"):
        Distillation(processor, inner=Regression(processor), teacher=model)
    other = tiny.load("roberta-words")
    with pytest.raises(InvalidInput, match="the teacher's vocabulary of 420 tokens is not the model's of 298"):
        Distillation(processor, inner=Mlm(processor), teacher=other)
    with pytest.raises(InvalidInput, match=r"alpha is 1\.5"):
        Distillation(processor, inner=made.inner, teacher=model, alpha=1.5)


@pytest.mark.parametrize("padded", ["teacher", "student"])
def test_rows_that_pad_a_vocabulary_are_not_compared(tmp_path, padded):
    size = len(tiny.wordpieces())
    plain = tiny.load("bert-words")
    wide = triarch.load(tiny.write_checkpoint(tmp_path, "bert", "BertForMaskedLM", vocab_size=size + 8))
    teacher, student = (wide, plain) if padded == "teacher" else (plain, wide)
    made = Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher, alpha=1.0, temperature=1.0)
    batch = made.batch(examples_of(made))
    scores = made.forward(student, batch)
    chosen = batch.targets["words"] != IGNORED
    with torch.no_grad():
        ours, theirs = (
            model(**batch.inputs).logits[chosen][:, :size].log_softmax(-1).double() for model in (student, teacher)
        )
    wanted = (theirs.exp() * (theirs - ours)).sum()
    torch.testing.assert_close(made.losses(scores, batch)["distillation"].double(), wanted, atol=1e-4, rtol=1e-4)


def test_a_teacher_without_a_tokenizer_has_as_many_tokens(tmp_path):
    student = tiny.load("bert-words")
    for extra in (8, 0):
        folder = tiny.write_checkpoint(tmp_path / str(extra), "bert", "BertForMaskedLM", vocab_size=298 + extra)
        for name in ("vocab.txt", "tokenizer_config.json"):
            (folder / name).unlink()
        teacher = triarch.load(folder)
        if extra:
            with pytest.raises(InvalidInput, match="no tokenizer, and 306 tokens where the model has 298"):
                Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)
        else:
            Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)


def test_a_teacher_that_takes_fewer_tokens_sees_no_more(tmp_path):
    student = tiny.load("bert-words")
    teacher = triarch.load(tiny.write_checkpoint(tmp_path, "bert", "BertForMaskedLM", max_position_embeddings=32))
    with pytest.raises(InvalidInput, match="the teacher takes 32 tokens, mlm shows it up to 64; set the option max"):
        Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)
    made = Distillation(student.processor, inner=Mlm(student.processor, max_tokens=32), teacher=teacher)
    assert math.isfinite(float(loss_of(made, student, examples_of(made)).detach()))


def test_a_teacher_of_another_family_teaches(tmp_path):
    teacher = tiny.load("bert-words")
    student = tiny.load("distilbert-words")
    for one, other in ((teacher, student), (student, teacher)):
        made = Distillation(other.processor, inner=Mlm(other.processor), teacher=one)
        assert math.isfinite(float(loss_of(made, other, examples_of(made)).detach()))
