"""Heads as declarations: what is asked of one is declared, and none needs a model to be chosen."""

import pytest
import torch

from triarch.checkpoint import choose
from triarch.models import families, family

CASES = [(name, head) for name in families() for head in family(name).heads]


@pytest.mark.parametrize("name, head", CASES)
def test_the_names_of_a_head_are_those_of_its_model(name, head):
    kind = family(name)
    outline, declared = kind.outline(kind.tiny, head), kind.heads[head]
    shared = {id(tensor) for part, tensor in outline.named_parameters() if not part.startswith("head.")}
    optional = tuple(f"head.{part}." for part in declared.optional)
    tensors = {**dict(outline.named_parameters()), **dict(outline.named_buffers())}
    wanted = [n for n, t in tensors.items() if n.startswith("head.") and id(t) not in shared]
    assert sorted(kind.head_names(kind.tiny, head)) == sorted(n for n in wanted if not n.startswith(optional))


def test_choosing_a_head_builds_no_model(monkeypatch):
    kind = family("bert")
    monkeypatch.setattr(type(kind), "outline", None)
    monkeypatch.setattr(kind.module, "Model", None)
    entries = dict.fromkeys(
        ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    )
    config = kind.config({"architectures": ["BertForNothing"]})
    assert choose.choose(kind, config, entries, ["LabelScores"]) == "BertForSequenceClassification"


def test_an_input_too_many_is_refused():
    kind = family("bert")
    model = kind.build(kind.tiny, "BertModel")
    ids = torch.ones(1, 4, dtype=torch.int64)
    with pytest.raises(TypeError, match="input_ids, attention_mask, token_type_ids, each once"):
        model(ids, ids, ids, ids)
    with pytest.raises(TypeError, match="each once"):
        model(ids, input_ids=ids)
