"""The document's JSON Schema, made from its types: `python -m kvstrata.verify.schema > docs/verify.schema.json`.

`misfits` reads it too, so that a file is judged by what is published.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAliasType, get_args, get_origin, get_type_hints, is_typeddict

from kvstrata.verify.document import Document, Json

_TYPES: Mapping[Any, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    types.NoneType: "null",
}
# In Python a bool is an int too, in JSON it is none.
_FORMS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (types.NoneType,),
    "array": (list,),
    "object": (dict,),
}


def json_schema() -> dict[str, Any]:
    """Return the schema of `Document`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kvstrata verify --json",
        **_of(Document),
    }


def rendered() -> str:
    """Return the text of docs/verify.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


def misfits(value: Json) -> list[str]:
    """Return what keeps `value` from being a `Document`: a line for each field; empty when it is one."""
    return list(_misfits(value, json_schema(), ""))


def _of(kind: Any) -> dict[str, Any]:
    if isinstance(kind, TypeAliasType):
        # Only Json, which is whatever JSON holds.
        return {}
    if is_typeddict(kind):
        properties = {name: _of(hint) for name, hint in get_type_hints(kind).items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0])}
    if origin is dict:
        return {"type": "object"}
    if origin is types.UnionType:
        return {"anyOf": [_of(argument) for argument in arguments]}
    return {"type": _TYPES[kind]}


def _misfits(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    where = at or "document"
    if "anyOf" in schema:
        tries = [list(_misfits(value, choice, at)) for choice in schema["anyOf"]]
        if all(tries):
            # The other one is null, which is not what was meant.
            yield from tries[0]
        return
    if "enum" in schema and (value not in schema["enum"] or isinstance(value, bool)):
        yield f"{where} is {json.dumps(value)[:40]}; allowed: {', '.join(map(str, schema['enum']))}"
    form = schema.get("type")
    if form and (not isinstance(value, _FORMS[form]) or (isinstance(value, bool) and form != "boolean")):
        yield f"{where} is no {form}"
        return
    if form == "array" and "items" in schema:
        for index, item in enumerate(value):
            yield from _misfits(item, schema["items"], f"{at}[{index}]")
    for name, inner in schema.get("properties", {}).items():
        path = f"{at}.{name}".lstrip(".")
        if name in value:
            yield from _misfits(value[name], inner, path)
        else:
            yield f"{path} is missing"
    if schema.get("additionalProperties") is False:
        for name in value.keys() - schema["properties"]:
            yield f"{at}.{name} is unknown".lstrip(".")


if __name__ == "__main__":
    print(rendered(), end="")
