"""Tiny vocabularies of translators: a SentencePiece model for each language, and tables of ids."""

import io
import json

import sentencepiece

ENGLISH = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, this is a test of the hello world test.",
    "It is what it is: the question and the answer and the question.",
    "A café is closed; don't they say it's 123,456.78?",
]
FRENCH = [
    "Le renard brun saute par-dessus le chien paresseux.",
    "Bonjour le monde, ceci est un essai du monde entier.",
    "C'est ce que c'est : la question et la réponse à la question.",
    "Où est le château ? L'été, les garçons naïfs y dorment 456 fois.",
]


def train(sentences, **options):
    """The bytes of a SentencePiece model."""
    model = io.BytesIO()
    options = {"vocab_size": 120, "hard_vocab_limit": False, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences * 3), model_writer=model, **options)
    return model.getvalue()


def pieces(*models):
    """The pieces of models but <s>, in the order in which Marian's tables have them."""
    found = ["</s>", "<unk>", "<pad>"]  # of one id in both tables, or the reference's decoding leaves other words out
    for data in models:
        package = sentencepiece.SentencePieceProcessor(model_proto=data)
        found += [package.id_to_piece(i) for i in range(3, package.piece_size())]
    return list(dict.fromkeys(found))


def table(*tokens):
    return json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)


def write(folder, source, target, *, codes=(), left_out=(), apart=False, **settings):
    """The files of a translator's tokenizer; `left_out` pieces are in no table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    sides = [pieces(source), pieces(target)] if apart else [pieces(source, target)]
    for name, found in zip(("vocab.json", "target_vocab.json"), sides, strict=False):
        kept = [token for token in found if token not in left_out]
        (folder / name).write_text(table(*kept, *codes), encoding="utf-8")
    settings = {"source_lang": "en", "target_lang": "fr", "model_max_length": 512, "separate_vocabs": apart} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
