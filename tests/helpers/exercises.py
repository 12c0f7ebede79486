"""Tiny BART, T5, Marian and mBART with vocabularies, for what an encoder–decoder learns."""

import json
from pathlib import Path

import torch

import pairs
import tiny
from triarch.models import family
from triarch.weights import files, table

SENTINELS = 20  # of T5
HEADS = {"bart": "BartForConditionalGeneration", "t5": "T5ForConditionalGeneration", "marian": "MarianMTModel"}
SIZES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
SIZES |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.0}
SHAPES = {
    "bart": SIZES | {"max_position_embeddings": tiny.MAX_TOKENS},
    "marian": SIZES | {"max_position_embeddings": 2 * tiny.MAX_TOKENS},  # its few pieces are short
    "mbart": SIZES | {"max_position_embeddings": 2 * tiny.MAX_TOKENS},
    "t5": {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2, "dropout_rate": 0.0},
}


def _vocabulary(folder: Path, name: str, tokenizer_class: str) -> dict:
    """Write the tokenizer's files; returns what config.json says of it."""
    settings = {"model_max_length": tiny.MAX_TOKENS}
    if name == "bart":
        for file in ("vocab.json", "merges.txt"):
            (folder / file).write_bytes((tiny.VOCABULARY / file).read_bytes())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "BartTokenizer"}))
        ids = json.loads((folder / "vocab.json").read_text())
        end, pad = ids["</s>"], ids["<pad>"]
        named = {"bos_token_id": ids["<s>"], "decoder_start_token_id": end, "forced_eos_token_id": end}
        return {"vocab_size": len(ids), "eos_token_id": end, "pad_token_id": pad} | named
    if name == "marian":
        english, french = pairs.train(pairs.ENGLISH), pairs.train(pairs.FRENCH)
        pairs.write(folder, english, french, apart=True)
        ids, others = (json.loads((folder / file).read_text()) for file in ("vocab.json", "target_vocab.json"))
        end, pad = ids["</s>"], ids["<pad>"]
        sizes = {"vocab_size": len(ids), "decoder_vocab_size": len(others), "share_encoder_decoder_embeddings": False}
        named = {"decoder_start_token_id": pad, "forced_eos_token_id": end}
        return sizes | {"eos_token_id": end, "pad_token_id": pad} | named
    if name == "mbart":
        (folder / "sentencepiece.bpe.model").write_bytes(pairs.train(pairs.ENGLISH + pairs.FRENCH))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
        return {"vocab_size": 250, "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2}
    pipeline = tiny.unigrams()
    ordinary = [piece for piece in pipeline["model"]["vocab"] if not piece[0].startswith("<")]
    specials = ["<pad>", "</s>", "<unk>"]
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)][::-1]  # the last id is the first one's
    vocabulary = [*([token, 0.0] for token in specials), *ordinary, *([token, 0.0] for token in sentinels)]
    ids = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ending = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    both = [*ending, {"Sequence": {"id": "B", "type_id": 0}}, ending[1]]
    special = {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
    template = {"type": "TemplateProcessing", "single": ending, "pair": both, "special_tokens": special}
    pipeline |= {
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in [*specials, *sentinels]],
        "post_processor": template,
        "model": pipeline["model"] | {"vocab": vocabulary, "unk_id": 2},
    }
    (folder / "tokenizer.json").write_text(json.dumps(pipeline, ensure_ascii=False), encoding="utf-8")
    settings |= {"tokenizer_class": "T5Tokenizer", "extra_ids": SENTINELS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {"vocab_size": len(vocabulary), "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0}


def write(folder: Path, name: str, tokenizer_class: str = "", **config: object) -> Path:
    """A whole folder for `triarch.load`; of mBART with the tokenizer of that class."""
    folder.mkdir(parents=True, exist_ok=True)
    head = HEADS.get(name, "MBartForConditionalGeneration")
    raw = {"model_type": name, "architectures": [head]} | SHAPES[name] | _vocabulary(folder, name, tokenizer_class)
    raw |= config
    (folder / "config.json").write_text(json.dumps(raw, indent=2), encoding="utf-8")
    kind = family(name)
    names = table.export(kind.outline(kind.config(raw), head), kind.weights)
    files.write({key: torch.from_numpy(tiny.values(key, tuple(meta.shape))) for key, meta in names.items()}, folder)
    return folder
