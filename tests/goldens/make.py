"""What transformers 4.57.6, the last version with every pipeline, answers on the tiny models of tests/tiny.py.

    python -m venv /tmp/reference
    /tmp/reference/bin/pip install torch==2.13.0 transformers==4.57.6
    /tmp/reference/bin/python tests/goldens/make.py [TASK]...

Writes tests/goldens/<task>.json: a list of {"model", "init", "args", "call", "output"}, where `model` is a name in
`tiny.MODELS`, `init` the keyword arguments of `pipeline()`, and `args` and `call` those of the call. These files are
all that tests/test_goldens.py reads. triarch is not imported, and need not be installed.
"""

import copy
import json
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import torch  # noqa: E402
import transformers  # noqa: E402

import tiny  # noqa: E402

Case = tuple[str, dict, list, dict]  # model, init, args, call


def case(model: str, *args: Any, init: dict | None = None, **call: Any) -> Case:
    return model, init or {}, list(args), call


GOOD, BAD, QUESTION = "What a lovely day!", "This is a terrible, boring story, and I hate it.", "When was it written?"
ACCENTS = "The café in Zürich was closed 😀 — the señor said naïve things about São Paulo."
LONG = " ".join(tiny.SENTENCES)
ADA = "Ada Lovelace lived in London."
WOLFGANG = "My name is Wolfgang and I live in Berlin, where I work for a smallish company."
PAIR = {"text": "The striker scored twice.", "text_pair": "This example is about sports."}

TEXT_CLASSIFICATION = [
    *(case(model, GOOD) for model in ("bert-labels", "distilbert-labels", "roberta-labels")),
    *(case(model, [GOOD, BAD, QUESTION]) for model in ("bert-labels", "distilbert-labels", "roberta-labels")),
    *(case(model, GOOD, top_k=None) for model in ("bert-labels", "distilbert-labels", "roberta-labels")),
    case("bert-labels", ""),
    case("bert-labels", ACCENTS),
    case("bert-labels", [GOOD]),
    case("bert-labels", GOOD, top_k=1),
    case("bert-labels", [GOOD], top_k=1),
    case("bert-labels", [GOOD, BAD], top_k=1),
    case("bert-labels", [GOOD, BAD], top_k=2),
    case("bert-labels", [GOOD, BAD], top_k=None),
    case("bert-labels", GOOD, top_k=3),
    case("bert-labels", GOOD, top_k=7),
    case("bert-labels", GOOD, init={"top_k": None}),
    case("bert-labels", GOOD, init={"top_k": 1}),
    case("bert-labels", [GOOD, BAD], init={"top_k": 2}),
    case("bert-labels", [GOOD, BAD], top_k=1, init={"top_k": 3}),
    case("bert-labels", PAIR),
    case("bert-labels", [PAIR, {"text": GOOD}, {"text": GOOD, "text_pair": BAD}]),
    case("bert-labels", PAIR, top_k=None),
    case("bert-labels", [[["The striker scored twice.", "This example is about sports."]]]),
    case("distilbert-labels", PAIR),
    case("roberta-labels", PAIR),
    case("roberta-labels", [PAIR, PAIR], top_k=2),
    *(case("bert-labels", GOOD, function_to_apply=name, top_k=None) for name in ("sigmoid", "softmax", "none")),
    *(case("bert-labels", [GOOD, BAD], function_to_apply=name) for name in ("sigmoid", "softmax", "none")),
    case("roberta-labels", BAD, init={"function_to_apply": "sigmoid"}),
    case("bert-multi-label", BAD),
    case("bert-multi-label", BAD, top_k=None),
    case("bert-multi-label", [BAD, GOOD], top_k=2),
    case("bert-multi-label", BAD, function_to_apply="softmax", top_k=None),
    case("bert-regression", GOOD),
    case("bert-regression", [GOOD, BAD], top_k=None),
    case("bert-regression", GOOD, function_to_apply="sigmoid"),
    case("bert-one-label", GOOD),
    case("bert-one-label", [GOOD, BAD], top_k=1),
    case("bert-one-label", GOOD, function_to_apply="none"),
    *(case(model, LONG, truncation=True) for model in ("bert-labels", "distilbert-labels", "roberta-labels")),
    case("bert-labels", LONG, truncation=True, max_length=20),
    case("bert-labels", [GOOD, LONG], truncation=True, top_k=None),
    case("bert-labels", LONG, init={"truncation": True, "max_length": 11}),
    case("bert-labels", {"text": LONG, "text_pair": BAD}, truncation="only_first"),
    case("bert-labels", {"text": BAD, "text_pair": LONG}, truncation="only_second"),
    case("bert-labels", {"text": BAD, "text_pair": LONG}, truncation="longest_first"),
    case("bert-labels", {"text": LONG, "text_pair": LONG}, truncation=True),
    case("bert-labels", {"text": LONG, "text_pair": LONG}, truncation=True, max_length=20),
    case("roberta-labels", {"text": LONG, "text_pair": LONG}, truncation=True, max_length=21),
    case("bert-labels", [GOOD, BAD, LONG], truncation=True, padding=True, batch_size=3),
    case("bert-labels", [GOOD, BAD, QUESTION], batch_size=2),
    case("bert-labels", "Ada [SEP] lived [MASK] in [UNK] London [CLS]", top_k=None),
    case("roberta-labels", "Ada </s> lived <mask> in <s> London", top_k=None),
    case("bert-labels", "x" * 150 + " " + GOOD, top_k=None),
    case("bert-labels", [{"text": GOOD, "text_pair": ""}, {"text": GOOD, "text_pair": None}], top_k=None),
    *(
        case(model, {"text": BAD, "text_pair": LONG[:150]}, truncation=True, max_length=most, top_k=None)
        for model in ("bert-labels", "roberta-labels")
        for most in (7, 16, 25, 34)
    ),
    case("bert-labels", {"text": LONG[:150], "text_pair": BAD}, truncation=True, max_length=33, top_k=None),
    case("bert-labels", GOOD, function_to_apply=None),
    case("bert-labels", GOOD, return_all_scores=True),
    case("bert-labels", [GOOD, BAD], return_all_scores=True),
    case("bart-labels", GOOD),
    case("bart-labels", [GOOD, BAD, ACCENTS], top_k=None),
    case("bart-labels", PAIR, top_k=2),
    case("bart-labels", LONG, truncation=True, max_length=20),
    case("bart-labels", GOOD, function_to_apply="sigmoid", top_k=None),
    case("bart-labels", "Ada </s> lived <mask> in <s> London", top_k=None),
]

