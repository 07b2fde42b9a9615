"""Settings: frozen dataclasses, built once at the top of a process and passed down.

A setting comes from a flag, else from the environment (`ANTIPHON_` and the field's name in capitals), else from a TOML
file (named by `ANTIPHON_CONFIG`), else it has its default. `docs/SETTINGS.md` is made from these classes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from broker.errors import ConfigError

T = TypeVar("T")


def setting(default: Any, meaning: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """A field of a settings class: its default, what it means (with its unit), and its bounds."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "min": minimum, "max": maximum})


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """How a process reaches NATS."""

    nats_url: str = setting("nats://127.0.0.1:4222", "NATS servers, separated by commas")
    nats_credentials: str = setting("", "path of a NATS credentials file; empty: none")
    nats_ca_file: str = setting("", "PEM file of the authorities that may sign NATS's certificate; empty: the system's")
    nats_cert_file: str = setting("", "PEM file of a certificate for NATS to know this process by; empty: none")
    nats_key_file: str = setting("", "PEM file of its key; empty: in the same file")
    connect_timeout_s: float = setting(2.0, "seconds for one connection attempt", minimum=0.1)
    reconnect_wait_s: float = setting(0.25, "seconds between connection attempts", minimum=0.01)
    ping_interval_s: float = setting(
        10.0, "seconds between pings to NATS; two unanswered ones end the connection", minimum=1
    )
    ack_timeout_s: float = setting(5.0, "seconds to wait for NATS to confirm a write or answer a request", minimum=0.1)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The shape of the log in JetStream, and how it is written and read."""

    partitions: int = setting(16, "partition streams; fixed once sessions exist", minimum=1, maximum=100)
    replicas: int = setting(1, "copies of each stream: 1, or 3 in a cluster", minimum=1, maximum=5)
    delta_ttl_s: float = setting(
        21_600.0,
        "seconds that token deltas are kept, given to each by the worker that writes it; records are kept for ever",
        minimum=1,
    )
    pools: str = setting("default", "worker pools, separated by commas")
    lease_s: float = setting(15.0, "seconds until a job of a silent worker goes to another", minimum=1)
    catchup_batch: int = setting(256, "entries fetched from the log at once", minimum=1, maximum=1024)
    catchup_concurrency: int = setting(8, "reads of one partition at once, per process", minimum=1)
    join_recheck_s: float = setting(
        2.0, "seconds after a join at which the head of the log is checked again", minimum=0
    )

    def __post_init__(self) -> None:
        if self.replicas not in (1, 3, 5):
            raise ConfigError("ANTIPHON_REPLICAS must be 1, 3 or 5")
        if not self.pool_names:
            raise ConfigError("ANTIPHON_POOLS must name at least one pool")

    @property
    def pool_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.pools.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where a process sends spans. Standard `OTEL_…` variables say the rest: headers, certificates, resource."""

    otlp_endpoint: str = setting(
        "", "OpenTelemetry collector (OTLP over HTTP) that spans go to, `http://collector:4318`; empty: none are made"
    )
    trace_sample: float = setting(
        1.0,
        "share of the traces begun here that are recorded; what a client began is as it wants",
        minimum=0,
        maximum=1,
    )
    span_queue: int = setting(2048, "spans that wait for the collector; more are dropped, and counted", minimum=1)
    span_export_s: float = setting(1.0, "seconds that spans are gathered before they are sent", minimum=0.01)
    otlp_timeout_s: float = setting(5.0, "seconds that the collector has to take a batch", minimum=0.1)


def load(cls: type[T], flags: Mapping[str, Any], env: Mapping[str, str], file: Mapping[str, Any]) -> T:
    """Builds a settings class. Raises ConfigError that names the setting, its source and what it must be."""
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable = f"ANTIPHON_{field.name.upper()}"
        if flags.get(field.name) is not None:
            source, raw = f"--{field.name.replace('_', '-')}", flags[field.name]
        elif variable in env:
            source, raw = variable, env[variable]
        elif field.name in file:
            source, raw = f"{field.name} (file)", file[field.name]
        else:
            continue
        value = _convert(source, raw, hints[field.name])
        _check_bounds(source, value, field.metadata)
        values[field.name] = value
    return cls(**values)


def read_file(env: Mapping[str, str]) -> dict[str, Any]:
    """The settings file named by `ANTIPHON_CONFIG`, or nothing. Raises ConfigError if it cannot be read."""
    path = env.get("ANTIPHON_CONFIG")
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"ANTIPHON_CONFIG: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"ANTIPHON_CONFIG: {path} is not TOML: {error}") from None


def from_environment(cls: type[T], **flags: Any) -> T:
    """`load` with this process's environment and settings file."""
    return load(cls, flags, os.environ, read_file(os.environ))


def _convert(source: str, raw: Any, kind: Any) -> Any:
    try:
        if kind is bool:
            return _to_bool(raw)
        if kind in (int, float):
            return _to_number(raw, kind)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{source} must be {_kind_name(kind)}, not {str(raw)[:40]!r}") from None
    if not isinstance(raw, str):
        raise ConfigError(f"{source} must be text")
    return raw


def _to_number(raw: Any, kind: type[int | float]) -> int | float:
    value = kind(raw)
    # No bound holds for "nan"; a file's 1.5 is no whole number, and its `true` no number at all.
    if isinstance(raw, bool) or not math.isfinite(value) or (isinstance(raw, float) and value != raw):
        raise ValueError
    return value


def _to_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    match str(raw).lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError


def _kind_name(kind: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "text")


def _check_bounds(source: str, value: Any, metadata: Mapping[str, Any]) -> None:
    low, high = metadata.get("min"), metadata.get("max")
    if low is not None and value < low:
        raise ConfigError(f"{source} must be at least {low:g}")
    if high is not None and value > high:
        raise ConfigError(f"{source} must be at most {high:g}")
