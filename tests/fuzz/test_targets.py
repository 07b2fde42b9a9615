"""What ever made a target fail does so no more, and neither does a little more of the kind. `make fuzz` goes on from here."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import orjson
import pytest

from gateway import protocol
from gateway.http.operations import OPERATIONS
from gateway.http.requests import Checks, body_of
from tests.fuzz import catalogue
from tests.fuzz.catalogue import ALL, drawn, tried
from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import frames_refused
from tests.fuzz.targets_tokens import signed, tokens

TRIALS = int(os.environ.get("FUZZ_TRIALS", "200"))
"""Hostile inputs for each target."""
FOUND = sorted(path for path in (Path(__file__).parent / "found").glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_failed(path: Path) -> None:
    tried(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", ALL)
def test_good_ones(name: str) -> None:
    for data in seeds()[name]:
        tried(name, data)


@pytest.mark.parametrize("name", ALL)
def test_hostile_ones(name: str) -> None:
    for trial in range(TRIALS):
        data = drawn(name, Random(f"{name}-{trial}"))
        try:
            tried(name, data)
        except Exception as error:
            error.add_note(f"data: {data!r}"[:5_000])
            raise


# --- that the targets can fail -----------------------------------------------------------------------------------------


def test_good_ones_are_good() -> None:
    """Else nothing behind the first check would ever be tried."""
    for frame in seeds()["frames"]:
        protocol.parse(frame)
    taken = [data for data in seeds()["tokens"] if data.startswith(b'!{"alg":"HS256","typ"')]
    assert len(taken) == 2


def test_bodies_are_of_operations() -> None:
    operations = {operation.name: operation for operation in OPERATIONS if operation.body is not None}
    for data in seeds()["bodies"]:
        name, _, body = data.partition(b" ")
        assert body_of(operations[name.decode()], body, Checks())
    assert len({data.split()[0] for data in seeds()["bodies"]}) > len(operations) / 2


def test_most_hostile_frames_are_almost_good() -> None:
    found = [drawn("frames", Random(number)) for number in range(500)]
    objects = 0
    for data in found:
        try:
            objects += isinstance(orjson.loads(data), dict)
        except orjson.JSONDecodeError:
            continue
    assert 150 <= objects < 500
    assert len(set(found)) > 450


def test_chance_is_the_seed_alone() -> None:
    assert mutated(b'{"a":[1,{"b":"c"}]}', Random(7)) == mutated(b'{"a":[1,{"b":"c"}]}', Random(7))


def test_an_error_that_is_no_refusal_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "parse", orjson.loads)
    with pytest.raises(orjson.JSONDecodeError):
        frames_refused(b"{")


def test_a_slow_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CPU_S", 0.0)
    with pytest.raises(AssertionError, match="CPU time"):
        tried("frames", seeds()["frames"][0])


def test_a_token_that_nobody_signed_fails_if_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    token = signed(b'{"alg":"HS256"}', b'{"sub":"u","exp":9999999999}')
    tokens(token.encode())
    monkeypatch.setattr("tests.fuzz.targets_tokens._is_signed", lambda _: False)
    with pytest.raises(AssertionError, match="without a signature"):
        tokens(token.encode())