SUBJECTS = ["politics", "sports", "cooking", "science"]
MATCH = "The striker scored twice before the end of the game."
ZERO_SHOT_CLASSIFICATION = [
    *(case(model, MATCH, candidate_labels=SUBJECTS) for model in ("bert-nli", "distilbert-nli", "roberta-nli")),
    case("xlm-roberta-nli", MATCH, candidate_labels=SUBJECTS),
    case("bert-nli", MATCH, SUBJECTS),
    case("bert-nli", MATCH, "politics, sports,cooking ,science"),
    case("bert-nli", MATCH, candidate_labels="politics,sports"),
    case("bert-nli", MATCH, candidate_labels="sports"),
    case("bert-nli", MATCH, candidate_labels=["sports"]),
    case("bert-nli", MATCH, candidate_labels=["sports"], multi_label=True),
    case("distilbert-nli", MATCH, candidate_labels="sports"),
    case("bert-nli", MATCH, candidate_labels=["sports", "politics", "sports"]),
    case("bert-nli", MATCH, candidate_labels=["  sports ", "new law"]),
    *(
        case(model, MATCH, candidate_labels=SUBJECTS, multi_label=True)
        for model in ("bert-nli", "distilbert-nli", "roberta-nli", "xlm-roberta-nli")
    ),
    case("bert-nli", MATCH, candidate_labels=SUBJECTS, hypothesis_template="This text is about {}."),
    case("roberta-nli", MATCH, candidate_labels=SUBJECTS, hypothesis_template="Is it {}?", multi_label=True),
    case("bert-nli", [MATCH, GOOD, ACCENTS], candidate_labels=SUBJECTS),
    case("bert-nli", [MATCH], candidate_labels=SUBJECTS),
    case("distilbert-nli", [MATCH, BAD], candidate_labels=SUBJECTS, multi_label=True),
    case("bert-nli", MATCH, init={"candidate_labels": SUBJECTS}),
    case("bert-nli", MATCH, init={"candidate_labels": SUBJECTS, "multi_label": True}, candidate_labels=["politics"]),
    case("bert-nli", [MATCH, BAD], init={"hypothesis_template": "It is {}."}, candidate_labels=SUBJECTS),
    # The reference cuts the text, and ours when told to, as `truncation=True` tells both
    case("bert-nli", LONG, candidate_labels=SUBJECTS, truncation=True),
    case("roberta-nli", [LONG, MATCH], candidate_labels=SUBJECTS, multi_label=True, truncation=True),
    case("bert-nli", MATCH, candidate_labels=["sports", "", "politics "]),
    case("bert-nli", MATCH, candidate_labels="sports,, politics,"),
    case("bert-nli", MATCH, candidate_labels=SUBJECTS, multi_label=None),
    # BART reads text and hypothesis together from the first layer on, so no part of the one serves the other labels
    case("bart-nli", MATCH, candidate_labels=SUBJECTS),
    case("bart-nli", [MATCH, GOOD], candidate_labels="politics, sports", multi_label=True),
    case("bart-nli", MATCH, candidate_labels=SUBJECTS, hypothesis_template="This text is about {}."),
    case("bart-nli", [LONG, MATCH], candidate_labels=SUBJECTS, truncation=True),
]

