"""JSON schemas from outside: how large they may be, what they may say, and whether a text that meets one can ever end.

A word of a schema that llguidance does not know asks for something that it would not follow, without saying so.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, show
from triarch.inputs.text.processor import check_text
from triarch.suggest import did_you_mean

# Words of a schema that are followed
TABLES = {"properties", "patternProperties", "$defs", "definitions"}  # of names and their schemas
NESTED = {"items", "prefixItems", "additionalItems", "additionalProperties", "anyOf", "oneOf", "allOf"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
FOLLOWED = TABLES | NESTED | NUMBERS | COUNTS | {"type", "enum", "const", "required", "pattern", "format", "$ref"}
SILENT = {"$schema", "$comment", "title", "description", "default", "example", "examples", "deprecated"}
SILENT |= {"readOnly", "writeOnly", "nullable", "discriminator", "externalDocs", "xml"}  # some of OpenAPI's
EXACT = 1 << 53  # up to here llguidance counts to the number


def read(given: Any) -> str:
    """A schema, the text of one, or True for any object -> its text.

    Raises InvalidInput for what is no schema, says what would not be followed, or refers to itself without end;
    LimitExceeded for one that is too large.
    """
    if isinstance(given, bool):
        if not given:
            raise InvalidInput("json_schema is False, which no text meets; give a schema, or True for any object")
        given = {"type": "object"}
    try:
        text = given if isinstance(given, str) else json.dumps(given)
    except RecursionError:
        raise LimitExceeded(f"json_schema is nested over {limits.FORM_DEPTH} deep; make it flatter") from None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"json_schema is not JSON: {show(error)}; change it") from None
    check_size("json_schema", text)
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"json_schema is not JSON: {show(error)}; change it") from None
    if not isinstance(schema, dict):
        raise InvalidInput(f"json_schema is {show(text, 40)}, wanted an object, or True for any object")
    _check_words({word: value for word, value in schema.items() if word != "$id"})  # further in it moves what # means
    if not _ends(schema):
        raise InvalidInput("json_schema requires itself within itself, so that no text meets it; make a part optional")
    return text


def check_size(what: str, text: str, *, nested: bool = True) -> None:
    """Raises InvalidInput for text that no encoding holds, LimitExceeded for what is too large or nested too deep."""
    check_text(text)
    if len(text) > limits.FORM_CHARACTERS:
        raise LimitExceeded(f"{what} has {len(text):,} characters, over {limits.FORM_CHARACTERS:,}; make it smaller")
    depth = 0
    for bracket in re.findall(r"[(\[{)\]}]", re.sub(r"\\.", "", text, flags=re.DOTALL)) if nested else ():
        depth = depth + 1 if bracket in "([{" else max(depth - 1, 0)
        if depth > limits.FORM_DEPTH:
            raise LimitExceeded(f"{what} is nested over {limits.FORM_DEPTH} deep; make it flatter")


def _check_words(schema: Any) -> None:
    """Raises InvalidInput for a word that would not be followed, in the schema or in those within it."""
    if not isinstance(schema, dict):
        return
    types = schema.get("type", "string")
    if "format" in schema and "string" not in (types if isinstance(types, list) else [types]):
        raise InvalidInput(f"json_schema has a format of {show(types)}, only those of strings are followed; bound it")
    if not isinstance(schema.get("required", []), list):
        raise InvalidInput(f"json_schema has required={show(schema['required'])}, wanted a list of names")
    ref = schema.get("$ref", "#")
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):  # by another name it could go in circles
        raise InvalidInput(f"json_schema has $ref={show(ref)}, wanted a place in the schema itself, such as #/$defs/a")
    for word, value in schema.items():
        if word == "x-guidance" or not (word in FOLLOWED | SILENT or word.startswith("x-")):
            hint = did_you_mean(word, FOLLOWED)
            raise InvalidInput(f"json_schema has {show(word)}{hint}, which would not be followed; leave it out")
        if word in NUMBERS | {"const", "enum"} and _largest(value) > EXACT:
            raise InvalidInput(f"json_schema has {word}={show(value)}, wanted at most 2^53, up to where it is exact")
        if word in TABLES and isinstance(value, dict):
            value = list(value.values())
        elif word not in NESTED:
            continue
        for part in value if isinstance(value, list) else [value]:
            _check_words(part)


def _largest(value: Any) -> float:
    """Of the numbers in a value, without their signs."""
    if isinstance(value, dict | list):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


def _ends(schema: dict[str, Any]) -> bool:
    """Whether a finite value can meet a schema, by its references: what they lead to must, in the end, need none."""
    targets = {ref: _target(schema, ref) for ref in _references(schema)}
    if len(targets) > limits.FORM_RULES:
        raise LimitExceeded(f"json_schema has {len(targets):,} $ref, over {limits.FORM_RULES:,}; make it smaller")
    endless = {ref for ref, target in targets.items() if target is not None}  # the others are not ours to judge
    while settled := {ref for ref in endless if _finite(targets[ref], endless)}:
        endless -= settled
    return _finite(schema, endless)


def _references(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_references, part))
    if not isinstance(part, dict):
        return set()
    found = set().union(*map(_references, part.values()))
    return found | {part["$ref"]} if isinstance(part.get("$ref"), str) else found


def _target(schema: Any, ref: str) -> dict[str, Any] | None:
    """What a reference within the schema leads to, by RFC 6901; None if it leads nowhere."""
    for step in ref[1:].split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return None
    return schema if isinstance(schema, dict) else None


def _finite(schema: Any, endless: set[str]) -> bool:
    """Whether a finite value can meet a schema if none can meet what is `endless`."""
    if not isinstance(schema, dict):
        return True

    def listed(key: str) -> list[Any]:
        return schema[key] if isinstance(schema.get(key), list) else []

    needed = listed("allOf")
    if schema.get("type") == "object":
        properties = schema.get("properties")
        rest = schema.get("additionalProperties")
        known = properties if isinstance(properties, dict) else {}
        needed = needed + [known.get(name, rest) for name in listed("required") if isinstance(name, str)]
    if schema.get("type") == "array" and isinstance(least := schema.get("minItems"), int) and least > 0:
        first = listed("prefixItems")
        needed = needed + first[:least] + ([schema.get("items")] if least > len(first) else [])
    ways = [listed(key) for key in ("anyOf", "oneOf") if listed(key)]
    return (
        schema.get("$ref") not in endless
        and all(_finite(part, endless) for part in needed)
        and all(any(_finite(part, endless) for part in parts) for parts in ways)
    )
