"""What the peft library gives for low-rank adapters on the tiny models of tests/tiny.py.

    python -m venv /tmp/peft
    /tmp/peft/bin/pip install torch==2.13.0
    /tmp/peft/bin/pip install transformers==5.23.0 peft==0.21.2
    /tmp/peft/bin/python tests/goldens/make_adapters.py

Writes tests/goldens/peft/<model>.json, one for each of MODELS: {"config", "shapes", "inputs", "scores"}, where `config`
is the adapter_config.json that peft wrote, `shapes` those of the tensors in its file, whose values are `tiny.values` of
their names, and `scores` the first COLUMNS of the logits of each row or token. triarch is not imported.
"""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import tiny  # noqa: E402

COLUMNS = 5  # of words there are too many to keep
BERT = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
MODELS = {  # what is adapted, and which modules are saved whole
    "bert-labels": {"task_type": "SEQ_CLS", "target_modules": BERT, "modules_to_save": ["bert.pooler", "classifier"]},
    "distilbert-tags": {"task_type": "TOKEN_CLS", "target_modules": ["q_lin", "lin2"], "use_rslora": True},
    "bert-words": {"target_modules": ["value"], "modules_to_save": None},
    "gpt2": {"task_type": "CAUSAL_LM", "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
}


def fill(model: torch.nn.Module) -> torch.nn.Module:
    """Put every trainable tensor by formula, under the name that it has in a file."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.requires_grad:
                stored = name.replace(".default", "").replace(".modules_to_save", "")
                tensor.copy_(torch.from_numpy(tiny.values(stored, tuple(tensor.shape))))
    return model.eval()


def answers(name: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_files(Path(folder), **tiny.MODELS[name])
        config = transformers.AutoConfig.from_pretrained(folder)
        base = fill(getattr(transformers, config.architectures[0])(config))
        adapted = fill(get_peft_model(base, LoraConfig(r=4, lora_alpha=6, **MODELS[name])))
        adapted.save_pretrained(folder)
        shapes = {key: [*tensor.shape] for key, tensor in load_file(f"{folder}/adapter_model.safetensors").items()}
        written = json.loads((Path(folder) / "adapter_config.json").read_text()) | {"base_model_name_or_path": name}
    inputs = {"input_ids": [[2, 40, 51, 62, 73, 3], [2, 84, 95, 3, 0, 0]]}
    inputs["attention_mask"] = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
    with torch.no_grad():
        logits = adapted(**{key: torch.tensor(rows) for key, rows in inputs.items()}).logits
    return {"config": written, "shapes": shapes, "inputs": inputs, "scores": logits[..., :COLUMNS].tolist()}


for name in MODELS:
    path = HERE / "peft" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answers(name), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(path, path.stat().st_size)
