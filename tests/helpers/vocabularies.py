"""Tokenizer folders, and SentencePiece models trained on the spot."""

import io
import json

import sentencepiece

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, this is a test of the hello world test.",
    "A café in Ångström, naïve or not, is a café; don't they're it's 123,456.78!",
    "It is what it is:  the question and the answer and the question.",
]
AS_IT_STANDS = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def train(**options):
    model = io.BytesIO()
    options |= {"hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3), model_writer=model, user_defined_symbols=["<usr>"], **options
    )
    return model.getvalue()


def write(folder, **files):
    """A tokenizer folder: JSON for dicts and lists, text and bytes as they are; `vocab_txt` is vocab.txt."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        data = content if isinstance(content, str | bytes) else json.dumps(content, ensure_ascii=False)
        (folder / f"{stem}.{suffix}").write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder
