"""What transformers 4.49.0, one of the last versions with every way to search, generates with tiny models.

    python -m venv /tmp/searches
    /tmp/searches/bin/pip install torch==2.13.0 transformers==4.49.0 'numpy<2.3'
    /tmp/searches/bin/python tests/goldens/make_generation.py [MODEL]...

Writes tests/goldens/searches/<model>.json, of a model of tests/tiny.py: a list of {"prompt", "options", "ids",
"scores"}; `scores` are those of beams. triarch is not imported, and need not be installed.

Where the reference does not find enough sequences with the phrases that are forced, it returns others without a word,
or such as forced_eos_token_id of a config rules out. These answers are left out.
"""

import json
import math
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import torch  # noqa: E402
import transformers  # noqa: E402

import tiny  # noqa: E402

PROMPTS = [[85, 17, 142, 68, 261], [9, 303], [77, 312, 30, 231, 32, 333, 90, 15, 15]]
MODELS = ("gpt2", "bart", "t5", "marian")
END = 105
# The end comes often; nothing is what pads ended groups in the reference, which counts as chosen there
ENDING = {"eos_token_id": END, "sequence_bias": [[[END], 2.5]], "suppress_tokens": [1], "max_new_tokens": 10}

DIVERSE = [
    {"num_beams": beams, "num_return_sequences": beams, "num_beam_groups": groups, "diversity_penalty": penalty}
    for beams, groups in ((2, 2), (4, 2), (6, 3), (4, 4))
    for penalty in (0.3, 1.0, 5.0)
]
DIVERSE_CHANGES: list[dict[str, Any]] = [
    {},
    {"length_penalty": 0.0},
    {"length_penalty": 2.0, "early_stopping": True, "max_new_tokens": 16},
    {"early_stopping": "never"},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 6},
]
FORCED: list[list[Any]] = [
    [[200]],
    [[200, 201, 202]],
    [[200, 201], [150]],
    [[150, 151], [160, 161, 162]],
    [[[200, 201], [210]]],
    [[[200, 201, 202], [210, 211]], [150]],
    [[[200], [210]], [[150, 151], [160, 161]]],
]
OFTEN = {"sequence_bias": [[[END], 5.0]], "max_new_tokens": 16}
FORCED_CHANGES: list[dict[str, Any]] = [
    {},
    {"num_return_sequences": 2} | OFTEN,
    {"num_beams": 6, "length_penalty": 0.5, "early_stopping": True} | OFTEN,
    {"num_beams": 8, "num_return_sequences": 3} | OFTEN,
    {"num_beams": 2, "length_penalty": 2.0, "early_stopping": "never"} | OFTEN,
    {"repetition_penalty": 1.5} | OFTEN,
]
CONTRASTIVE_CHANGES: list[dict[str, Any]] = [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}]

CONTRASTIVE = [
    {"num_beams": 1, "penalty_alpha": alpha, "top_k": top_k} for alpha, top_k in product((0.2, 0.6, 0.9), (2, 5, 16))
]


def cases(few: bool) -> list[dict[str, Any]]:
    """All, or of each way to search every third setting."""
    step = 3 if few else 1
    return [
        *(ENDING | diverse | change for diverse, change in product(DIVERSE[::step], DIVERSE_CHANGES)),
        *(
            ENDING | {"force_words_ids": forced, "num_beams": 4} | change
            for forced, change in product(FORCED[::step], FORCED_CHANGES)
        ),
        *(ENDING | contrastive | change for contrastive, change in product(CONTRASTIVE[::step], CONTRASTIVE_CHANGES)),
    ]


def load(name: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_files(Path(folder), **tiny.MODELS[name])
        config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, tiny.MODELS[name]["architecture"])(config).eval()
    learned = [one for one in model.named_parameters() if one[1].requires_grad]
    with torch.no_grad():
        for key, tensor in (*learned, *(one for one in model.named_buffers() if one[0] == "final_logits_bias")):
            tensor.copy_(torch.from_numpy(tiny.values(key, tuple(tensor.shape))))
    return model


def run(model: Any, prompt: list[int], options: dict[str, Any]) -> dict[str, Any]:
    pad = 1 if model.config.pad_token_id is None else model.config.pad_token_id
    options = options | {"suppress_tokens": [pad]}
    prompt = [token % model.config.vocab_size for token in prompt]
    written = {"prompt": prompt, "options": json.loads(json.dumps(options))}
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        pad_token_id=pad,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    given = 1 if model.config.is_encoder_decoder else len(prompt)
    ids = [[token for token in row[given:].tolist() if token != pad] for row in found.sequences]
    scores = [round(score, 6) for score in found.sequences_scores.tolist()] if options["num_beams"] > 1 else None
    return written | {"ids": ids, "scores": scores}


def kept(answer: dict[str, Any]) -> bool:
    """Whether all phrases that were forced occur, in sequences that the other options do not rule out."""
    if answer["scores"] and min(answer["scores"]) == -math.inf:
        return False
    texts = [" ".join(["", *map(str, ids), ""]) for ids in answer["ids"]]
    forced = [one if isinstance(one[0], list) else [one] for one in answer["options"].get("force_words_ids", [])]
    return all(any(" ".join(["", *map(str, ids), ""]) in text for ids in one) for one in forced for text in texts)


def main() -> None:
    if transformers.__version__ != "4.49.0":
        sys.exit(f"transformers is {transformers.__version__}, wanted 4.49.0; see the top of this file")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    for name in sys.argv[1:] or MODELS:
        model = load(name)
        chosen = enumerate(cases(few=name != "gpt2"))
        answers = [run(model, PROMPTS[number % len(PROMPTS)], options) for number, options in chosen]
        answers = [answer for answer in answers if kept(answer)]
        lines = ",\n".join(json.dumps(answer) for answer in answers)
        target = HERE / "searches" / f"{name}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{name}: {len(answers)} cases")


if __name__ == "__main__":
    main()