STRATEGIES = ("none", "simple", "first", "average", "max")
TAGGERS = ("bert-tags", "bert-cased-tags", "distilbert-tags", "roberta-tags", "xlm-roberta-tags")
WORDS = ["Ada", "Lovelace", "lived", "in", "Londonderry", "—", "São", "Paulo", "."]
TOKEN_CLASSIFICATION = [
    *(case(model, WOLFGANG, aggregation_strategy=strategy) for model in TAGGERS for strategy in STRATEGIES),
    *(
        case(model, ACCENTS, aggregation_strategy=strategy, ignore_labels=[])
        for model in TAGGERS
        for strategy in STRATEGIES
    ),
    case("bert-tags", ADA),
    case("bert-tags", ""),
    case("bert-tags", "   "),
    case("bert-tags", [ADA]),
    case("bert-tags", [ADA, WOLFGANG, ""]),
    case("bert-tags", [ADA, WOLFGANG], aggregation_strategy="average"),
    case("roberta-tags", [ADA, WOLFGANG], aggregation_strategy="simple"),
    case("bert-tags", [ADA, WOLFGANG, ACCENTS], aggregation_strategy="simple", batch_size=2),
    case("bert-tags", WOLFGANG, init={"aggregation_strategy": "simple"}),
    case("bert-tags", WOLFGANG, init={"aggregation_strategy": "simple"}, aggregation_strategy="max"),
    case("bert-tags", WOLFGANG, init={"ignore_labels": []}),
    case("bert-tags", WOLFGANG, ignore_labels=["B-PER", "O"]),
    case("bert-tags", WOLFGANG, ignore_labels=["PER"], aggregation_strategy="simple"),
    case("bert-tags", WOLFGANG, ignore_labels=["O", "I-LOC"], aggregation_strategy="first"),
    case("bert-tags", WOLFGANG, aggregation_strategy="simple", stride=4),
    case("bert-tags", "unbelievability  \t pseudo-words\nZZZ'xyz, e-mail:ada@example.com", ignore_labels=[]),
    case("bert-tags", "İstanbul ﬁne ½ ① naïve", ignore_labels=[]),
    case("bert-tags", "İstanbul ﬁne ½ ① naïve", ignore_labels=[], aggregation_strategy="first"),
    case("bert-tags", "中国 日本 👩‍👩‍👧 e\u0301te\u0301", ignore_labels=[], aggregation_strategy="average"),
    case("roberta-tags", "中国 日本 👩‍👩‍👧 e\u0301te\u0301", ignore_labels=[]),
    case("roberta-tags", "中国 日本 👩‍👩‍👧 e\u0301te\u0301", ignore_labels=[], aggregation_strategy="max"),
    case("roberta-tags", "unbelievability  \t pseudo-words\nZZZ'xyz", ignore_labels=[], aggregation_strategy="first"),
    case("xlm-roberta-tags", "unbelievability  pseudo-words\nZZZ'xyz", ignore_labels=[], aggregation_strategy="first"),
    *(
        case(model, WORDS, is_split_into_words=True, aggregation_strategy=strategy, ignore_labels=[])
        for model in TAGGERS
        for strategy in ("none", "simple", "average")
    ),
    case("bert-tags", WORDS, is_split_into_words=True),
    case("bert-tags", [WORDS], is_split_into_words=True),
    case("bert-tags", [WORDS, ["Paris", "and", "Berlin"]], is_split_into_words=True, aggregation_strategy="simple"),
    case("bert-tags", WORDS, is_split_into_words=True, delimiter="_", ignore_labels=[]),
    case("bert-tags", WORDS, is_split_into_words=True, delimiter="", aggregation_strategy="simple", ignore_labels=[]),
    case("roberta-tags", WORDS, is_split_into_words=True, delimiter=" | ", aggregation_strategy="first"),
    case("bert-tags", ["New York", "it's", "", "e-mail"], is_split_into_words=True, ignore_labels=[]),
    case("roberta-tags", ["New York", "it's", "", "e-mail"], is_split_into_words=True, ignore_labels=[]),
    case("xlm-roberta-tags", ["New York", "it's", "", "e-mail"], is_split_into_words=True, ignore_labels=[]),
    case("bert-tags", "Ada [SEP] lived [MASK] in [UNK] London [CLS]", ignore_labels=[]),
    case("bert-tags", "Ada [SEP] lived [MASK] in [UNK] London", ignore_labels=[], aggregation_strategy="max"),
    case("roberta-tags", "Ada </s> lived <mask> in <unk> London", ignore_labels=[], aggregation_strategy="average"),
    case("bert-tags", "x" * 150 + " " + ADA, ignore_labels=[], aggregation_strategy="first"),
    case("bert-cased-tags", "  Playing\n\nPlayful players replayed", ignore_labels=[], aggregation_strategy="average"),
    case("roberta-tags", "  Playing\n\nPlayful  players", ignore_labels=[], aggregation_strategy="average"),
    case("xlm-roberta-tags", "İstanbul ﬁne ½ ① naïve", ignore_labels=[]),
    case("xlm-roberta-tags", "İstanbul ﬁne ½ ① naïve", ignore_labels=[], aggregation_strategy="max"),
    case("bert-tags", ADA, aggregation_strategy=None),
    case("bert-tags", ADA, init={"aggregation_strategy": "simple"}, aggregation_strategy=None),
    case("bert-tags", WORDS, is_split_into_words=True, delimiter=None),
    case("bert-tags", WOLFGANG, grouped_entities=True),
    case("bert-tags", WOLFGANG, init={"grouped_entities": True}),
]

