"""Settings: frozen dataclasses, built once at the top of a process and passed down.

A setting comes from a flag, else from the environment (`ANTIPHON_` and the field's name in capitals), else from a TOML
file (named by `ANTIPHON_CONFIG`), else it has its default. `docs/SETTINGS.md` is made from these classes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from broker.errors import ConfigError, InvalidName
from broker.queues import SHARES_MAX, Layout
from broker.subjects import check_pool_key, split_key

T = TypeVar("T")

_USERINFO = re.compile(r"(?<=//)[^/@]*@")
_INBOX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def setting(default: Any, meaning: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """A field of a settings class: its default, what it means (with its unit), and its bounds."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "min": minimum, "max": maximum})


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """How a process reaches NATS."""

    nats_url: str = setting("nats://127.0.0.1:4222", "NATS servers, separated by commas")
    nats_user: str = setting("", "user of NATS that this process is; empty: as the address or a file says")
    nats_password_file: str = setting("", "file with the user's password, read at each connection")
    nats_credentials: str = setting("", "path of a NATS credentials file, read at each connection; empty: none")
    nats_nkey_file: str = setting("", "file with the seed of a user's NKey, read at each connection; empty: none")
    nats_inbox: str = setting(
        "_INBOX", "prefix of the subjects that answers come to; a user of a role may have only its own"
    )
    nats_ca_file: str = setting("", "PEM file of the authorities that may sign NATS's certificate; empty: the system's")
    nats_cert_file: str = setting(
        "", "PEM file of a certificate for NATS to know this process by, read at each connection; empty: none"
    )
    nats_key_file: str = setting("", "PEM file of its key; empty: in the same file")
    connect_timeout_s: float = setting(2.0, "seconds for one connection attempt", minimum=0.1)
    reconnect_wait_s: float = setting(0.25, "seconds between connection attempts", minimum=0.01)
    ping_interval_s: float = setting(
        10.0, "seconds between pings to NATS; two unanswered ones end the connection", minimum=1
    )
    ack_timeout_s: float = setting(5.0, "seconds to wait for NATS to confirm a write or answer a request", minimum=0.1)

    @property
    def nats_addresses(self) -> str:
        """The servers, without the user and password that their addresses may hold: for people and logs."""
        return ",".join(_USERINFO.sub("", url.strip()) for url in self.nats_url.split(","))

    def __post_init__(self) -> None:
        if bool(self.nats_user) != bool(self.nats_password_file):
            raise ConfigError("ANTIPHON_NATS_USER and ANTIPHON_NATS_PASSWORD_FILE go together: set both, or none")
        if sum(map(bool, (self.nats_user, self.nats_credentials, self.nats_nkey_file))) > 1:
            raise ConfigError("set one of ANTIPHON_NATS_USER, ANTIPHON_NATS_CREDENTIALS, ANTIPHON_NATS_NKEY_FILE")
        if not _INBOX.fullmatch(self.nats_inbox):
            raise ConfigError("ANTIPHON_NATS_INBOX must be tokens of A-Z a-z 0-9 _ - with dots between them")


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
    pools: str = setting(
        "default",
        "worker pools, separated by commas; `TENANT~POOL` is a pool of the tenant's own, for its sessions alone",
    )
    audit_ttl_s: float = setting(
        34_560_000.0, "seconds that records of the audit log are kept; 400 days unless it is given", minimum=3600
    )
    audit_records: int = setting(
        1_000_000, "records of the audit log that are kept at most; then the oldest go", minimum=1000
    )
    priorities: bool = setting(
        True, "whether jobs of high and of low priority have queues of their own, for `antiphon topology apply`"
    )
    tenant_shares: int = setting(
        0,
        "shares among which tenants are spread, for `antiphon topology apply`: workers serve those with jobs in turn; "
        "0: no turns",
        minimum=0,
        maximum=SHARES_MAX,
    )
    lease_s: float = setting(15.0, "seconds until a job of a silent worker goes to another", minimum=1)
    catchup_batch: int = setting(256, "entries fetched from the log at once", minimum=1, maximum=1024)
    catchup_bytes: int = setting(
        262_144, "bytes after which such a read ends: at most as many as a reader's outbox holds", minimum=4096
    )
    catchup_concurrency: int = setting(8, "reads of one partition at once, per process", minimum=1)
    catchup_reads: int = setting(
        32, "reads of all partitions at once, per process; each may have 1 MiB in memory", minimum=1
    )
    join_recheck_s: float = setting(
        2.0, "seconds after a join at which the head of the log is checked again", minimum=0
    )
    attachments_bytes: int = setting(
        0,
        "bytes that the attachments of all sessions may take, in each copy, so that they leave room for the logs; "
        "0: as many as there is room for",
        minimum=0,
    )

    def __post_init__(self) -> None:
        if self.replicas not in (1, 3, 5):
            raise ConfigError("ANTIPHON_REPLICAS must be 1, 3 or 5")
        if not self.pool_names:
            raise ConfigError("ANTIPHON_POOLS must name at least one pool")
        try:
            owners = [split_key(check_pool_key(pool))[0] for pool in self.pool_names]
        except InvalidName as error:
            raise ConfigError(f"ANTIPHON_POOLS: {error}, after a tenant and ~ or not") from None
        if owners[0]:
            raise ConfigError("ANTIPHON_POOLS: the first must be everybody's, not a tenant's own")

    @property
    def layout(self) -> Layout:
        """The queues of each pool."""
        return Layout(self.priorities, self.tenant_shares)

    @property
    def pool_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.pools.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class AttachmentSettings:
    """What attachments may be, and how long those that nothing refers to are kept."""

    attachment_bytes: int = setting(26_214_400, "bytes an attachment may have", minimum=1, maximum=2**31)
    attachments_per_session: int = setting(1000, "attachments a session may have", minimum=1, maximum=10_000)
    attachments_session_bytes: int = setting(
        1_073_741_824, "bytes the attachments of a session may have together", minimum=1
    )
    attachment_types: str = setting(
        "image/png,image/jpeg,image/gif,image/webp,audio/*,video/*,application/pdf,application/json,application/zip,"
        "application/vnd.openxmlformats-officedocument.*,text/plain,text/markdown,text/csv",
        "media types that attachments may have, separated by commas; `*` stands for any characters",
    )
    attachment_unused_s: float = setting(
        86_400.0, "seconds that an attachment is kept to which no message refers", minimum=1
    )
    attachment_upload_s: float = setting(600.0, "seconds that an upload may take", minimum=1)
    attachment_idle_s: float = setting(30.0, "seconds in which an upload or a download must move on", minimum=0.1)
    attachment_uploads: int = setting(64, "uploads and downloads at once, per gateway", minimum=1)
    attachment_sweep_s: float = setting(
        300.0, "seconds between looks for what cut-short uploads have left", minimum=0.1
    )

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(name.strip().lower() for name in self.attachment_types.split(",") if name.strip())


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
