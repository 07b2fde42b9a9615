"""The AsyncAPI document: valid by AsyncAPI's own schema, and true of the codec and of the protocol's parser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import orjson
import pytest

from broker.codec import event_from_wire, event_to_wire
from broker.errors import Refused
from broker.events import Event, OtherEvent
from gateway import plane, protocol
from gateway.http.asyncapi import commands, document, frames
from gateway.http.event_schemas import event_schemas
from tests.unit.test_codec import AGENT_PLANE, SESSION_PLANE

DOCUMENT = orjson.loads(orjson.dumps(document("1.0.0")))
META = Path(__file__).parents[1] / "openapi" / "asyncapi-3.0.0.json"
"""The JSON Schema of AsyncAPI 3.0.0, from the npm package @asyncapi/specs 6.11.1 (Apache-2.0)."""

SAMPLES: dict[str, Any] = {
    "session": "s",
    "inputId": "i",
    "runId": "run_i",
    "toolCallId": "c",
    "claimId": "k",
    "approvalId": "a",
    "handoffId": "h",
    "lane": "main",
    "to": "t",
    "token": "x",
    "content": "x",
    "option": "x",
    "key": "x",
    "value": 1,
    "result": 1,
    "title": "x",
    "state": "typing",
}


def resolved(node: Any) -> Any:
    """The document's schema with its references to components as references to definitions of its own."""
    text = orjson.dumps(node).replace(b"#/components/schemas/", b"#/$defs/")
    return {**orjson.loads(text), "$defs": orjson.loads(defs())}


def defs() -> bytes:
    return orjson.dumps(DOCUMENT["components"]["schemas"]).replace(b"#/components/schemas/", b"#/$defs/")


def test_it_is_valid_by_asyncapi_s_own_schema() -> None:
    validator = jsonschema_rs.Draft7Validator(orjson.loads(META.read_bytes()))
    assert [f"{list(e.instance_path)}: {e.message[:200]}" for e in validator.iter_errors(DOCUMENT)] == []


def test_its_references_lead_somewhere() -> None:
    def found(pointer: str) -> bool:
        node: Any = DOCUMENT
        for step in pointer.removeprefix("#/").split("/"):
            if step not in node:
                return False
            node = node[step]
        return True

    references = re.findall(r'"\$ref":"([^"]+)"', orjson.dumps(DOCUMENT).decode())
    assert len(references) > 100
    assert [reference for reference in references if not found(reference)] == []


def test_it_has_every_event_of_the_codec() -> None:
    types = {cls.TYPE for cls in get_args(Event) if cls is not OtherEvent}
    assert set(event_schemas()) == types
    assert set(DOCUMENT["components"]["schemas"]) == types | {"Event"}


@pytest.mark.parametrize("event", [*AGENT_PLANE, *SESSION_PLANE], ids=lambda event: type(event).__name__)
def test_events_are_as_it_says(event: Event) -> None:
    validator = jsonschema_rs.Draft202012Validator(resolved({"$ref": "#/components/schemas/Event"}))
    wire = orjson.loads(orjson.dumps(event_to_wire(event)))
    assert validator.is_valid(wire), wire
    schema = event_schemas().get(wire["type"])
    if schema is None:
        return
    assert set(wire) <= set(schema["properties"]) | set(getattr(event, "extra", {}))
    for name in schema["required"]:
        less = {key: value for key, value in wire.items() if key != name}
        assert not validator.is_valid(less)
        assert name == "type" or isinstance(event_from_wire(less), OtherEvent)


def test_it_has_every_command_that_the_gateway_knows() -> None:
    source = Path(protocol.__file__).read_text(encoding="utf-8")
    known = {*re.findall(r'case "([a-z.]+)":', source), *plane.OPS}
    assert set(commands()) == known


@pytest.mark.parametrize("op", sorted(commands()))
def test_commands_are_as_it_says(op: str) -> None:
    schema = commands()[op]
    least = {name: SAMPLES[name] for name in schema.get("required", ())}
    match op:
        case "tool.result":
            least["result"] = 1
        case "session.update":
            least["title"] = "x"
    payload = DOCUMENT["components"]["messages"][f"command:{op}"]["payload"]
    validator = jsonschema_rs.Draft202012Validator(payload)
    wire = {"op": op, "id": 1, **least}
    assert validator.is_valid(wire)
    protocol.parse(orjson.dumps(wire))
    for name in schema.get("required", ()):
        less = {key: value for key, value in wire.items() if key != name}
        assert not validator.is_valid(less)
        with pytest.raises(Refused):
            protocol.parse(orjson.dumps(less))
    known = SAMPLES.keys() & schema["properties"].keys()
    for name in known - {"result", "value"}:
        wrong = wire | {name: ["no"]}
        assert not validator.is_valid(wrong)
        with pytest.raises(Refused):
            protocol.parse(orjson.dumps(wrong))


def test_it_has_every_frame_of_the_server() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(protocol.__file__).parent.rglob("*.py"))
    sent = set(re.findall(r'"op": "([a-z._]+)"', source)) | {"entry", "log.away", "log.back"}
    # Commands are put together in the same way, to be parsed.
    assert set(frames()) | {"closing"} == sent - {"subscribe"}
