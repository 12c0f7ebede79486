"""Folders as sentence-transformers writes them."""

import json

import numpy as np
from safetensors.numpy import save

import tiny


def sentence_encoder(folder, **files):
    """A tiny encoder with modules.json, and files beside it as objects or bytes."""
    tiny.write_checkpoint(folder, "bert", "BertModel")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    found = {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Tanh"},
        "2_Dense/model.safetensors": save({"linear.weight": DENSE, "linear.bias": DENSE[:, 0].copy()}),
    } | files
    for name, content in found.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


DENSE = np.random.RandomState(0).standard_normal((8, 32)).astype(np.float32)
