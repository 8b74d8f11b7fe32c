"""Writes the JSON Schemas of request and answer from the records that the program reads requests with.

``python docs/build_schema.py`` writes ``profiles/schema/request.json`` and ``answer.json``; the tests hold the files to
what this script makes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from planner import budget  # noqa: E402 - the path is set above
from planner.catalog.engines import ENGINES, load_engine  # noqa: E402
from planner.deployment import request as requests  # noqa: E402
from planner.engines.measured import MeasuredSettings  # noqa: E402
from planner.machine_file import _Machine  # noqa: E402

DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
SIZES = {str: ("minLength", "maxLength"), int: ("minimum", "maximum"), float: ("minimum", "maximum")}
IMAGE = {"type": "string", "pattern": "^[0-9]{1,7}[xX][0-9]{1,7}(:[0-9]{1,5})?$"}
BYTES = {"type": "integer", "minimum": 0}


def of_type(hint: Any) -> dict[str, Any]:  # noqa: ANN401, PLR0911 - any annotation; one case a line
    """Return the schema of an annotation, as ``planner.strict`` reads it."""
    origin = get_origin(hint)
    if hint is Any:
        return {}
    if origin is Annotated:
        inner, *ranges = get_args(hint)
        return {**of_type(inner), **bounds(inner, ranges)}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin in (Union, UnionType):
        return one_of([of_type(member) for member in get_args(hint)])
    if origin in (list, tuple):
        return {"type": "array", "items": of_type(get_args(hint)[0])}
    if origin is dict:
        values = of_type(get_args(hint)[1])
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    if is_dataclass(hint):
        return record(hint)
    return {"type": PLAIN[hint]}


def bounds(kind: Any, ranges: list[Any]) -> dict[str, Any]:  # noqa: ANN401 - any annotation
    """Return the limits that ``Between`` sets on a number's value or on a length."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    low_word, high_word = ("minItems", "maxItems") if get_origin(kind) is tuple else SIZES[members[0]]
    return {
        word: limit
        for low, high in ranges
        for word, limit in ((low_word, low), (high_word, high))
        if abs(limit) != float("inf")
    }


