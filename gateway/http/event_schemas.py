"""JSON Schemas of the events of the log, made of the classes that the codec reads and writes. Pure."""

from __future__ import annotations

from typing import Any

from broker.codec import EVENT_TYPES, EventField

_JSON: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "str | None": {"type": "string"},
    "int": {"type": "integer"},
    "int | None": {"type": "integer"},
    "bool": {"type": "boolean"},
    "Any": {},
    "Mapping[str, Any]": {"type": "object"},
    "Mapping[str, Any] | None": {"type": "object"},
    "Sequence[str]": {"type": "array", "items": {"type": "string"}},
    "Sequence[str] | None": {"type": "array", "items": {"type": "string"}},
    "Sequence[Mapping[str, Any]]": {"type": "array", "items": {"type": "object"}},
    "Sequence[Mapping[str, Any]] | None": {"type": "array", "items": {"type": "object"}},
}
"""By annotation. What is None is left out on the wire."""


def event_schemas() -> dict[str, dict[str, Any]]:
    """By type. Fields beyond those that are named are allowed, and kept."""
    return {type_: _schema(type_, cls, fields) for type_, (cls, fields) in EVENT_TYPES.items()}


def _schema(type_: str, cls: type, fields: tuple[EventField, ...]) -> dict[str, Any]:
    properties = {"type": {"const": type_}, **{spec.wire: _JSON[spec.kind] for spec in fields}}
    required = ["type", *(spec.wire for spec in fields if spec.required)]
    meaning = (cls.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
    # A dataclass without words of its own has its signature as its docstring.
    described = {} if meaning.startswith(f"{cls.__name__}(") else {"description": " ".join(meaning.split())}
    return {"type": "object", **described, "properties": properties, "required": required}


def any_event(reference: str) -> dict[str, Any]:
    """Any event at all: one of those that are known, as it must be, or one of another type. `reference` ends in `/`."""
    known = list(EVENT_TYPES)
    other = {
        "type": "object",
        "description": "Any other, passed through as it is",
        "properties": {"type": {"type": "string", "not": {"enum": known}}},
        "required": ["type"],
    }
    return {"oneOf": [*({"$ref": reference + type_} for type_ in known), other]}
