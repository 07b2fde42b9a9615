"""What is called with hostile bytes: each target takes any bytes, and fails on whatever must not come of them.

A target raises nothing but `AssertionError`, or what the code under it should not have raised: the refusals that it may
give are caught here, and they are all there are. What comes out is bounded by what went in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from broker import presence
from broker.attachments import from_wire as attachment_from_wire
from broker.attachments import name_problem, parse_media_type
from broker.audit import AuditRecord
from broker.codec import decode_at, frame
from broker.errors import CodecError, InvalidName, Refused
from broker.revocations import Revocation
from broker.schema import SchemaInvalid, Schemas
from broker.subjects import (
    Kind,
    Place,
    SessionSubjects,
    check_claim_id,
    check_device,
    check_input_id,
    check_lane,
    check_run_id,
    check_session,
    check_tenant,
    place_of,
)
from broker.tools import parse_tools
from broker.tracing import parse_context
from gateway import protocol
from gateway.fields import BadFrame
from gateway.jwks import JWKS_KEYS, PUBLISHED, JwksInvalid, parse_jwks
from gateway.replay import delta_body, sane_body, settled_streams, without_settled_text
from webhooks import due
from webhooks.endpoints import ENDPOINTS_MAX, endpoints_of
from webhooks.errors import EndpointsInvalid
from webhooks.telling import Mark

Target = Callable[[bytes], None]
INPUT_MAX = 262_144
"""Bytes of an input; the largest frame that a gateway takes is half of it."""
_MESSAGE_MAX = 1_000
"""Characters of a refusal's text, whatever was refused."""


@contextlib.contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """A refusal is well; its text is in bounds, and can be sent."""
    try:
        yield
    except errors as error:
        _check_refusal(error)


def _check_refusal(error: Exception) -> None:
    assert len(str(error)) <= _MESSAGE_MAX, f"a refusal of {len(str(error))} characters"
    orjson.dumps(str(error))
    if isinstance(error, Refused):
        assert len(protocol.error(1, error)) <= 4 * _MESSAGE_MAX


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


# --- what clients send ---------------------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """A frame of a WebSocket, as bytes and as text."""
    with refusing(BadFrame):
        command = protocol.parse(data)
        with contextlib.suppress(UnicodeDecodeError):
            assert protocol.parse(data.decode()) == command
        orjson.dumps(protocol.ok(command.id).decode())
        if isinstance(command, protocol.Subscribe):
            parse_tools(command.tools)
        if isinstance(command, protocol.Subscribe) and command.after is not None:
            protocol.parse_cursor(command.after)


def frames_refused(data: bytes) -> None:
    """As `frames`; what comes after the parser may be refused, too."""
    with refusing(Refused):
        frames(data)


def tools(data: bytes) -> None:
    """The tools that a subscription declares."""
    with refusing(Refused):
        declared = parse_tools(_json(data))
        assert len(declared) <= 64


def schemas(data: bytes) -> None:
    """A JSON Schema, and a value that it is to check: `{"schema":…,"value":…}`."""
    wire = _json(data)
    if not isinstance(wire, dict) or not isinstance(wire.get("schema"), dict):
        return
    with refusing(SchemaInvalid):
        problem = Schemas().problem(wire["schema"], wire.get("value"))
        assert problem is None or len(orjson.dumps(problem.message)) <= 4 * _MESSAGE_MAX


def cursors(data: bytes) -> None:
    """A cursor."""
    with contextlib.suppress(UnicodeDecodeError), refusing(Refused):
        epoch, seq = protocol.parse_cursor(data.decode())
        assert epoch
        assert 0 <= seq < 10**16


_CHECKS: tuple[Callable[[str], str], ...] = (
    *(check_session, check_tenant, check_lane, check_input_id, check_claim_id, check_device, check_run_id),
)


def names(data: bytes) -> None:
    """A name, or a session's key. What passes is fit for a subject, and for no other than its own."""
    text = data.decode("utf-8", "surrogateescape")
    for check in _CHECKS:
        with refusing(InvalidName):
            name = check(text)
            assert name == text
            assert name.isascii()
            assert not set(name) & set(" .*>~/\\\r\n\t\0")
    with refusing(InvalidName):
        subjects = SessionSubjects.of(text, 16)
        assert subjects.key == text
        assert subjects.inputs.count(".") == 4
        assert place_of(subjects.inputs) is not None
    with contextlib.suppress(InvalidName):
        assert SessionSubjects.of(check_session(text), 16).tenant == ""


