"""Tiny checkpoints of every family, made by formula: the same numbers in any environment, and no binary file in git.

`tests/goldens/make.py` fills the reference's models from here, and the tests fill ours, by the same names. So only
numpy, the standard library and what needs no more are imported at the top.
"""

import json
import re
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import wire

SENTENCES = """
The quick brown fox jumps over the lazy dog.
Paris is the capital of France, and London is the capital of England.
Ada Lovelace lived in London and wrote the first program for a machine that was never built.
My name is Wolfgang and I live in Berlin, where I work for a small company.
What a lovely day! I love this film; it is the best that I have seen in years.
This is a terrible, boring story, and I hate every minute of it.
Who wrote the book? When was it written? Where did she live, and why?
The striker scored twice before the end of the game.
Parliament will vote on the new law on Tuesday.
The café in Zürich was closed, but the señor said "come again"!
Prices rose 12.5% in 1999 (and fell in 2001).
This example is about sports. This text is about politics, science or cooking.
""".strip().split("\n")

PIECES = ("ing", "ed", "s", "er", "est", "ly", "tion", "ness", "men")
ACCENTED = "éèüñçßö"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]_{|}~"
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SHAPES = {  # what config.json of each family says of the model's size; all take 64 tokens
    "bert": SIZES,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    "roberta": SIZES | {"max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
}
SHAPES["xlm-roberta"] = SHAPES["roberta"]
SHAPES["bart"] = {
    "d_model": 32,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
    "max_position_embeddings": 64,
}
SHAPES["marian"] = SHAPES["bart"] | {"scale_embedding": True, "activation_function": "swish"}
SHAPES["t5"] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
SHAPES["gpt2"] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 2}
MAX_TOKENS = 64
TOKENIZERS = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "bart": "BartTokenizer",
    "t5": "T5Tokenizer",
    "marian": "MarianTokenizer",
}

