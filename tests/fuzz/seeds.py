"""What hostile bytes are made from: good frames, tokens, entries and files, a few for each target. Lines stand for themselves."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from broker.checkpoint import Checkpoint, encode_checkpoint, page_at
from broker.codec import entry_from_wire
from broker.session import fold
from broker.state import SessionState

_HEADERS = (
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\na=b,c@d=e",
    "text/plain; charset=utf-8\nx",
)
CASES = Path(__file__).parents[1] / "conformance" / "cases"
_CORPUS = Path(__file__).with_name("corpus")
WAITING = (_CORPUS / "waiting.log").read_bytes().rstrip()
"""A log at whose end a call, an approval, a question and a hand-over wait."""
_GOES_ON = b"\n" + (_CORPUS / "goes_on.log").read_bytes().rstrip()
_IMPORTED = (_CORPUS / "imported.log").read_bytes().rstrip()


def _claims(**more: Any) -> str:
    return json.dumps({"sub": "user-1", "name": "A user", "exp": 9_999_999_999, "iat": 5, **more})


def _tokens() -> tuple[str, ...]:
    header = '!{"alg":"HS256","typ":"JWT","kid":"k"}\n'
    return (
        header
        + _claims(sessions={"team-*": ["read", "send"], "*-*-*": ["admin"]}, jti="a", tenant="acme", roles=["lead"]),
        header + _claims(sessions=[{"pattern": "*", "rights": ["read"], "roles": ["lead"]}], nbf=1, iss="x", aud=["y"]),
        '!{"alg":"none"}\n' + _claims(),
        '!{"alg":"HS256","crit":["b64"],"b64":false}\n' + _claims(),
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.AAAA",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.",
        "a.b.c",
    )


def _logs() -> tuple[bytes, ...]:
    return (WAITING, WAITING + _GOES_ON, _IMPORTED, *map(_log_of, sorted(CASES.glob("*.json"))))


def _log_of(path: Path) -> bytes:
    """A case of the conformance tests, with the sequences that the target gives."""
    lines: list[bytes] = []
    seqs: dict[str, str] = {}
    for number, frame in enumerate(json.loads(path.read_text(encoding="utf-8"))["entries"], 1):
        seqs[str(frame["seq"])] = str(number * 10)
        entry = {name: value for name, value in frame.items() if name not in ("op", "session", "seq", "prev", "merged")}
        fence, dash, n = frame["id"].partition("-")
        if "lane" in frame and dash and fence in seqs:
            entry["id"] = f"{seqs[fence]}-{n}"
        lines.append(f"{_where(frame)} {json.dumps(entry, ensure_ascii=False)}".encode())
    return b"\n".join(lines)


def _where(frame: dict[str, Any]) -> str:
    if "lane" not in frame:
        return "r.in"
    if "off" in frame:
        return f"d.{frame['lane']}"
    owns = any(event["type"] == "session.owner" for event in frame["events"])
    return f"r.own.{frame['lane']}" if owns else f"r.ev.{frame['lane']}"


def _checkpoints() -> tuple[bytes, ...]:
    found = []
    for number in ("02", "26", "42", "69", "83", "88"):
        case = json.loads(next(CASES.glob(f"{number}-*.json")).read_text(encoding="utf-8"))
        state = SessionState()
        for frame in case["entries"]:
            state = fold(state, frame["seq"], entry_from_wire(frame))
        found.append(encode_checkpoint(Checkpoint(state, (page_at(state),))))
    return tuple(found)


@cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """Those of each target."""
    logs = _logs()
    lines = tuple(dict.fromkeys(line for log in logs[:3] for line in log.split(b"\n")))
    found = {path.stem: tuple(path.read_bytes().splitlines()) for path in _CORPUS.glob("*.txt")}
    return found | {
        "headers": tuple(header.encode() for header in _HEADERS),
        "tokens": tuple(token.encode() for token in _tokens()),
        "entries": lines,
        "logs": logs,
        "checkpoints": _checkpoints(),
        "tails": (bytes(range(200)), b"\x00" * 9),
    }
