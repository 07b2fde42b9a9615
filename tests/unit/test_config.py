"""Settings: where they come from, and what is said when they are wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_worker.config import WorkerSettings
from broker.config import LogSettings, NatsSettings, from_environment, load, read_file, setting
from broker.errors import ConfigError
from gateway.config import GatewaySettings


@dataclass(frozen=True, slots=True)
class Example:
    name: str = setting("default", "a name")
    size: int = setting(5, "a size", minimum=1, maximum=9)
    wait_s: float = setting(1.5, "seconds", minimum=0.1)
    loud: bool = setting(False, "whether")


def example(
    flags: dict[str, Any] | None = None, env: dict[str, str] | None = None, file: dict[str, Any] | None = None
) -> Example:
    return load(Example, flags or {}, env or {}, file or {})


def test_defaults() -> None:
    assert example() == Example("default", 5, 1.5, False)


def test_a_flag_comes_before_the_environment_before_the_file() -> None:
    flags, env, file = {"name": "flag"}, {"ANTIPHON_NAME": "env"}, {"name": "file"}
    assert example(flags, env, file).name == "flag"
    assert example({"name": None}, env, file).name == "env"
    assert example({}, {}, file).name == "file"
    assert example({"name": ""}, env).name == "", "an empty flag is a value"


@pytest.mark.parametrize("raw", ["7", 7, "7.0", 7.0])
def test_numbers(raw: Any) -> None:
    assert example({"wait_s": raw}).wait_s == 7.0
    if raw != "7.0":
        assert example({"size": raw}).size == 7


@pytest.mark.parametrize(
    ("raw", "value"), [("1", True), ("TRUE", True), ("on", True), ("no", False), ("0", False), (True, True)]
)
def test_switches(raw: Any, value: bool) -> None:
    assert example(env={"ANTIPHON_LOUD": raw}).loud is value


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("size", "many", "ANTIPHON_SIZE must be a whole number, not 'many'"),
        ("size", "1.5", "ANTIPHON_SIZE must be a whole number, not '1.5'"),
        ("size", "", "ANTIPHON_SIZE must be a whole number, not ''"),
        ("size", "0", "ANTIPHON_SIZE must be at least 1"),
        ("size", "10", "ANTIPHON_SIZE must be at most 9"),
        ("wait_s", "soon", "ANTIPHON_WAIT_S must be a number, not 'soon'"),
        ("wait_s", "nan", "ANTIPHON_WAIT_S must be a number, not 'nan'"),
        ("wait_s", "inf", "ANTIPHON_WAIT_S must be a number, not 'inf'"),
        ("wait_s", "0", "ANTIPHON_WAIT_S must be at least 0.1"),
        ("loud", "perhaps", "ANTIPHON_LOUD must be true or false, not 'perhaps'"),
    ],
)
def test_what_is_wrong_is_named(name: str, raw: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        example(env={f"ANTIPHON_{name.upper()}": raw})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"size": 1.5}, r"size \(file\) must be a whole number"),
        ({"size": True}, r"size \(file\) must be a whole number"),
        ({"size": float("inf")}, r"size \(file\) must be a whole number"),
        ({"size": [1]}, r"size \(file\) must be a whole number"),
        ({"wait_s": float("nan")}, r"wait_s \(file\) must be a number"),
        ({"name": 7}, r"name \(file\) must be text"),
    ],
)
def test_a_file_has_types_of_its_own(file: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        example(file=file)


def test_a_wrong_flag_is_named_as_one() -> None:
    with pytest.raises(ConfigError, match=r"^--wait-s must be"):
        example({"wait_s": "x"})


def test_the_file_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "antiphon.toml"
    path.write_text('name = "file"\nsize = 3\n', encoding="utf-8")
    monkeypatch.setenv("ANTIPHON_CONFIG", str(path))
    monkeypatch.setenv("ANTIPHON_SIZE", "4")
    assert from_environment(Example, loud=True) == Example("file", 4, 1.5, True)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "antiphon.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="ANTIPHON_CONFIG"):
        read_file({"ANTIPHON_CONFIG": str(path)})


def test_no_file_is_no_settings() -> None:
    assert read_file({}) == {}


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_replicas_are_odd(replicas: str) -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_REPLICAS must be 1, 3 or 5"):
        load(LogSettings, {}, {"ANTIPHON_REPLICAS": replicas}, {})


def test_pools_are_a_list() -> None:
    assert load(LogSettings, {"pools": "a, b,,"}, {}, {}).pool_names == ("a", "b")


@pytest.mark.parametrize("cls", [NatsSettings, LogSettings, GatewaySettings, WorkerSettings])
def test_settings_keep_their_own_bounds(cls: type) -> None:
    """Every default is one that could be given, and every setting says what it means."""
    fields = dataclasses.fields(cls)
    assert load(cls, {field.name: field.default for field in fields}, {}, {}) == cls()
    assert all(field.metadata["meaning"] for field in fields)


def test_no_setting_has_two_meanings() -> None:
    """All settings share one name space: the environment."""
    names = [
        f.name for cls in (NatsSettings, LogSettings, GatewaySettings, WorkerSettings) for f in dataclasses.fields(cls)
    ]
    assert len(names) == len(set(names))
