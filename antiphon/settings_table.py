"""`python -m antiphon.settings_table` writes docs/SETTINGS.md from the settings classes; with `--check` it compares."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from agent_worker.config import WorkerSettings
from antiphon.callout_config import CalloutSettings
from antiphon.cli import main as antiphon
from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings
from gateway.config import GatewaySettings
from webhooks.config import WebhookSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "SETTINGS.md"
COMMANDS = ("dev", "gateway", "worker", "webhooks", "callout", "topology", "doctor")
"""The commands that take settings as flags."""
SECTIONS: tuple[tuple[str, type], ...] = (
    ("NATS", NatsSettings),
    ("Log", LogSettings),
    ("Gateway", GatewaySettings),
    ("Worker", WorkerSettings),
    ("Attachments", AttachmentSettings),
    ("Webhooks", WebhookSettings),
    ("Callout", CalloutSettings),
    ("Traces", TraceSettings),
)
OTHERS = (
    ("ANTIPHON_CONFIG", "the settings file"),
    ("ANTIPHON_DATA", "the data directory of `antiphon dev` and of the commands beside it; default `.antiphon`"),
    ("ANTIPHON_LOG_LEVEL", "`debug`, `info`, `warning` or `error`; default `info` for processes that run on"),
    ("ANTIPHON_NATS_SERVER", "the nats-server that `antiphon dev` starts; default: the one beside Python, then PATH"),
    ("ANTIPHON_TOKEN", "the token of `antiphon chat`, `send` and `tail`; default: one made beside `antiphon dev`"),
    ("ANTIPHON_URL", "the gateway of `antiphon chat`, `send` and `tail`; default: that of `antiphon dev` beside"),
)
_NOTES = {
    LogSettings: (
        "`antiphon topology apply` makes streams and consumers by these. A running process takes the number of "
        "partitions from the log itself. `ANTIPHON_LEASE_S` must be the same for `topology apply` and for the workers, "
        "which renew a job every third of it. A gateway gives jobs to the pool that a session names (`pool` in "
        "its config), else to the first of `ANTIPHON_POOLS`."
    ),
    TraceSettings: (
        "Spans need the extra `otel` (`pip install 'antiphon[otel]'`); without an endpoint nothing of OpenTelemetry is "
        "imported. Headers, certificates, compression and resource attributes come from the standard variables "
        "(`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES`, …)."
    ),
    GatewaySettings: (
        "Limits are for each connection unless they say otherwise. A gateway does not start without a key to check "
        "tokens with; `antiphon dev` makes one."
    ),
    WorkerSettings: (
        "The worker of `antiphon dev` takes these from the environment and the settings file, but for "
        "`ANTIPHON_WORKER_DRAIN_S` and `ANTIPHON_CANCEL_GRACE_S`, which are short there."
    ),
    WebhookSettings: (
        "The endpoints themselves are in the file that `ANTIPHON_WEBHOOK_FILE` names ([WEBHOOKS.md](WEBHOOKS.md)). "
        "`antiphon dev` sends webhooks if there is one, also to receivers on this machine."
    ),
}
_HEAD = """\
# Settings

Made by `python -m antiphon.settings_table` from the settings classes; do not edit.

A setting comes from its flag, else from its environment variable, else from the settings file, else it has its default.
The settings file is TOML, is named by `ANTIPHON_CONFIG`, and holds settings by their names in small letters, without
`ANTIPHON_` (`port = 8081`). A wrong value ends the process at its start, with a line that names the setting; a name that
is not known is ignored. Units are last in the names: `_s` is seconds. Settings are read once, when a process starts.
"""


def page() -> str:
    """The whole page."""
    flags = {command: flags_of(command) for command in COMMANDS}
    parts = [_HEAD, *(_section(title, cls, flags) for title, cls in SECTIONS), _others()]
    return "\n".join(parts)


def help_of(*command: str) -> str:
    """What `antiphon COMMAND --help` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        antiphon([*command, "--help"])
    return out.getvalue()


def flags_of(*command: str) -> frozenset[str]:
    """The flags that a command takes."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", help_of(*command)))


def _section(title: str, cls: type, flags: dict[str, frozenset[str]]) -> str:
    fields = dataclasses.fields(cls)
    takers = [command for command in COMMANDS if any(_flag(f.name) in flags[command] for f in fields)]
    rows = [_row(field, get_type_hints(cls)[field.name], takers, flags) for field in fields]
    names = ", ".join(f"`{command}`" for command in takers)
    lines = [f"## {title}", "", f"Flags of {names}.", ""]
    if cls in _NOTES:
        lines += [_NOTES[cls], ""]
    lines += ["| variable | flag | default | bounds | meaning |", "|---|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(field: dataclasses.Field[Any], kind: Any, takers: list[str], flags: dict[str, frozenset[str]]) -> str:
    lacking = [command for command in takers if _flag(field.name) not in flags[command]]
    flag = f"`{_flag(field.name)}`" if len(lacking) < len(takers) else "none"
    if flag != "none" and lacking:
        flag += f" (not {', '.join(f'`{command}`' for command in lacking)})"
    default = "none" if field.default == "" else f"`{_number(field.default)}`"
    cells = (f"`ANTIPHON_{field.name.upper()}`", flag, default, _bounds(field, kind), field.metadata["meaning"])
    return f"| {' | '.join(cells)} |"


def _bounds(field: dataclasses.Field[Any], kind: Any) -> str:
    low, high = field.metadata["min"], field.metadata["max"]
    if kind is str:
        return "text"
    match low, high:
        case None, None:
            return "any"
        case _, None:
            return f"≥ {_number(low)}"
        case None, _:
            return f"≤ {_number(high)}"
        case _:
            return f"{_number(low)} to {_number(high)}"


def _number(value: Any) -> str:
    """As one would write it: 15 for 15.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _others() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in OTHERS]
    head = ["## Other variables", "", "| variable | meaning |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, or with `--check` says whether it is as it must be. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m antiphon.settings_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is stale")
    if not parser.parse_args(argv).check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/SETTINGS.md is stale: run `python -m antiphon.settings_table`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