STORY = "My name is Wolfgang and I live in Berlin, where I work for a small company."
TALE = (
    "Ada Lovelace lived in London and wrote the first program for a machine that was never built. "
    "The café in Zürich was closed 😀, but the señor said: come again! Prices rose 12.5% in 1999."
)
ASKED = "Where did she live?"
READERS = ("bert-qa", "distilbert-qa", "roberta-qa")
QUESTION_ANSWERING = [
    *(case(model, question="Where do I live?", context=STORY) for model in READERS),
    *(case(model, question=ASKED, context=TALE, top_k=3) for model in READERS),
    *(case(model, question=ASKED, context=TALE, top_k=5, align_to_words=False) for model in READERS),
    *(case(model, question=ASKED, context=TALE, handle_impossible_answer=True, top_k=3) for model in READERS),
    *(case(model, question=ASKED, context=TALE, max_seq_len=24, doc_stride=8, top_k=4) for model in READERS),
    *(case(model, question=ASKED, context=LONG, top_k=2) for model in READERS),
    case("bert-qa", question=ASKED, context=LONG),
    case("bert-qa", question=ASKED, context=LONG, handle_impossible_answer=True, top_k=20),
    case("bert-qa", question=ASKED, context=LONG, max_seq_len=20, doc_stride=4, align_to_words=False),
    case("bert-qa", question=ASKED, context=LONG, max_seq_len=40, doc_stride=0, top_k=3),
    case("bert-qa", question=ASKED, context=LONG, max_seq_len=32, doc_stride=16, handle_impossible_answer=True),
    case("bert-qa", question="Where do I live?", context=STORY, top_k=1),
    case("bert-qa", question=["Where do I live?"], context=STORY),
    case("bert-qa", question=["Where do I live?"], context=[STORY]),
    case("bert-qa", question=["Where do I live?"], context=[STORY], top_k=2),
    case("bert-qa", question=["Where do I live?", "What is my name?"], context=STORY),
    case("bert-qa", question=["Where do I live?", ASKED], context=[STORY, TALE]),
    case("bert-qa", question=["Where do I live?", ASKED], context=[STORY, TALE], top_k=2),
    case("bert-qa", {"question": ASKED, "context": TALE}),
    case("bert-qa", [{"question": ASKED, "context": TALE}]),
    case("bert-qa", [{"question": ASKED, "context": TALE}, {"question": QUESTION, "context": STORY}], top_k=2),
    case("bert-qa", ASKED, TALE),
    case("bert-qa", question=ASKED, context=TALE, max_answer_len=1),
    case("bert-qa", question=ASKED, context=TALE, max_answer_len=3, top_k=4),
    case("bert-qa", question=ASKED, context=TALE, max_answer_len=100),
    case("bert-qa", question=ASKED, context=TALE, max_answer_len=1, align_to_words=False, top_k=3),
    case("bert-qa", question=ASKED, context=TALE, max_question_len=64),
    case("bert-qa", question=ASKED, context=TALE, padding="max_length"),
    case("bert-qa", question=ASKED, context=TALE, init={"top_k": 2}),
    case("bert-qa", question=ASKED, context=TALE, init={"handle_impossible_answer": True, "top_k": 3}, top_k=1),
    case("bert-qa", question=ASKED, context=TALE, init={"max_seq_len": 30, "doc_stride": 5}),
    case("bert-qa", question="Who?", context="Zürich"),
    case("bert-qa", question="Who?", context="café café Café cafe"),
    case("bert-qa", question="Who?", context="café café Café cafe", top_k=3),
    case("bert-qa", question="Who?", context="   "),
    case("bert-qa", question="Who?", context="   ", handle_impossible_answer=True),
    case("bert-qa", question="中国?", context="日本 👩‍👩‍👧 e\u0301te\u0301 中国 İstanbul ﬁne", top_k=3),
    case("roberta-qa", question="中国?", context="日本 👩‍👩‍👧 e\u0301te\u0301 中国 İstanbul ﬁne", top_k=3),
    case("roberta-qa", question="中国?", context="日本 👩‍👩‍👧 e\u0301te\u0301 中国", top_k=2, align_to_words=False),
    case("bert-qa", question=ASKED, context=LONG, max_seq_len=30, top_k=3),
    case("roberta-qa", question=ASKED, context=LONG, max_seq_len=30, handle_impossible_answer=True, top_k=3),
    case("bert-qa", question="Who [SEP]?", context="Ada [SEP] lived [MASK] in [UNK] London", top_k=3),
    case("bert-qa", question="Who?", context="Ada [CLS] lived in London, " + TALE, top_k=3),
    case("bert-qa", question="Who?", context="x" * 150 + " " + TALE, top_k=3),
    case("bert-qa", question=ASKED, context=TALE, top_k=None, max_answer_len=None, align_to_words=None),
    case("bart-qa", question="Where do I live?", context=STORY),
    case("bart-qa", question=ASKED, context=TALE, top_k=3, handle_impossible_answer=True),
    case("bart-qa", question=ASKED, context=TALE, max_seq_len=24, doc_stride=8, top_k=4),
    case("bart-qa", question=["Where do I live?", ASKED], context=[STORY, TALE], top_k=2),
    case("bart-qa", question=ASKED, context=TALE, align_to_words=False, max_answer_len=3),
]