def headers(data: bytes) -> None:
    """The W3C headers of a trace, a media type, the name of a file: a line each."""
    first, _, second = data.decode("utf-8", "replace").partition("\n")
    context = parse_context(first, second)
    if context is not None:
        assert len(context.headers["traceparent"]) == 55
        assert context.headers.get("tracestate", "").isascii()
        assert parse_context(context.traceparent, context.state) == context
    media_type = parse_media_type(first)
    assert media_type is None or (media_type.isascii() and "\n" not in media_type)
    assert name_problem(first) is not None or not set(first) & set("/\\\0\r\n")


# --- what gateways and workers read ----------------------------------------------------------------------------------------


def place_and_body(line: bytes) -> tuple[Place, bytes] | None:
    """An entry of a seed: `<where> <body>`, where being the end of its subject (`r.in`, `r.ev.main`, `d.main`)."""
    where, _, body = line.partition(b" ")
    place = place_of(f"s.00.x.{where.decode('ascii', 'replace')}")
    return None if place is None else (place, body)


def entries(data: bytes) -> None:
    """An entry as the log has it: whoever reads it goes on, and clients get a frame that is the gateway's."""
    found = place_and_body(data)
    if found is None:
        return
    place, body = found
    if place.kind is Kind.DELTA:
        wire = check_frame(frame("mine", 7, 6, delta_body(place, body)), len(body))
        assert wire.get("off") is not None or not wire["events"], "a delta that is a record"
        assert [event["type"] for event in wire["events"]] in ([], *([name] for name in _DELTAS))
        return
    entry, faithful = decode_at(place, body)
    assert (entry.lane or "") in ("", place.lane)
    full = sane_body(entry, faithful, body)
    for said in (full, without_settled_text(entry, full) if settled_streams(entry) else full):
        check_frame(frame("mine", 7, 6, said), len(body))


_DELTAS = ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS")


def check_frame(sent: bytes, size: int) -> dict[str, Any]:
    """A frame of the entry 7 of the session `mine`: JSON for every parser, and about nothing else."""
    assert len(sent) <= 6 * size + 500
    wire: dict[str, Any] = orjson.loads(sent)
    pairs = [pair[0] for pair in _pairs(sent)]
    assert (wire["op"], wire["session"], wire["seq"], wire["prev"]) == ("entry", "mine", 7, 6)
    for name in ("op", "session", "seq", "prev"):
        assert pairs.count(name) == 1, f"{name} is there twice"
    return wire


def _pairs(sent: bytes) -> list[tuple[str, Any]]:
    """The fields of a JSON object, also those that are there twice."""
    import json

    pairs: list[tuple[str, Any]] = json.loads(sent, object_pairs_hook=list)
    return pairs


def messages_of_processes(data: bytes) -> None:
    """What processes tell each other by NATS, or keep there: announcements, revocations, audit, the outbox."""
    with refusing(CodecError):
        presence.encode(presence.decode(data))
    with refusing(CodecError):
        Revocation.decode(data).encode()
    with refusing(CodecError):
        AuditRecord.decode(data).encode()
    with refusing(CodecError):
        due.decode(data).encode()
    mark = Mark.decode(data, [5, 5])
    assert len(mark.positions) == 2
    wire = _json(data)
    if isinstance(wire, dict):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            attachment_from_wire(wire, 1)


# --- what operators write ----------------------------------------------------------------------------------------------------


def key_sets(data: bytes) -> None:
    """A key set, as an issuer publishes it: what comes of it are public keys, each for one algorithm."""
    with refusing(JwksInvalid):
        keys = parse_jwks(data)
        assert 1 <= len(keys) <= JWKS_KEYS
        assert all(key.algorithm in PUBLISHED and not isinstance(key.material, bytes | str) for key in keys)


def endpoints(data: bytes) -> None:
    """The file of webhooks' endpoints."""

    def secret(name: str) -> str:
        if name == "gone":
            raise FileNotFoundError(2, "No such file or directory", name)
        return name

    with refusing(EndpointsInvalid):
        found = endpoints_of(_json(data), secret)
        assert len(found) <= ENDPOINTS_MAX
        for endpoint in found:
            endpoint.wants("run.finished", "a" * 128)


TARGETS: dict[str, Target] = {
    "frames": frames_refused,
    "tools": tools,
    "schemas": schemas,
    "cursors": cursors,
    "names": names,
    "headers": headers,
    "entries": entries,
    "processes": messages_of_processes,
    "key_sets": key_sets,
    "endpoints": endpoints,
}
