"""Vectors of texts: the loss, the recipe of a sentence encoder, negatives, and what is measured."""

import copy
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
import triarch
from encoders import sentence_encoder
from material import S, examples_of, loss_of
from triarch.errors import InvalidInput, Unsupported
from triarch.layers.pooling import POOLINGS
from triarch.objectives.contrastive import Contrastive
from triarch.objectives.mlm import Mlm


def vectors(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_contrastive_loss_is_that_of_its_formula(processor):
    rows = [{"anchor": "a", "positive": "b", "negative": "c"}, {"anchor": "d", "positive": "e"}]
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    scores = F.normalize(x, dim=-1)
    anchors, candidates = scores[[0, 3]], scores[[1, 4, 2]]
    logits = anchors @ candidates.T / 0.1
    forth = F.cross_entropy(logits, torch.arange(2))
    back = F.cross_entropy(logits[:, :2].T, torch.arange(2))
    for symmetric, wanted in ((False, forth), (True, (forth + back) / 2)):
        made = Contrastive(processor, temperature=0.1, symmetric=symmetric)
        batch = made.batch([e for row in rows for e in made.examples(row)])
        torch.testing.assert_close(made.losses(scores, batch)["contrastive"] / batch.counts["contrastive"], wanted)


def test_vectors_are_the_embedding_tasks():
    model = tiny.load("bert")
    made = Contrastive(model.processor)
    texts = [S[0], " ".join(S), S[2], S[3]]  # the second in windows
    rows = [{"anchor": texts[0], "positive": texts[1]}, {"anchor": texts[2], "positive": texts[3]}]
    with torch.no_grad():
        found = made.forward(model, made.batch([e for row in rows for e in made.examples(row)]))
    wanted = triarch.pipeline("embedding", model)(texts, normalize=True)
    np.testing.assert_allclose(found.numpy(), np.stack(wanted), atol=1e-5)


def recipe_files(pooling=("cls_token",), **files):
    """Files beside an encoder as those of bge have it: the first token, and prompts."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("3_Normalize", "Normalize")]
    include = files.pop("include_prompt", True)
    flags = {f"pooling_mode_{name}": True for name in pooling} | {"include_prompt": include}
    return {
        "modules.json": [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules],
        "1_Pooling/config.json": flags,
        "config_sentence_transformers.json": {"prompts": {"query": "Who wrote it? ", "document": "This is: "}},
    } | files


RECIPES = {name: recipe_files((name,)) for name in POOLINGS}
RECIPES["two end to end"] = recipe_files(("mean_tokens", "max_tokens"))
RECIPES["short and in lower case"] = recipe_files(
    **{"sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": True}}
)
DEFAULT = {"config_sentence_transformers.json": {"prompts": {"q": "Who, and why? "}, "default_prompt_name": "q"}}
RECIPES["a default prompt"] = recipe_files(**DEFAULT)
RECIPES["a prompt that is not pooled"] = recipe_files(("mean_tokens",), include_prompt=False, **DEFAULT)


def learned_vectors(model, texts, **options):
    """Of pairs of texts, by the objective."""
    made = Contrastive(model.processor, **options)
    made.attach(model)
    rows = [{"anchor": texts[i], "positive": texts[i + 1]} for i in range(0, len(texts), 2)]
    with torch.no_grad():
        return made.forward(model, made.batch([e for row in rows for e in made.examples(row)])).numpy()


@pytest.mark.parametrize("files", RECIPES.values(), ids=RECIPES)
def test_what_is_learned_is_what_the_embedding_task_gives(tmp_path, files):
    model = triarch.load(sentence_encoder(tmp_path, **files))
    texts = [S[0], " ".join(S), S[2], "A b"]  # the second in windows
    wanted = triarch.pipeline("embedding", model)(texts, normalize=True)
    np.testing.assert_allclose(learned_vectors(model, texts), np.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("anchor, positive", [("query", "document"), ("query: ", "passage: "), ("", "Who? ")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_go_before_anchors_and_positives(tmp_path, anchor, positive, include_prompt):
    model = triarch.load(sentence_encoder(tmp_path, **recipe_files(("mean_tokens",), include_prompt=include_prompt)))
    found = learned_vectors(model, S[:4], anchor_prompt=anchor, positive_prompt=positive)
    embed = triarch.pipeline("embedding", model)
    prompts = [embed.recipe.prompts.get(prompt, prompt) for prompt in (anchor, positive)]
    wanted = [embed(text, prompt=prompts[i % 2], normalize=True) for i, text in enumerate(S[:4])]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)
    plain = learned_vectors(model, S[:4])
    assert np.abs(found - plain)[1::2].max() > 1e-3


def test_a_prompt_that_the_model_does_not_have_comes_with_the_nearest(tmp_path):
    model = triarch.load(sentence_encoder(tmp_path, **recipe_files()))
    with pytest.raises(InvalidInput, match=r"no prompt 'qury' \(did you mean query\?\)"):
        learned_vectors(model, S[:2], anchor_prompt="qury")


def test_dense_layers_after_pooling_are_not_trained(tmp_path):
    model = triarch.load(sentence_encoder(tmp_path))
    with pytest.raises(Unsupported, match=r"Dense layers after pooling \(1\), which are not trained here"):
        Contrastive(model.processor).attach(model)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_do_not_depend_on_padding(name):
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
    alone = [POOLINGS[name](x[i : i + 1, row], row[row][None]) for i, row in enumerate(mask)]
    torch.testing.assert_close(POOLINGS[name](x, mask), torch.cat(alone))


def test_cosines_keep_their_precision_under_autocast(processor):
    made = Contrastive(processor)
    batch = made.batch([e for i in range(8) for e in made.examples({"anchor": f"a {i}", "positive": f"b {i}"})])
    scores = F.normalize(torch.randn(16, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = made.losses(scores, batch)["contrastive"]
    torch.testing.assert_close(found, made.losses(scores, batch)["contrastive"], atol=1e-6, rtol=1e-6)


def test_rows_with_their_own_negatives_can_stand_alone(processor):
    made = Contrastive(processor)
    assert (made.least, Mlm(processor).least) == (2, 1)
    row = {"anchor": "a", "positive": "b"}
    made.prepare([row | {"negative": "c"}, row | {"negative": ["d"]}])
    assert made.least == 1
    made.prepare([row | {"negative": "c"}, row | {"negative": []}])
    assert made.least == 2


def test_a_large_batch_is_compared_in_no_time(processor):
    made = Contrastive(processor)
    examples = [e for i in range(2000) for e in made.examples({"anchor": f"a {i // 2}", "positive": f"b {i}"})]
    started = time.process_time()
    allowed = made.batch(examples).targets["allowed"]
    assert time.process_time() - started < 2
    assert allowed.sum() == 2000 * 2000 - 2000  # each anchor has another positive


def test_the_same_text_is_no_negative(processor):
    made = Contrastive(processor)
    rows = [
        {"anchor": "a", "positive": "b", "negative": "d"},
        {"anchor": "c", "positive": "b", "negative": "e"},
        {"anchor": "a", "positive": "e", "negative": "a"},
    ]
    allowed = made.batch([e for row in rows for e in made.examples(row)]).targets["allowed"]
    # b, b, e, then d, e, a
    assert allowed.int().tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]]


def test_retrieval_is_measured_over_all_batches(processor):
    made = Contrastive(processor)
    rows = [{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(4)] + [{"anchor": "a0", "positive": "p4"}]
    batches = [made.batch(made.examples(row)) for row in rows]
    anchors = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]
    positives = [[1, 0, 0.1], [0.1, 1, 0], [0, 0, 1], [0, -1, 1], [1, 0.3, 0]]
    outcomes = []
    for batch, anchor, positive in zip(batches, anchors, positives, strict=True):
        outcomes += made.outcomes(vectors(anchor, positive), batch)
    # The fourth finds its own last; the others first, as p0 and p4 do not stand in each other's way
    assert made.measure(outcomes) == pytest.approx({"mrr": (4 + 1 / 5) / 5, "recall@1": 0.8, "recall@10": 1.0})


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "a"},
        {"anchor": "a", "positive": ""},
        {"anchor": "a", "positive": "b", "negative": [3]},
        {"positive": "b"},
    ],
)
def test_rows_without_a_pair_of_texts(row, processor):
    with pytest.raises(InvalidInput, match=r"anchor|positive|negative"):
        Contrastive(processor).examples(row)


def test_gradients_reach_the_model_from_all_texts():
    model = copy.deepcopy(tiny.load("bert"))
    made = Contrastive(model.processor)
    loss_of(made, model, examples_of(made)).backward()
    grad = model.embeddings.token.weight.grad
    ids = {id_ for example in examples_of(made) for id_ in example.ids}
    assert set(grad.abs().sum(-1).nonzero().flatten().tolist()) == ids