def masked(model: str, text: str) -> str:
    return text.replace("_", "<mask>" if "roberta" in model else "[MASK]")


GUESSERS = ("bert-words", "distilbert-words", "roberta-words", "xlm-roberta-words")
ONE, TWO = "Paris is the _ of France.", "The _ brown fox jumps over the _ dog."
FILL_MASK = [
    *(case(model, masked(model, ONE)) for model in GUESSERS),
    *(case(model, masked(model, TWO), top_k=3) for model in GUESSERS),
    *(case(model, masked(model, "_"), top_k=2) for model in GUESSERS),
    *(case(model, masked(model, "_ _, café_ 😀 it's _!"), top_k=2) for model in GUESSERS),
    *(case(model, [masked(model, ONE), masked(model, TWO)], top_k=2) for model in GUESSERS),
    case("bert-words", [masked("bert", ONE)]),
    case("bert-words", [masked("bert", TWO)], top_k=2),
    case("bert-words", [masked("bert", ONE), masked("bert", "I love this _ .")], top_k=1),
    case("bert-words", masked("bert", ONE), top_k=1),
    case("bert-words", masked("bert", ONE), top_k=40),
    case("bert-words", masked("bert", ONE), targets=["capital", "dog", "london"]),
    case("bert-words", masked("bert", ONE), targets=["capital", "dog", "london"], top_k=2),
    case("bert-words", masked("bert", ONE), targets=["capital", "capital", "Dog"]),
    case("bert-words", masked("bert", ONE), targets="capital"),
    case("bert-words", masked("bert", ONE), targets=["##ing", "!", "PARIS"]),
    case("bert-words", masked("bert", TWO), targets=["lazy", "quick"]),
    case("bert-words", [masked("bert", ONE), masked("bert", TWO)], targets=["lazy", "quick"], top_k=1),
    case("roberta-words", masked("roberta", ONE), targets=["Ġthe", " is", "a"]),
    case("distilbert-words", masked("distilbert", ONE), targets=["capital", "dog"]),
    case("xlm-roberta-words", masked("xlm-roberta", ONE), targets=["▁capital", "dog", "."][:1]),
    case("bert-words", masked("bert", ONE), init={"top_k": 2}),
    case("bert-words", masked("bert", ONE), init={"targets": ["dog", "fox"]}),
    case("bert-words", masked("bert", ONE), init={"top_k": 1}, top_k=3),
    case("bert-words", masked("bert", ONE + " " + LONG), tokenizer_kwargs={"truncation": True}, top_k=2),
    case("roberta-words", masked("roberta", ONE + LONG), tokenizer_kwargs={"truncation": True, "max_length": 20}),
    case("bert-words", [masked("bert", ONE), masked("bert", "I love this _ .")], batch_size=2, top_k=2),
    case("bert-words", masked("bert", TWO), targets=["[PAD]", "[SEP]", "[UNK]", "dog"]),
    case("bert-words", masked("bert", ONE), targets=["[PAD]", "[SEP]", "[UNK]", "dog"]),
    case("bert-words", masked("bert", "Ada [SEP] lived [PAD] in _ London [CLS]"), top_k=2),
    case("bert-words", masked("bert", "Ada [SEP] lived [PAD] in _ London _ [CLS]"), top_k=2),
    case("bert-words", masked("bert", ONE), init={"top_k": 2}, top_k=None, targets=None),
]

