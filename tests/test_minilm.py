"""all-MiniLM-L6-v2 itself, from the package that `make demo` installs, against the reference."""

import numpy as np
import pytest
import torch
import transformers

import triarch
from triarch.tour import bundled_model, bundled_sentences


@pytest.fixture(scope="module")
def texts():
    return [sentence.text for sentence in bundled_sentences()]


def test_vectors_are_those_of_the_reference(texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled_model())
    model = transformers.AutoModel.from_pretrained(bundled_model()).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state  # (N, T, D)
    mask = batch["attention_mask"][..., None]
    wanted = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    got = triarch.pipeline("embedding", model=bundled_model(), device="cpu")(texts)
    np.testing.assert_allclose(np.stack(got), wanted.numpy(), atol=1e-5)


def test_tokens_are_those_of_the_reference(texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled_model())
    processor = triarch.load(bundled_model(), device="cpu").processor
    assert [processor.encode(text).ids for text in texts] == tokenizer(texts)["input_ids"]
