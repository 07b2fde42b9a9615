"""Hostile bytes from good ones: changes to the tree that JSON is, and to the bytes themselves. Pure: chance is an argument.

Random bytes are refused by the first check that they meet. What gets further is a frame, a token or an entry as it should
be, but for one or two things: a number that is too large, a key that is there twice, an object where a list belongs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

STEPS_MAX = 4
"""Changes that are made at once."""
TREE_BYTES = 16_384
"""Of a larger line the bytes are changed alone: what is repeated again and again would take all the time."""
NESTED = (5, 120, 230, 250, 254, 300, 1_000, 1_030, 5_000)
"""Depths of what is nested; 254 and 1,024 are where orjson stops to write, and to read."""


class Raw:
    """JSON text as it is, for what no library writes: numbers without end, keys that are there twice."""

    def __init__(self, text: str) -> None:
        self.text = text


SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 10**30, -(2**53), 1.0, 0.5, -0.0, 1e308),
    *(
        "",
        "0",
        "main",
        "default",
        "__proto__",
        "constructor",
        "toString",
        "*",
        ">",
        "a.b",
        "~",
        "a~b",
        "..",
        "\x00",
        "\n",
    ),
    *("x" * 65, "x" * 129, "x" * 5_000, "é", "日本", "\u202e", "\U0001f600", "run_", "run_i1", "1-1", "1-99", "01-1"),
    *("0-0", "9007199254740993-1", "msg_i1", "i1", "user-1", "e:1", "e:99999999999999999", "2020-01-01T00:00:00Z"),
    *(Raw("1e400"), Raw("-1e400"), Raw("NaN"), Raw("Infinity"), Raw('"\\ud800"'), Raw('"\\u0000"'), Raw("9" * 400)),
    *(Raw("1E5"), Raw("1.0"), Raw("-0"), Raw("01"), Raw("'x'"), Raw("undefined")),
)
KEYS = (
    *("id", "op", "type", "session", "seq", "prev", "merged", "lane", "off", "ts", "by", "events", "run", "via"),
    *("__proto__", "constructor", "", "$ref", "$id", "$defs", "pattern", "kid", "alg", "crit", "sub", "exp", "roles"),
)


def mutated(data: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """`data`, changed: mostly as the lines of JSON that it is, now and then as bytes. `others` lend their parts."""
    lines = data.split(b"\n")
    for _ in range(chance.randint(1, STEPS_MAX)):
        lines = chance.choice(_OF_LINES)(lines, chance, others)
    return b"\n".join(lines)


# --- lines -------------------------------------------------------------------------------------------------------------


def _one(lines: list[bytes], chance: Random, others: Sequence[bytes]) -> list[bytes]:
    at = chance.randrange(len(lines))
    return [*lines[:at], _line(lines[at], chance, others), *lines[at + 1 :]]


def _again(lines: list[bytes], chance: Random, _: Sequence[bytes]) -> list[bytes]:
    at = chance.randrange(len(lines))
    return [*lines[:at], lines[at], *lines[at:]]


def _gone(lines: list[bytes], chance: Random, _: Sequence[bytes]) -> list[bytes]:
    at = chance.randrange(len(lines))
    return [*lines[:at], *lines[at + 1 :]] if len(lines) > 1 else lines


def _swapped(lines: list[bytes], chance: Random, _: Sequence[bytes]) -> list[bytes]:
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    changed = list(lines)
    changed[at], changed[to] = changed[to], changed[at]
    return changed


def _borrowed(lines: list[bytes], chance: Random, others: Sequence[bytes]) -> list[bytes]:
    if not others:
        return lines
    at = chance.randrange(len(lines))
    return [*lines[:at], chance.choice(chance.choice(others).split(b"\n")), *lines[at:]]


_OF_LINES: tuple[Callable[[list[bytes], Random, Sequence[bytes]], list[bytes]], ...] = (
    *(_one, _one, _one, _one, _one, _one),
    *(_again, _gone, _swapped, _borrowed),
)


def _line(line: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """A line of JSON, which may have a word and a blank before it."""
    before, _, body = line.partition(b" ") if not line.startswith((b"{", b"[")) else (b"", b"", line)
    if len(body) > TREE_BYTES or chance.random() < 0.08:
        return _bytes(line, chance)
    try:
        said = dumps(_tree(json.loads(body), chance, others), twice=chance if chance.random() < 0.1 else None)
    except (ValueError, RecursionError):
        return _bytes(line, chance)
    return before + b" " + said if before else said


# --- trees -------------------------------------------------------------------------------------------------------------


def _tree(tree: Any, chance: Random, others: Sequence[bytes]) -> Any:
    """The tree with one of its parts changed."""
    places = list(_places(tree))
    return _replaced(tree, chance.choice(places), lambda part: _part(part, chance, others))


def _places(tree: Any, at: tuple[Any, ...] = ()) -> Any:
    yield at
    if len(at) < 12:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, part in items:
            yield from _places(part, (*at, key))


def _replaced(tree: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not at:
        return change(tree)
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[at[0]] = _replaced(tree[at[0]], at[1:], change)
    return copy


def _part(part: Any, chance: Random, others: Sequence[bytes]) -> Any:
    change = chance.randrange(8)
    if isinstance(part, dict) and change < 4:
        return _object(part, chance, others)
    if isinstance(part, list) and change < 4:
        return _list(part, chance)
    if isinstance(part, int) and not isinstance(part, bool) and change < 2:
        return chance.choice((Raw(f"{part}.0"), Raw(f"{part}e0"), str(part), -part, part == 1))
    if isinstance(part, int) and not isinstance(part, bool) and change < 4:
        return part + chance.choice((-1, 1, 2**32, -(2**40)))
    if isinstance(part, str) and change < 2:
        return chance.choice((part[:-1], part * 2, part + chance.choice("\x00\n é*.~>/\U0001f600"), part.upper()))
    return _value(part, chance, others)


def _object(part: dict[str, Any], chance: Random, others: Sequence[bytes]) -> dict[str, Any]:
    key = chance.choice([*part]) if part else ""
    match chance.randrange(4):
        case 0:
            return {name: value for name, value in part.items() if name != key}
        case 1:
            return {chance.choice(KEYS) if name == key else name: value for name, value in part.items()}
        case 2 if part:
            return {**part, key: part[chance.choice([*part])]}
        case _:
            return {**part, chance.choice(KEYS): _value(None, chance, others)}


def _list(part: list[Any], chance: Random) -> list[Any]:
    at = chance.randrange(len(part)) if part else 0
    match chance.randrange(4):
        case 0:
            return part[:at] + part[at + 1 :]
        case 1:
            return part[:at] + part[at : at + 1] * chance.choice((2, 3, 70, 300)) + part[at + 1 :]
        case 2:
            return chance.sample(part, len(part))
        case _:
            return [*part, chance.choice(SCALARS)]


def _value(part: Any, chance: Random, others: Sequence[bytes]) -> Any:
    """Anything: a value of its own, one of another seed, or the part itself, somewhere inside."""
    match chance.randrange(6):
        case 0:
            return [part, part]
        case 1:
            return {chance.choice(KEYS): part}
        case 2:
            depth = chance.choice(NESTED)
            opens, shuts = chance.choice((("[", "]"), ('{"a":', "}"), ('{"allOf":[', "]}")))
            return Raw(opens * depth + "1" + shuts * chance.choice((depth, depth, depth - 1)))
        case 3 if others:
            try:
                tree = json.loads(chance.choice(chance.choice(others).split(b"\n")).partition(b" ")[2] or b"1")
            except (ValueError, RecursionError):
                return None
            for key in chance.choice([*_places(tree)]):
                tree = tree[key]
            return tree
        case _:
            return chance.choice(SCALARS)


def dumps(tree: Any, *, twice: Random | None = None) -> bytes:
    """JSON with what is `Raw` as it is; with `twice`, a key of an object may be there a second time."""
    said: list[str] = []
    _say(tree, twice, said.append)
    return "".join(said).encode("utf-8", "surrogatepass")


def _say(tree: Any, twice: Random | None, say: Callable[[str], None]) -> None:
    match tree:
        case Raw():
            say(tree.text)
        case dict():
            items = [*tree.items()]
            if twice is not None and items and twice.random() < 0.3:
                items.insert(twice.randint(0, len(items)), (twice.choice(items)[0], twice.choice(SCALARS)))
            for n, (key, value) in enumerate(items):
                say(("," if n else "{") + json.dumps(key, ensure_ascii=False) + ":")
                _say(value, twice, say)
            say("}" if items else "{}")
        case list():
            say("[")
            for n, value in enumerate(tree):
                if n:
                    say(",")
                _say(value, twice, say)
            say("]")
        case _:
            say(json.dumps(tree, ensure_ascii=False))


# --- bytes -------------------------------------------------------------------------------------------------------------


def _bytes(line: bytes, chance: Random) -> bytes:
    at = chance.randint(0, len(line))
    match chance.randrange(6):
        case 0:
            return line[:at]
        case 1:
            return line[:at] + line[at + chance.randint(1, 8) :]
        case 2:
            return line[:at] + chance.randbytes(chance.randint(1, 6)) + line[at:]
        case 3:
            return (
                line[:at]
                + chance.choice((b"\xff", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b" ", b"\\"))
                + line[at:]
            )
        case 4:
            return line[:at] + line[:at] + line[at:]
        case _:
            return b" " + line if chance.random() < 0.5 else line + b"}"