FEATURE_EXTRACTION = [
    *(case(model, "A café.") for model in ("bert", "distilbert", "roberta")),
    *(case(model, ["Paris!", "When was it?"]) for model in ("bert", "distilbert", "roberta")),
    case("bert", ""),
    case("bert", ["Paris"]),
    case("bert", "Paris", return_tensors=True),
    case("bert", ["Paris", "A fox"], return_tensors=True),
    case("bert", "Paris", return_tensors=False),
    case("bert", LONG, truncation=True, tokenize_kwargs={"max_length": 5}),
    case("roberta", LONG, tokenize_kwargs={"truncation": True, "max_length": 6}),
    case("bert", "Paris", init={"return_tensors": True}),
    case("bert", [LONG, "Paris"], init={"tokenize_kwargs": {"truncation": True, "max_length": 4}}),
]

GREEDY = {"do_sample": False, "max_new_tokens": 12}
ENDS = {"eos_token_id": 379, "do_sample": False, "max_new_tokens": 12}
CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who are you?"}]
BEGUN = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am"}]
TEXT_GENERATION = [
    *(case("gpt2-chat", chat, **GREEDY) for chat in (CHAT, BEGUN)),
    case("gpt2-chat", [CHAT, BEGUN], **GREEDY),
    case("gpt2-chat", [CHAT], **GREEDY),
    case("gpt2-chat", BEGUN, continue_final_message=False, **GREEDY),
    case("gpt2-chat", CHAT, return_full_text=False, **GREEDY),
    case("gpt2-chat", CHAT, return_tensors=True, **GREEDY),
    case("gpt2-chat", CHAT, tokenizer_encode_kwargs={"loud": True}, **GREEDY),
    case("gpt2-chat", CHAT, handle_long_generation="hole", return_tensors=True, do_sample=False, max_new_tokens=40),
    *(case("gpt2", text, **GREEDY) for text in (ADA, GOOD, ACCENTS, "", " ", "\n")),
    case("gpt2", [ADA], **GREEDY),
    case("gpt2", [ADA, GOOD, "Paris"], **GREEDY),
    case("gpt2", [ADA, GOOD, "Paris"], batch_size=2, **GREEDY),
    case("gpt2", ADA, init=GREEDY),
    case("gpt2", ADA, init=GREEDY, max_new_tokens=3),
    *(case("gpt2", ADA, return_full_text=full, **GREEDY) for full in (True, False)),
    case("gpt2", ADA, return_text=True, **GREEDY),
    case("gpt2", ADA, return_tensors=True, **GREEDY),
    case("gpt2", [ADA, GOOD], return_tensors=True, **GREEDY),
    case("gpt2", "", return_tensors=True, **GREEDY),
    case("gpt2", ADA, prefix="In short: ", **GREEDY),
    case("gpt2", ADA, init={"prefix": "In short: "}, return_tensors=True, **GREEDY),
    case("gpt2", ADA, prefix="In short: ", return_full_text=False, **GREEDY),
    *(
        case("gpt2", text, clean_up_tokenization_spaces=clean, **GREEDY)
        for text in (ADA, GOOD)
        for clean in (True, False)
    ),
    case("gpt2", "What ?", suppress_tokens=[*range(5, 16), *range(19, 400)], **GREEDY),
    case(
        "gpt2", "What ?", clean_up_tokenization_spaces=False, suppress_tokens=[*range(5, 16), *range(19, 400)], **GREEDY
    ),
    *(case("gpt2", text, **ENDS) for text in (ADA, GOOD)),
    case("gpt2", ADA, return_tensors=True, **ENDS),
    case("gpt2", ADA, suppress_tokens=[*range(3, 420)], min_new_tokens=3, skip_special_tokens=False, **GREEDY),
    case("gpt2", ADA, suppress_tokens=[*range(3, 420)], min_new_tokens=3, skip_special_tokens=True, **GREEDY),
    case("gpt2", ADA, stop_sequence="ef", **GREEDY),
    case("gpt2", ADA, handle_long_generation="hole", **GREEDY),
    case("gpt2", LONG, handle_long_generation="hole", **GREEDY),
    case("gpt2", LONG, handle_long_generation="hole", return_tensors=True, do_sample=False, max_new_tokens=40),
    case("gpt2", LONG, tokenizer_encode_kwargs={"truncation": True, "max_length": 9}, return_tensors=True, **GREEDY),
    case("gpt2", ADA, tokenizer_encode_kwargs={"add_special_tokens": False}, **GREEDY),
    case("gpt2", ADA, add_special_tokens=False, **GREEDY),
    case("gpt2", ADA, repetition_penalty=1.8, no_repeat_ngram_size=2, **GREEDY),
    case("gpt2", ADA, bad_words_ids=[[379], [342]], min_new_tokens=12, **GREEDY),
    *(case("gpt2", text, num_beams=3, **GREEDY) for text in (ADA, GOOD)),
    case("gpt2", ADA, num_beams=3, num_return_sequences=2, **GREEDY),
    case("gpt2", [ADA, GOOD], num_beams=4, num_return_sequences=2, length_penalty=0.5, **GREEDY),
    case("gpt2", ADA, num_beams=3, num_return_sequences=3, return_tensors=True, **GREEDY),
    case("gpt2", ADA, num_beams=3, return_full_text=False, early_stopping=True, **ENDS),
    # `seed` is ours: the reference draws from torch's own generator, which `run` seeds
    *(case("gpt2", text, max_new_tokens=12, seed=seed) for text in (ADA, GOOD) for seed in (0, 7)),
    case("gpt2", ADA, seed=3, max_new_tokens=12, temperature=1.3, top_p=0.8),
    case("gpt2", ADA, seed=3, max_new_tokens=12, top_k=3),
    case("gpt2", ADA, seed=3, max_new_tokens=12, do_sample=True, top_k=0, return_tensors=True),
]