def one_of(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a schema that any of ``members`` satisfies; plain types are written as a list."""
    if all(set(member) == {"type"} for member in members):
        return {"type": [member["type"] for member in members]}
    return {"anyOf": members}


def record(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """Return the schema of a record: every key known, those without a default required."""
    hints = get_type_hints(kind, include_extras=True)
    known = fields(kind)
    required = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
    found = {"type": "object", "properties": {f.name: of_type(hints[f.name]) for f in known}}
    return {**found, **({"required": required} if required else {}), "additionalProperties": False}


def request_schema() -> dict[str, Any]:
    """Return the schema of a request; ``settings`` are the named engine's own words."""
    schema = record(requests._Request)  # noqa: SLF001 - the record itself is the source
    properties = schema["properties"]
    properties["workload"]["properties"]["images"]["items"] = IMAGE
    properties["machine"] = {"anyOf": [{"$ref": "#/$defs/machine"}, {"type": "null"}]}
    kinds = {name: load_engine(name).settings for name in ENGINES}
    assert kinds["measured"] is MeasuredSettings, "an engine's settings are its frozen class"  # noqa: S101
    properties["engine"]["examples"] = list(ENGINES)
    properties["engine"]["default"] = "llama.cpp"
    cases = [
        {
            "if": {"properties": {"engine": {"const": name}}, "required": ["engine"]},
            "then": {"properties": {"settings": {"$ref": f"#/$defs/{name}"}}},
        }
        for name in kinds
    ]
    unnamed = {
        "if": {"not": {"required": ["engine"]}},
        "then": {"properties": {"settings": {"$ref": "#/$defs/llama.cpp"}}},
    }
    definitions = {"machine": record(_Machine), **{name: record(kind) for name, kind in kinds.items()}}
    return {
        "$schema": DRAFT,
        "title": "vlplan request",
        "description": "One deployment to judge: vlplan check, vlplan batch, planner.estimate, planner.recommend.",
        **schema,
        "allOf": [unnamed, *cases],
        "$defs": definitions,
    }


def item_schema() -> dict[str, Any]:
    """Return the schema of one term of a device's memory."""
    sizes = ("resident_bytes", "low_bytes", "expected_bytes", "high_bytes")
    properties = {
        "component": {"enum": list(get_args(budget.Component))},
        "part": {"enum": list(get_args(budget.Part))},
        **dict.fromkeys(sizes, BYTES),
        "basis": {"enum": list(get_args(budget.Basis))},
        "formula": {"type": "string", "minLength": 1},
        "source": {"type": "string"},
        "inputs": {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean"]}},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def device_schema() -> dict[str, Any]:
    """Return the schema of one device: its memory, what lies on it and what stays free (negative: short)."""
    layers = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
    properties = {
        "device": {"type": "string", "minLength": 1},
        "name": {"type": "string"},
        "total_bytes": BYTES,
        "free_bytes": BYTES,
        "layers": {"anyOf": [layers, {"type": "null"}]},
        "has_output": {"type": "boolean"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "expected_bytes": BYTES,
        "high_bytes": BYTES,
        "headroom_bytes": {"type": "integer"},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def image_schema() -> dict[str, Any]:
    """Return the schema of what became of one image."""
    count = {"type": "integer", "minimum": 0}
    required = {
        "image": {"type": "string"},
        "tokens": count,
        "extra_tokens": count,
        "resized_to": {"type": "string"},
        "wasted_pixels": count,
        "tiles": count,
    }
    return {
        "type": "object",
        "properties": {**required, "cross_tokens": count},
        "required": list(required),
        "additionalProperties": False,
    }


def speed_schema() -> dict[str, Any]:
    """Return the schema of the speeds: seconds or tokens per second as a range, with what bounds them."""
    amount = {"type": "number", "minimum": 0}
    properties = {
        **dict.fromkeys(("low", "expected", "high"), amount),
        "bound_by": {"type": "string"},
        "basis": {"enum": list(get_args(budget.Basis))},
    }
    row = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "object", "propertyNames": {"pattern": "_s$"}, "additionalProperties": row}


def answer_schema() -> dict[str, Any]:
    """Return the schema of an answer: a plan, or the error that stands in its place in a batch."""
    text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    required: dict[str, Any] = {
        "schema": {"const": 1},
        "verdict": {"enum": list(get_args(budget.Verdict))},
        "model": text,
        "quantization": {"type": ["string", "null"]},
        "engine": {"enum": list(ENGINES)},
        "engine_version": text,
        "simulated": {"type": "boolean"},
        "devices": {"type": "array", "items": {"$ref": "#/$defs/device"}},
        "image_tokens": {"type": "array", "items": {"$ref": "#/$defs/image"}},
        "settings": {"type": "object"},
        "changes": texts,
        "reasons": texts,
        "command": text,
        "config": text,
        "speed": speed_schema(),
    }
    optional = {"alternatives": {"type": "array", "items": {"$ref": "#/$defs/plan"}}, "manifest": text}
    plan = {"type": "object", "properties": {**required, **optional}, "required": list(required)}
    error = {"type": "object", "properties": {"schema": {"const": 1}, "error": text}, "required": ["schema", "error"]}
    return {
        "$schema": DRAFT,
        "title": "vlplan answer",
        "description": "The verdict on one request, with the bytes behind it. All sizes are whole bytes.",
        "oneOf": [{"$ref": "#/$defs/plan"}, {"$ref": "#/$defs/error"}],
        "$defs": {
            "plan": {**plan, "additionalProperties": False},
            "error": {**error, "additionalProperties": False},
            "device": device_schema(),
            "item": item_schema(),
            "image": image_schema(),
        },
    }


def schema_texts() -> dict[str, str]:
    """Return the files of ``profiles/schema`` by name."""
    made = {"request": request_schema(), "answer": answer_schema()}
    return {f"{name}.json": json.dumps(schema, indent=1) + "\n" for name, schema in made.items()}


if __name__ == "__main__":
    for name, text in schema_texts().items():
        (ROOT / "profiles" / "schema" / name).write_text(text, encoding="utf-8")
