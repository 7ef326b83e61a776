"""Strict validation of a manifest against the structural schema of a Kubernetes custom resource.

The API server drops fields that it does not know. Here they are errors, at any depth, as they are for kubectl with
--validate=strict.
"""

from __future__ import annotations

import re
from typing import Any

# What every object of Kubernetes has; a CRD leaves it out.
_OBJECT = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_TYPES = {"string": str, "boolean": bool, "array": list, "object": dict}
_KNOWN = {
    *("type", "properties", "required", "items", "additionalProperties", "enum", "format", "default", "description"),
    *("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "nullable", "anyOf"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
    # How lists are merged, and rules in CEL, which only an API server can evaluate.
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations"),
}


def problems(manifest: Any, definition: dict[str, Any]) -> list[str]:
    """Everything that is wrong with a manifest, by its place; nothing where it is valid."""
    names, group = definition["spec"]["names"], definition["spec"]["group"]
    for version in definition["spec"]["versions"]:
        if (manifest.get("apiVersion"), manifest.get("kind")) == (f"{group}/{version['name']}", names["kind"]):
            schema = version["schema"]["openAPIV3Schema"]
            own = {**schema["properties"], **_OBJECT, "metadata": _METADATA}
            return list(_walk(manifest, {**schema, "properties": own, "required": ["metadata", "spec"]}, ""))
    return [f"no version of {names['kind']} is {manifest.get('apiVersion')} {manifest.get('kind')}"]


def _walk(value: Any, schema: dict[str, Any], place: str) -> Any:
    assert set(schema) <= _KNOWN, f"{place}: {set(schema) - _KNOWN} of the schema is not understood"
    if value is None:
        if not schema.get("nullable"):
            yield f"{place} is null"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{place} is {value!r}, no integer or string"
        elif isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
            yield f"{place} is {value!r}, not like {schema['pattern']}"
        return
    if not _is(value, schema.get("type")):
        yield f"{place} is {value!r}, no {schema['type']}"
        return
    yield from _plain(value, schema, place)
    if isinstance(value, dict):
        yield from _object(value, schema, place)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, schema["items"], f"{place}[{number}]")
        if keys := schema.get("x-kubernetes-list-map-keys"):
            named = [tuple(item.get(key) for key in keys) for item in value if isinstance(item, dict)]
            if len(set(named)) < len(named):
                yield f"{place} names something twice"


def _object(value: dict[str, Any], schema: dict[str, Any], place: str) -> Any:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}.{name} is missing"
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        if name in known:
            yield from _walk(item, known[name], f"{place}.{name}")
        elif isinstance(others, dict):
            yield from _walk(item, others, f"{place}.{name}")
        elif not others and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{place}.{name} is unknown"


def _plain(value: Any, schema: dict[str, Any], place: str) -> Any:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is {value!r}, none of {schema['enum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{place} is {value!r}, not like {schema['pattern']}"
    size = len(value) if isinstance(value, str | list) else value
    kind = {str: "Length", list: "Items"}.get(type(value))
    low, high = (f"min{kind}", f"max{kind}") if kind else ("minimum", "maximum")
    if low in schema and size < schema[low]:
        yield f"{place} is less than {schema[low]}"
    if high in schema and size > schema[high]:
        yield f"{place} is more than {schema[high]}"


def _is(value: Any, kind: str | None) -> bool:
    if kind in ("integer", "number"):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (kind == "number" and isinstance(value, float))
    return kind is None or isinstance(value, _TYPES[kind])