NEWS = "Parliament will vote on the new law on Tuesday. Prices rose 12.5% in 1999 (and fell in 2001)."
FEW = {"max_new_tokens": 8}
# Left out here: what is too long, or has several lines, which the reference cuts, or fails at, and ours reads in
# pieces; options given to pipeline() that its task_specific_params overrule; a pair of languages that nobody has chosen
SUMMARIZATION = [
    *(case(model, NEWS) for model in ("bart", "t5")),
    *(case(model, [NEWS, ADA, GOOD]) for model in ("bart", "t5")),
    *(case(model, [NEWS]) for model in ("bart", "t5")),
    *(case(model, NEWS, return_tensors=True) for model in ("bart", "t5")),
    *(case(model, [NEWS, ADA], num_return_sequences=2) for model in ("bart", "t5")),
    *(case(model, NEWS, max_length=12, min_length=3) for model in ("bart", "t5")),
    *(case(model, LONG, truncation=True) for model in ("bart", "t5")),
    *(case(model, ACCENTS, clean_up_tokenization_spaces=clean) for model in ("bart", "t5") for clean in (True, False)),
    case("bart", NEWS, num_beams=1, **FEW),
    case("bart", NEWS, num_beams=3, num_return_sequences=3, length_penalty=0.5, no_repeat_ngram_size=2),
    case("bart", NEWS, init={"num_beams": 2}, num_beams=3),
    case("bart", [NEWS, ADA], batch_size=2, **FEW),
    case("bart", NEWS, return_text=True, min_new_tokens=4, max_new_tokens=9),
    case("bart", NEWS, repetition_penalty=1.8, encoder_no_repeat_ngram_size=2),
    case("bart", NEWS, bad_words_ids=[[379], [342]], suppress_tokens=[5, 6, 7]),
    case("bart", NEWS, init={"truncation": True}),
    case("bart", "  " + NEWS + "  "),
    case("bart", "Ada </s> lived <mask> in <s> London"),
]

TRANSLATION = [
    case("bart", ADA, **FEW),
    case("t5", ADA, src_lang="en", tgt_lang="de"),  # the first pair is what the reference takes in any case
    case("t5", [ADA, GOOD], init={"src_lang": "en", "tgt_lang": "de"}, num_beams=1, **FEW),
    case("t5", LONG, src_lang="en", tgt_lang="de", truncation=True, return_tensors=True, **FEW),
    case("marian", ADA),
    case("marian", [ADA, GOOD, QUESTION]),
    case("marian", ACCENTS),
    case("marian", [ADA, GOOD], num_beams=1, **FEW),
    case("marian", ADA, num_beams=6, num_return_sequences=3, length_penalty=0.3),
    case("marian", ADA, num_beams=2, no_repeat_ngram_size=2, min_length=6),
    case("marian", ADA, return_tensors=True),
    case("marian", ADA, forced_bos_token_id=9, **FEW),
    case("marian", LONG, truncation=True),
    case("marian", "Ada </s> lived <unk> in <pad> London"),
    case("marian", ADA, clean_up_tokenization_spaces=True),
]
TRANSLATION_EN_TO_FR = [
    case("t5", ADA),
    case("t5", [ADA, GOOD, QUESTION]),
    case("t5", ACCENTS[:43]),
    case("t5", ADA, num_beams=3, num_return_sequences=2),
    case("t5", ADA, return_tensors=True),
    case("t5", ADA, max_length=6),
    case("t5", ADA, clean_up_tokenization_spaces=True),
    case("t5", LONG, truncation=True),
    case("t5", ADA, num_beams=1, no_repeat_ngram_size=1),
    case("bart", ADA, **FEW),
    case("marian", [ADA, GOOD]),
]
TRANSLATION_EN_TO_DE = [case("t5", ADA), case("t5", [ADA, GOOD], num_beams=1)]