GOLDENS = Path(__file__).parents[1] / "goldens"
VOCABULARY = GOLDENS / "vocab"  # byte-level BPE, trained on SENTENCES by make.py


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that a checkpoint holds under `name`: float32, such that answers are clear and depend on the input."""
    name = name.replace(".decoder.bias", ".bias")  # two names of one tensor
    name = re.sub(r"^transformer\.(h|ln_f|wte|wpe)\.", r"\1.", name)  # GPT-2's, which has them too
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if re.search(r"(norm|layernorm_embedding|\bln_\w+)\.weight$", name, re.IGNORECASE):
        return 1 + 0.1 * normal
    if re.search(r"(classifier|out_proj|qa_outputs)\.weight$", name):  # the last layer of a head
        return 0.5 * normal
    if len(shape) == 1 or re.search(r"(position|token_type)_embeddings", name):
        return 0.1 * normal
    return 0.3 * normal


def words() -> list[str]:
    """Every word of SENTENCES, as it stands and in lower case, without accents there."""
    found = set(re.findall(r"\w+", " ".join(SENTENCES)))
    return sorted(found | {word.lower().translate(str.maketrans("éèüñç", "eeunc")) for word in found})


def wordpieces() -> list[str]:
    """The lines of vocab.txt."""
    letters = [*CHARACTERS, *ACCENTED]
    pieces = [f"##{piece}" for piece in [*letters, *PIECES]]
    ordered = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PUNCTUATION, *letters, *pieces, *words()]
    return list(dict.fromkeys(ordered))


def scored() -> list[list]:
    """Pieces of Unigram models with their scores: longer ones are likelier than their letters."""
    letters = [*CHARACTERS, *ACCENTED, *PUNCTUATION]
    pieces = [*letters, "▁", *(f"▁{word}" for word in words()), *PIECES]
    return [[piece, -8 - 2 / len(piece) - i / 1000] for i, piece in enumerate(dict.fromkeys(pieces))]


def unigrams(
    specials: tuple[str, ...] = ("<s>", "<pad>", "</s>", "<unk>"),
    last: tuple[str, ...] = ("<mask>",),
    single: str = "<s> A </s>",
    pair: str = "<s> A </s> </s> B </s>",
) -> dict:
    """A tokenizer.json in the manner of XLM-R, or of T5."""
    vocabulary = [*([special, 0.0] for special in specials), *scored(), *([special, 0.0] for special in last)]
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    ids = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    ends = [token for token in ("<s>", "</s>") if token in ids]
    around = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ends}

    def frame(parts: str) -> list[dict]:
        kinds = {part: "Sequence" if part in "AB" else "SpecialToken" for part in parts.split()}
        return [{kinds[part]: {"id": part, "type_id": 0}} for part in parts.split()]

    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "lstrip": token == "<mask>", **flags} for token in [*specials, *last]
        ],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": frame(single),
            "pair": frame(pair),
            "special_tokens": around,
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocabulary, "byte_fallback": False},
    }


def spm() -> bytes:
    """The same pieces as a SentencePiece model, of one language of a translator."""
    specials = [wire.piece("<unk>", 0.0, 2), wire.piece("<s>", 0.0, 3), wire.piece("</s>", 0.0, 3)]
    common = [wire.piece(piece, score) for piece, score in scored()]
    return wire.message(f1=[*specials, *common], f2=wire.message(f3=1))


def write_files(
    folder: Path,
    model_type: str,
    architecture: str,
    *,
    labels: list[str] | None = None,
    lowercase: bool = True,
    add_prefix_space: bool = False,
    chat_template: str | None = None,
    **config: object,
) -> None:
    """config.json, with `labels` as the names of the classes, and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"model_max_length": MAX_TOKENS, "tokenizer_class": TOKENIZERS[model_type]}
    if chat_template is not None:
        settings["chat_template"] = chat_template
    if model_type in ("bert", "distilbert"):
        lines = wordpieces()
        count = len(lines)
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        settings["do_lower_case"] = lowercase
    elif model_type in ("roberta", "bart", "gpt2"):
        for name in ("vocab.json", "merges.txt"):
            (folder / name).write_bytes((VOCABULARY / name).read_bytes())
        count = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
        settings["add_prefix_space"] = add_prefix_space
        if model_type == "gpt2":
            settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    elif model_type == "marian":
        for name in ("source.spm", "target.spm"):
            (folder / name).write_bytes(spm())
        pieces = ["</s>", "<unk>", *(piece for piece, _ in scored()), "<pad>"]
        count = len(pieces)
        table = {piece: i for i, piece in enumerate(pieces)}
        (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
        settings |= {"source_lang": "en", "target_lang": "fr"}
        config = {
            "pad_token_id": count - 1,
            "decoder_start_token_id": count - 1,
            "bad_words_ids": [[count - 1]],
        } | config
    else:
        pipeline = unigrams()
        if model_type == "t5":
            pipeline = unigrams(("<pad>", "</s>", "<unk>"), (), "A </s>", "A </s> B </s>")
            settings["extra_ids"] = 0
        count = len(pipeline["model"]["vocab"])
        (folder / "tokenizer.json").write_text(json.dumps(pipeline, ensure_ascii=False), encoding="utf-8")
    if labels is not None:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    named = {"model_type": model_type, "architectures": [architecture], "vocab_size": count}
    raw = named | SHAPES[model_type] | config
    (folder / "config.json").write_text(json.dumps(raw, indent=2), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def write_checkpoint(folder: Path, model_type: str, architecture: str, **config: object) -> Path:
    """A whole folder for `triarch.load`."""
    import torch

    from triarch.models import family
    from triarch.weights import files, table

    write_files(folder, model_type, architecture, **config)
    kind = family(model_type)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = kind.outline(kind.config(raw), architecture)
    names = table.export(model, kind.weights)
    files.write({name: torch.from_numpy(values(name, tuple(meta.shape))) for name, meta in names.items()}, folder)
    return folder


TAGS = ["B-MISC", "B-LOC", "I-PER", "I-LOC", "B-PER", "I-ORG", "B-ORG", "O", "I-MISC"]
CHAT_TEMPLATE = (
    "{% if tools %}Tools:{% for tool in tools %} {{ tool.name }}{% endfor %}\n{% endif %}"
    "{% for document in documents or [] %}{{ document.title }}\n{% endfor %}{% if loud %}!{% endif %}"
    "{% for message in messages %}{{ bos_token }}{{ message.role }}: {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant: {% endif %}"
)
NLI = ["contradiction", "neutral", "entailment"]
# What checkpoints say of generating; lengths in config.json, or the reference's own go before those of a task
NEWS = {"early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "num_beams": 4}
BART_TASKS = {
    "max_length": 24,
    "forced_bos_token_id": 0,
    "task_specific_params": {"summarization": {**NEWS, "max_length": 19, "min_length": 6}},
}
MARIAN_TASK = {"eos_token_id": 0, "forced_eos_token_id": 0, "num_beams": 4, "max_length": 24}
T5_TASKS = {
    "max_length": 30,
    "task_specific_params": {
        "summarization": {**NEWS, "max_length": 18, "min_length": 5, "prefix": "summarize: "},
        "translation_en_to_de": {"num_beams": 4, "max_length": 16, "prefix": "translate English to German: "},
        "translation_en_to_fr": {"num_beams": 2, "max_length": 22, "prefix": "translate English to French: "},
    },
}

# By name, the arguments of `write_checkpoint`
MODELS: dict[str, dict] = {
    "bert": {"model_type": "bert", "architecture": "BertModel"},
    "distilbert": {"model_type": "distilbert", "architecture": "DistilBertModel"},
    "roberta": {"model_type": "roberta", "architecture": "RobertaModel"},
    "bert-words": {"model_type": "bert", "architecture": "BertForMaskedLM"},
    "distilbert-words": {"model_type": "distilbert", "architecture": "DistilBertForMaskedLM"},
    "roberta-words": {"model_type": "roberta", "architecture": "RobertaForMaskedLM"},
    "xlm-roberta-words": {"model_type": "xlm-roberta", "architecture": "XLMRobertaForMaskedLM"},
    "bert-labels": {
        "model_type": "bert",
        "architecture": "BertForSequenceClassification",
        "labels": ["negative", "neutral", "positive"],
    },
    "bert-multi-label": {
        "model_type": "bert",
        "architecture": "BertForSequenceClassification",
        "labels": ["toxic", "rude", "threat", "joke"],
        "problem_type": "multi_label_classification",
    },
    "bert-regression": {
        "model_type": "bert",
        "architecture": "BertForSequenceClassification",
        "labels": ["stars"],
        "problem_type": "regression",
    },
    "bert-one-label": {"model_type": "bert", "architecture": "BertForSequenceClassification", "labels": ["relevant"]},
    "distilbert-labels": {"model_type": "distilbert", "architecture": "DistilBertForSequenceClassification"},
    "roberta-labels": {
        "model_type": "roberta",
        "architecture": "RobertaForSequenceClassification",
        "labels": ["LABEL_0", "LABEL_1", "LABEL_2"],
    },
    "bert-nli": {"model_type": "bert", "architecture": "BertForSequenceClassification", "labels": NLI},
    "distilbert-nli": {
        "model_type": "distilbert",
        "architecture": "DistilBertForSequenceClassification",
        "labels": ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"],
    },
    "roberta-nli": {
        "model_type": "roberta",
        "architecture": "RobertaForSequenceClassification",
        "labels": ["not_entailment", "entailment"],
    },
    "xlm-roberta-nli": {
        "model_type": "xlm-roberta",
        "architecture": "XLMRobertaForSequenceClassification",
        "labels": NLI,
    },
    "bert-tags": {"model_type": "bert", "architecture": "BertForTokenClassification", "labels": TAGS},
    "bert-cased-tags": {
        "model_type": "bert",
        "architecture": "BertForTokenClassification",
        "labels": ["NOUN", "O", "X-ADJ", "VERB", "ADP"],
        "lowercase": False,
    },
    "distilbert-tags": {
        "model_type": "distilbert",
        "architecture": "DistilBertForTokenClassification",
        "labels": ["O", "I-PER", "I-LOC", "MISC"],
    },
    "roberta-tags": {
        "model_type": "roberta",
        "architecture": "RobertaForTokenClassification",
        "labels": TAGS,
        "add_prefix_space": True,
    },
    "xlm-roberta-tags": {
        "model_type": "xlm-roberta",
        "architecture": "XLMRobertaForTokenClassification",
        "labels": TAGS,
    },
    "bert-qa": {"model_type": "bert", "architecture": "BertForQuestionAnswering"},
    "distilbert-qa": {"model_type": "distilbert", "architecture": "DistilBertForQuestionAnswering"},
    "roberta-qa": {"model_type": "roberta", "architecture": "RobertaForQuestionAnswering"},
    "bert-next": {"model_type": "bert", "architecture": "BertForNextSentencePrediction"},
    "bert-pretraining": {"model_type": "bert", "architecture": "BertForPreTraining"},
    "bart": {"model_type": "bart", "architecture": "BartForConditionalGeneration", **BART_TASKS},
    "bart-labels": {"model_type": "bart", "architecture": "BartForSequenceClassification"},
    "bart-nli": {"model_type": "bart", "architecture": "BartForSequenceClassification", "labels": NLI},
    "bart-qa": {"model_type": "bart", "architecture": "BartForQuestionAnswering"},
    "marian": {"model_type": "marian", "architecture": "MarianMTModel", **MARIAN_TASK},
    "t5": {"model_type": "t5", "architecture": "T5ForConditionalGeneration", **T5_TASKS},
    "gpt2": {"model_type": "gpt2", "architecture": "GPT2LMHeadModel"},
    "gpt2-chat": {"model_type": "gpt2", "architecture": "GPT2LMHeadModel", "chat_template": CHAT_TEMPLATE},
    "gpt2-long": {"model_type": "gpt2", "architecture": "GPT2LMHeadModel", "n_positions": 512},
}


@cache
def load(name: str) -> Any:
    """The model of that name, as `triarch.load` gives it. It is shared: no test may change it."""
    import triarch

    with tempfile.TemporaryDirectory() as folder:
        return triarch.load(write_checkpoint(Path(folder), **MODELS[name]))
