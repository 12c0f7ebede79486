"""Structured output: what a random model writes meets the form that was asked for, and hostile forms are refused."""

import json
import random
import re
import threading

import pytest
import torch

import exercises
import triarch
from tiny import load
from triarch import limits
from triarch.errors import InvalidInput, Unsupported
from triarch.generation import generate, stream
from triarch.generation.filters import SoFar
from triarch.generation.inference import Columns
from triarch.generation.settings import Settings
from triarch.generation.structure import _compilers, form_of
from writers import writer

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return writer(tmp_path_factory.mktemp("ends"))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """Nothing says which token ends a text."""
    return writer(tmp_path_factory.mktemp("endless"), ends=False)


# 1,000 schemas


def schema(rng: random.Random, depth: int = 0) -> dict:
    """A schema that texts of up to about 200 characters meet."""
    kinds = ["integer", "string", "pattern", "enum", "boolean", "null", "number"]
    kind = rng.choice(kinds + ["object", "array", "anyOf"] * (2 if depth < 2 else 0))
    if kind == "object":
        names = rng.sample(["a", "b c", "é", 'q"', "n\n", "deep", "x-1"], rng.randint(0, 3))
        required = [name for name in names if rng.random() < 0.5]
        properties = {name: schema(rng, depth + 1) for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        least = rng.randint(0, 2)
        return {
            "type": "array",
            "items": schema(rng, depth + 1),
            "minItems": least,
            "maxItems": least + rng.randint(0, 1),
        }
    if kind == "anyOf":
        return {"anyOf": [schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    if kind == "enum":
        return {"enum": rng.sample(["", "yes", "no", 'a"b', "é😀", 0, -1, 2.5, None, True, [1], {"k": "v"}], 3)}
    if kind == "integer":
        least = rng.randint(-1000, 1000)
        return {"type": "integer", "minimum": least, "maximum": least + rng.randint(0, 500)}
    if kind == "number":
        return {"type": "number", "multipleOf": 0.5, "minimum": -10, "maximum": 10}
    if kind == "string":
        least = rng.randint(0, 4)
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 6)}
    if kind == "pattern":
        return {
            "type": "string",
            "pattern": rng.choice(["^[a-c]{1,4}$", "^(ab|c){0,2}x?$", "^\\d{2}-\\d{2}$", "^.{2}$"]),
        }
    return {"type": kind}


def meets(value, wanted: dict) -> bool:
    """Whether a value meets a schema of the kind above."""
    if "anyOf" in wanted:
        return any(meets(value, one) for one in wanted["anyOf"])
    if "enum" in wanted:
        return any(type(value) is type(one) and value == one for one in wanted["enum"])
    kind = wanted["type"]
    types = {"object": dict, "array": list, "integer": int, "string": str, "boolean": bool, "null": type(None)}
    if kind == "number":
        return type(value) in (int, float) and wanted["minimum"] <= value <= wanted["maximum"] and value % 0.5 == 0
    if type(value) is not types[kind]:
        return False
    if kind == "object":
        known = wanted["properties"]
        return set(wanted["required"]) <= set(value) <= set(known) and all(
            meets(item, known[name]) for name, item in value.items()
        )
    if kind == "array":
        return wanted["minItems"] <= len(value) <= wanted["maxItems"] and all(meets(i, wanted["items"]) for i in value)
    if kind == "integer":
        return wanted["minimum"] <= value <= wanted["maximum"]
    if kind == "string":
        long_enough = wanted.get("minLength", 0) <= len(value) <= wanted.get("maxLength", 1000)
        return long_enough and re.search(wanted.get("pattern", ""), value) is not None
    return True


def test_what_is_written_meets_each_of_1000_random_schemas(model):
    rng = random.Random(0)
    for number in range(1000):
        wanted = schema(rng)
        found = generate(model, PROMPT, json_schema=wanted, do_sample=True, seed=number, max_new_tokens=240)
        assert found.finish_reason == "stop", wanted
        assert meets(json.loads(found.text), wanted), (wanted, found.text)


# The other forms


@pytest.mark.parametrize("seed", range(5))
def test_a_regular_expression_is_met(model, seed):
    found = generate(model, PROMPT, regex=r"[a-c]{3,8}-\d{2}", do_sample=True, seed=seed, max_new_tokens=40)
    assert re.fullmatch(r"[a-c]{3,8}-\d{2}", found.text)
    assert found.finish_reason == "stop"


def test_a_grammar_in_the_lark_notation_is_met(model):
    grammar = 'start: "(" item ("," item)* ")"\nitem: /[a-z]{1,3}/'
    for found in generate(model, PROMPT, grammar=grammar, do_sample=True, seed=0, num_return_sequences=4):
        assert re.fullmatch(r"\([a-z]{1,3}(,[a-z]{1,3})*\)", found.text) or found.finish_reason == "length"


@pytest.mark.parametrize("texts", [["yes", "no"], ["a", "ab", "abc"], ['é😀"\\\n', "two\tlines"]], ids=len)
def test_one_of_the_choices_is_made(model, texts):
    made = {
        found.text for found in generate(model, PROMPT, choice=texts, do_sample=True, seed=0, num_return_sequences=9)
    }
    assert made <= set(texts)


def test_a_schema_may_come_as_text_and_true_means_any_object(model):
    kinds = [generate(model, PROMPT, json_schema=form, max_new_tokens=9).text for form in ('{"type": "boolean"}', True)]
    assert json.loads(kinds[0]) in (True, False)
    assert kinds[1].startswith("{")


@pytest.mark.parametrize(
    "wanted",
    [
        {"title": "A", "description": "b", "$comment": "c", "examples": [{"minLenght": 1}], "x-note": 3},
        {"default": {"any": 1}, "const": {"minLenght": [1]}},
        {"$ref": "#/$defs/minLenght", "$defs": {"minLenght": {"enum": [{"divisibleBy": 3}]}}},
        {"properties": {"divisibleBy": True}, "additionalProperties": False, "type": "object"},
    ],
    ids=["notes", "values", "names", "properties"],
)
def test_what_says_nothing_of_a_value_stands_in_no_ones_way(model, wanted):
    assert generate(model, PROMPT, json_schema=wanted, max_new_tokens=9).ids


def test_the_end_comes_as_soon_as_the_form_is_complete_without_an_end_token(endless):
    found = generate(
        endless, PROMPT, json_schema={"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    )
    assert len(json.loads(found.text)) == 2
    assert found.finish_reason == "stop"


def test_the_length_may_cut_a_form_and_says_so(model):
    found = generate(model, PROMPT, json_schema={"type": "string", "minLength": 50}, max_new_tokens=5)
    assert found.finish_reason == "length"
    assert len(found.ids) == 5


def test_an_end_token_that_spells_text_ends_only_where_the_form_may(model):
    comma = model.processor.encode(",").ids
    assert generate(model, PROMPT, regex="[,b]{3}", eos_token_id=comma).text == "bbb,"


def test_no_clean_up_breaks_a_form(model, monkeypatch):
    monkeypatch.setitem(model.processor.config, "clean_up_tokenization_spaces", True)
    assert generate(model, PROMPT, choice=["a , b ."]).text == "a , b ."


def test_streamed_pieces_of_a_form_make_its_text(model):
    options = {"json_schema": {"type": "array", "items": {"enum": ["é😀", "x"]}, "minItems": 4}, "max_new_tokens": 60}
    assert "".join(piece.text for piece in stream(model, PROMPT, **options)) == generate(model, PROMPT, **options).text


def test_a_batch_gives_what_each_prompt_gives_alone(model):
    prompts = [PROMPT, "Paris", "My name is Wolfgang and I live in"]
    options = {"regex": "[a-z ]{5,20}[.]", "do_sample": True, "seed": 1}
    alone = [generate(model, prompt, **options).ids for prompt in prompts]
    assert [found.ids for found in generate(model, prompts, **options)] == alone


def test_other_filters_hold_beside_a_form(model):
    a, b = (model.processor.encode(letter).ids[0] for letter in "ab")
    found = generate(model, PROMPT, regex="[ab]{4}", bad_words_ids=[[b]], max_new_tokens=10)
    assert found.text == "aaaa"
    assert a in found.ids


# What the searches rely on


def row(tokens):
    return SoFar(Columns(torch.tensor(tokens)), 0)


def allowed(form, tokens, vocab):
    return (form(torch.zeros(len(tokens), vocab), row(tokens)) == 0).tolist()


def test_rows_may_be_copied_reordered_and_forgotten(model):
    """What beams and guesses do: the filter depends on the tokens of a row, and on nothing that it was asked before."""
    form = form_of(Settings(regex="(ab|ba)*c"), model.processor, [2])
    fresh = [form_of(Settings(regex="(ab|ba)*c"), model.processor, [2]) for _ in range(4)]
    a, b, c = (model.processor.encode(letter).ids[0] for letter in "abc")
    vocab = model.config.vocab_size
    for rows in ([[a], [b]], [[b, a], [a, b]], [[a, b], [a, b]], [[a, b, b], [a, b, c]], [[b, a, b], [a, b, a]]):
        assert allowed(form, rows, vocab) == allowed(fresh.pop() if fresh else form, rows, vocab)
    form.states.clear()
    assert allowed(form, [[a, b, b, a, c]], vocab)[0] == [token == 2 for token in range(vocab)]


def test_states_kept_are_bounded(model):
    form = form_of(Settings(regex="a*"), model.processor, [2])
    a = model.processor.encode("a").ids[0]
    for size in range(1, 800):
        form(torch.zeros(1, model.config.vocab_size), row([[a] * size]))
    assert len(form.states) < 600


def test_compiled_forms_are_bounded_and_reused(model):
    for number in range(limits.FORMS_KEPT + 20):
        form_of(Settings(regex=f"a{{{number}}}b"), model.processor, [2])
    assert len(_compilers[model.processor].made[""].result().kept) == limits.FORMS_KEPT


def test_threads_may_ask_for_the_same_form(model):
    def work():
        made.append(generate(model, PROMPT, regex="[a-f]{8}", do_sample=True, seed=4).text)

    made: list[str] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


# Refused


@pytest.fixture
def unfed(model, monkeypatch):
    """Fails if the model runs."""

    def features(*args, **kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(model, "features", features)
    return model


def nested(depth, made=None):
    made = made or {"type": "integer"}
    for _ in range(depth):
        made = {"items": made}
    return made


LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
INWARD = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
CHAIN = {"$ref": "#/$defs/0", "$defs": {str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(1200)}}
RULES = "start: a0\n" + "\n".join(f"a{i}: a{i + 1}" for i in range(4000)) + '\na4000: "x"'
DOUBLED = "start: A0\n" + "\n".join(f"A{i}: A{i + 1} A{i + 1}" for i in range(400)) + '\nA400: "x"'
REFUSED = {
    "unsatisfiable numbers": ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "greater than maximum"),
    "unsatisfiable types": (
        {"json_schema": {"allOf": [{"type": "string"}, {"type": "integer"}]}},
        "incompatible types",
    ),
    "false": ({"json_schema": False}, "json_schema is False, which no text meets"),
    "a list": ({"json_schema": "[1]"}, "wanted an object"),
    "no JSON": ({"json_schema": "{"}, "json_schema is not JSON"),
    "empty": ({"json_schema": ""}, "json_schema is not JSON"),
    "a set": ({"json_schema": {"enum": {1}}}, "json_schema is not JSON"),
    "NaN": ({"json_schema": {"const": float("nan")}}, "json_schema cannot be used"),
    "unknown keyword": ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    "unknown keyword made lenient": (
        {"json_schema": {"uniqueItems": True, "x-guidance": {"lenient": True}}},
        "uniqueItems",
    ),
    "options of the reader": ({"json_schema": {"type": "null", "x-guidance": {"key_separator": "?"}}}, "x-guidance"),
    "a mistyped word": ({"json_schema": {"type": "string", "minLenght": 3}}, "minLenght .did you mean minLength"),
    "a mistyped word within": (
        {"json_schema": {"properties": {"a": {"anyOf": [{"items": {"minLenght": 3}}]}}}},
        "minLenght .*would not be followed",
    ),
    "a word of an old draft": ({"json_schema": {"type": "integer", "divisibleBy": 3}}, "divisibleBy"),
    "an envelope": ({"json_schema": {"name": "cat", "schema": {"type": "null"}}}, "name.*would not be followed"),
    "required of a part": ({"json_schema": {"properties": {"a": {"required": True}}}}, "required=True, wanted a list"),
    "format of a number": ({"json_schema": {"type": "integer", "format": "int32"}}, "a format of integer"),
    "a value that is rounded": ({"json_schema": {"enum": [1, {"a": [2**53 + 1]}]}}, r"enum=.*wanted at most 2\^53"),
    "numbers that are rounded": ({"json_schema": {"type": "integer", "minimum": 10**30}}, r"wanted at most 2\^53"),
    "unknown type": ({"json_schema": {"type": "foo"}}, "Invalid type: foo"),
    "$ref loop": ({"json_schema": LOOP}, "requires itself within itself"),
    "$ref to itself": ({"json_schema": {"$ref": "#"}}, "requires itself within itself"),
    "$ref inward": ({"json_schema": INWARD}, "requires itself within itself"),
    "$ref to a URL": ({"json_schema": {"$ref": "http://example.com/x.json"}}, "wanted a place in the schema itself"),
    "$ref to a file": ({"json_schema": {"$ref": "file:///etc/passwd"}}, "wanted a place in the schema itself"),
    "$ref to an anchor": ({"json_schema": {"$ref": "#foo"}}, "wanted a place in the schema itself"),
    "$ref by the name of the schema": (
        {"json_schema": INWARD | {"$id": "http://e.com/s", "properties": {"a": {"$ref": "s"}}}},
        "wanted a place in the schema itself",
    ),
    "another beginning further in": ({"json_schema": {"$defs": {"a": {"$id": "http://e.com/s"}}}}, r"\$id"),
    "$ref nowhere": ({"json_schema": {"$ref": "#/$defs/none"}}, "json_schema cannot be used"),
    "$ref chain": ({"json_schema": CHAIN}, r"json_schema has .* over"),
    "depth 500": ({"json_schema": nested(500)}, "nested over 64 deep"),
    "depth 10,000": ({"json_schema": nested(10_000)}, "nested over 64 deep"),
    "depth 10,000 as text": (
        {"json_schema": '{"items":' * 10_000 + "{}" + "}" * 10_000},
        r"nested over|characters, over",
    ),
    "10,000 long values": (
        {"json_schema": {"enum": [f"value {i}" for i in range(10_000)]}},
        r"characters, over 65,536",
    ),
    "huge numbers": (
        {"json_schema": {"type": "number", "minimum": -1.2345e300, "maximum": 1e-300}},
        r"wanted at most 2\^53",
    ),
    "multiples": ({"json_schema": {"type": "integer", "multipleOf": 999999937}}, "fuel exhausted"),
    "half a surrogate": ({"regex": "\ud800"}, "lone surrogate"),
    "open group": ({"regex": "(a"}, "unclosed group"),
    "look-around": ({"regex": "(?=a)b"}, "look-around"),
    "backreference": ({"regex": r"(a)\1"}, "backreferences are not supported"),
    "30,000 parentheses": ({"regex": "(" * 30_000 + ")" * 30_000}, "nested over 64 deep"),
    "30,000 stars": ({"regex": "a" + "*" * 30_000}, "regex cannot be used"),
    "long": ({"regex": "a" * 70_000}, r"70,000 characters, over 65,536"),
    "unknown rule": ({"grammar": "start: foo"}, 'unknown name: "foo"'),
    "empty grammar": ({"grammar": ""}, "Empty grammar"),
    "rule of itself": ({"grammar": "start: start"}, "no text meets it"),
    "many rules": ({"grammar": RULES}, "lines, over 500"),
    "doubling": ({"grammar": DOUBLED}, "grammar cannot be used"),
    "30,000 parentheses in a grammar": ({"grammar": "start: " + "(" * 30_000}, "nested over 64 deep"),
    "two forms": ({"regex": "a", "choice": ["a"]}, "regex and choice exclude each other"),
    "no end": ({"regex": "a", "ignore_eos": True}, "which ignore_eos rules out"),
    "empty choice": ({"choice": [""]}, "stop or choice text is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_form_that_cannot_be_met_or_read_is_refused_before_the_model_runs(unfed, name):
    options, message = REFUSED[name]
    with pytest.raises(InvalidInput, match=message) as caught:
        generate(unfed, PROMPT, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


HEAVY = {
    "10,000 values": {"json_schema": {"enum": list(range(10_000))}},
    "maxLength": {"json_schema": {"type": "string", "maxLength": 10**9}},
    "minItems": {"json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 10**6}},
    "quantifier of a quantifier": {"regex": "(a+)+b"},
    "repetitions": {"regex": "(((a{1,100}){1,100}){1,100}){1,100}"},
    "unicode": {"regex": r"\w{1,1000}\W{1,1000}" * 1000},
    "far choice": {"regex": "(a|b)*a(a|b){200}"},
    "1,500 properties": {"json_schema": {"type": "object", "properties": {f"p{i}": {} for i in range(1500)}}},
    "ambiguous": {"grammar": 'start: start start | "a" | ""'},
    "right recursion": {"grammar": 'start: "a" start'},
    "rules in a chain": {
        "grammar": "start: a0\n" + "\n".join(f'a{i}: "x" | a{i + 1}' for i in range(490)) + "\na490: /y/"
    },
    "references deep within a chain": {  # more than the usual stack of 8 MiB holds
        "json_schema": {
            "$ref": "#/$defs/0",
            "$defs": {str(i): nested(10, {"$ref": f"#/$defs/{i + 1}"}) for i in range(450)} | {"450": {}},
        }
    },
    "references in a chain": {
        "json_schema": {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(490)} | {"490": {}},
        }
    },
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_form_is_followed_or_refused(model, name):
    """Either is right; crashing and hanging are not. A second thread has a smaller stack than the first."""

    def work():
        try:
            outcomes.append(generate(model, PROMPT, max_new_tokens=30, **HEAVY[name]).finish_reason)
        except InvalidInput as error:
            outcomes.append(str(error))

    outcomes: list[str] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert re.match("stop|length|the form takes too much work to follow|.* cannot be used", outcomes[0]), outcomes


def test_a_first_token_that_is_forced_is_no_part_of_the_form(tmp_path):
    """BART's checkpoints for news begin with one, and end with another where the length is used up."""
    made = triarch.load(exercises.write(tmp_path, "bart", forced_bos_token_id=0))
    written = generate(made, "Paris", choice=["Paris", "in London"], max_new_tokens=20)
    assert (written.ids[0], written.finish_reason) == (0, "stop")
    assert written.text in ("Paris", "in London")


def test_pieces_spell_a_form_where_nothing_stands_before_it_and_nowhere_else(tmp_path):
    """Behind other text the space that a first piece brings is one, whatever was asked before."""
    made = triarch.load(exercises.write(tmp_path, "t5"))
    generate(made, "Paris", choice=["Paris"], max_new_tokens=10)
    with pytest.raises(Unsupported, match="whose tokens do not spell out bytes"):
        generate(made, "Paris", choice=["Paris"], max_new_tokens=10, decoder_input_ids=[5])


@pytest.mark.parametrize(
    "search", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}], ids=["greedy", "beams", "drawn"]
)
@pytest.mark.parametrize(
    "form",
    [{"regex": "a`b"}, {"json_schema": {"type": "object", "properties": {'q"': {"type": "null"}}, "required": ['q"']}}],
    ids=["regex", "json_schema"],
)
def test_a_form_that_goes_on_with_what_no_piece_spells_is_refused(form, search):
    """Where a character is bound to follow, llguidance goes on behind it if no token has it."""
    with pytest.raises(Unsupported, match="what no token of this tokenizer spells"):
        generate(load("t5"), "Ada", max_new_tokens=20, **form, **search)


def test_beams_pass_by_what_no_piece_spells():
    assert generate(load("t5"), "Ada", choice=["yes", "a`b"], num_beams=3, max_new_tokens=9).text == "yes"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "search", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}], ids=["greedy", "beams", "drawn"]
)
@pytest.mark.parametrize("name", ["t5", "marian", "bart"])
def test_what_is_written_from_a_source_has_its_form_from_the_first_letter(name, search, tmp_path):
    """Also where the first piece of a text brings a space, which is none."""
    made = triarch.load(exercises.write(tmp_path, name))
    source, options = "Paris is the capital.", {"max_new_tokens": 40} | search
    assert generate(made, source, choice=["Paris", "in London"], **options).text in ("Paris", "in London")
    assert re.fullmatch("[a-d]{2,3} [a-d]", generate(made, source, regex="[a-d]{2,3} [a-d]", **options).text)
    if name != "marian":  # of whose pieces none is a brace
        written = generate(made, source, json_schema=SCHEMA, **options | {"max_new_tokens": 60})
        if written.finish_reason == "stop":
            assert json.loads(written.text).keys() == {"a"}


def test_a_form_needs_a_tokenizer_that_spells_out_bytes(unfed, monkeypatch):
    with pytest.raises(Unsupported, match="whose tokens do not spell out bytes"):
        form_of(Settings(regex="a"), load("bert").processor, [2])
    monkeypatch.setattr(unfed, "processor", None)
    with pytest.raises(InvalidInput, match="regex needs a tokenizer"):
        generate(unfed, [5, 6], regex="a")