# As text-generation's: `seed` is ours, and one token is all that the reference knows of a stop sequence
TEXT2TEXT_GENERATION = [
    *(case(model, text) for model in ("bart", "t5", "marian") for text in (ADA, ACCENTS, "x")),
    *(case(model, [ADA, GOOD], num_beams=1, **FEW) for model in ("bart", "t5")),
    *(case(model, ADA, max_length=10, min_length=6) for model in ("bart", "t5")),
    *(case(model, ADA, num_beams=1, return_tensors=True, **FEW) for model in ("bart", "t5")),
    *(case(model, [ADA, GOOD], num_beams=4, num_return_sequences=2, **FEW) for model in ("bart", "t5")),
    *(case(model, ADA, num_beams=1, do_sample=True, seed=3, top_k=5, **FEW) for model in ("bart", "t5")),
    *(case(model, LONG, truncation=True, **FEW) for model in ("bart", "t5")),
    case("bart", [ADA], **FEW),
    case("bart", ADA, init={"num_beams": 2, "max_length": 9}),
    case("bart", ADA, forced_bos_token_id=11, forced_eos_token_id=12, **FEW),
    case("bart", ADA, decoder_start_token_id=7, num_beams=1, **FEW),
    case("t5", ADA, num_beams=3, length_penalty=0.2, early_stopping=True, **FEW),
    case("t5", ADA, num_beams=1, clean_up_tokenization_spaces=True, **FEW),
]

TASKS = {
    "text-classification": TEXT_CLASSIFICATION,
    "zero-shot-classification": ZERO_SHOT_CLASSIFICATION,
    "token-classification": TOKEN_CLASSIFICATION,
    "question-answering": QUESTION_ANSWERING,
    "fill-mask": FILL_MASK,
    "feature-extraction": FEATURE_EXTRACTION,
    "text-generation": TEXT_GENERATION,
    "summarization": SUMMARIZATION,
    "translation": TRANSLATION,
    "translation_en_to_fr": TRANSLATION_EN_TO_FR,
    "translation_en_to_de": TRANSLATION_EN_TO_DE,
    "text2text-generation": TEXT2TEXT_GENERATION,
}


@cache
def load(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer: every parameter by its name, tied ones by the name that comes first."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_files(Path(folder), **tiny.MODELS[name])
        config = transformers.AutoConfig.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, tiny.MODELS[name]["architecture"])(config).eval()
    learned = [one for one in model.named_parameters() if one[1].requires_grad]  # Marian computes its positions
    stored = [*learned, *(one for one in model.named_buffers() if one[0] == "final_logits_bias")]
    with torch.no_grad():
        for key, tensor in stored:
            tensor.copy_(torch.from_numpy(tiny.values(key, tuple(tensor.shape))))
    return model, tokenizer


def run(task: str, chosen: Case) -> dict[str, Any]:
    name, init, args, call = chosen
    written = json.dumps({"model": name, "init": init, "args": args, "call": call})  # the pipeline may change them
    model, tokenizer = load(name)
    model.config.task_specific_params = tiny.MODELS[name].get("task_specific_params")
    model.config = copy.deepcopy(model.config)  # from which the pipeline takes the prefix away
    made = transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu", **init)
    if (seed := call.pop("seed", None)) is not None:
        torch.manual_seed(seed)
    return json.loads(written) | {"output": plain(made(*args, **call))}


def plain(output: Any) -> Any:
    """What JSON can hold of it; tensors as nested lists."""
    if isinstance(output, dict):
        return {key: plain(value) for key, value in output.items()}
    if isinstance(output, list):
        return [plain(value) for value in output]
    if isinstance(output, torch.Tensor):
        return plain(output.tolist())
    return output if isinstance(output, str | int) else round(float(output), 9)


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with containers of plain values on one line each."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(one, dict | list) for one in inner):
        return json.dumps(value, ensure_ascii=False)
    keys = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(inner)
    space = " " * (indent + 1)
    lines = [f"{space}{key}{pretty(one, indent + 1)}" for key, one in zip(keys, inner, strict=True)]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opened, ",\n".join(lines), " " * indent + closed])


def train_vocabulary() -> None:
    """The byte-level BPE of the RoBERTa models, once: its two files are in git."""
    from tokenizers import ByteLevelBPETokenizer

    tiny.VOCABULARY.mkdir(exist_ok=True)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        tiny.SENTENCES * 2, vocab_size=420, min_frequency=2, special_tokens=specials, show_progress=False
    )
    tokenizer.save_model(str(tiny.VOCABULARY))


def main() -> None:
    if transformers.__version__ != "4.57.6":
        sys.exit(f"transformers is {transformers.__version__}, wanted 4.57.6; see the top of this file")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if not (tiny.VOCABULARY / "merges.txt").exists():
        train_vocabulary()
    for task, cases in TASKS.items() if len(sys.argv) == 1 else ((name, TASKS[name]) for name in sys.argv[1:]):
        answers = [run(task, chosen) for chosen in cases]
        (HERE / f"{task}.json").write_text(pretty(answers) + "\n", encoding="utf-8")
        print(f"{task}: {len(answers)} cases")


if __name__ == "__main__":
    main()
