"""Writes what is made of `broker.permissions` in deploy/ and docs/; with `--check` it compares.

- `deploy/nats/gateway.conf` and so on: what each role may do, for nats-server (`compose.yaml` uses them).
- In `deploy/helm/antiphon-with-nats/values.yaml`: the same, for the official chart of NATS.
- In `docs/SECURITY-NATS.md`: the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from broker.config import LogSettings
from broker.permissions import RULES, STANDARD, Role, Rule, User, access, as_config

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "deploy/nats"
VALUES = ROOT / "deploy/helm/antiphon-with-nats/values.yaml"
PAGE = ROOT / "docs/SECURITY-NATS.md"
PARTITIONS: Final = LogSettings().partitions
_HEAD = """\
# What a {role} may do in NATS, of a log with {partitions} partitions: `permissions {{ include {role}.conf }}` of a user.
# Made by `make roles` from broker/permissions.py; do not edit. Why: docs/SECURITY-NATS.md.
"""


def conf(role: Role) -> str:
    """A part of nats-server's configuration."""
    lines = [f"{word}: {json.dumps(subjects, indent=2)}\n" for word, subjects in _permissions(role).items()]
    return _HEAD.format(role=role, partitions=PARTITIONS) + "".join(lines)


def values() -> str:
    """The chart's values with the users of today's roles. Its format takes JSON."""
    users = [
        f"{{user: {role}, password: << ${role.upper()}_PASSWORD >>, permissions: {json.dumps(_permissions(role))}}}"
        for role in STANDARD
    ]
    return _between(VALUES, "# roles", "".join(f"          - {user}\n" for user in users), "        ")


def page() -> str:
    """The page with today's table."""
    roles = [*Role]
    head = ["subject", *(f"{role}" for role in roles), "what it is"]
    rows = [f"| {' | '.join(head)} |", "|---|" + ":-:|" * len(roles) + "---|"]
    rows += [
        f"| `{rule.subject}` | {' | '.join(_mark(rule, role) for role in roles)} | {rule.meaning} |" for rule in RULES
    ]
    return _between(PAGE, "<!-- roles -->", "\n".join(rows) + "\n")


def _mark(rule: Rule, role: Role) -> str:
    words = ("publish", role in rule.publish), ("subscribe", role in rule.subscribe)
    return ", ".join(word for word, may in words if may) or "no"


def _permissions(role: Role) -> Mapping[str, Any]:
    return as_config(access(User(role), PARTITIONS))


def _between(path: Path, mark: str, made: str, indent: str = "") -> str:
    """The file, with what stands between two lines that are the mark replaced."""
    line = f"{indent}{mark}\n"
    before, _, after = path.read_text(encoding="utf-8").split(line)
    return f"{before}{line}{made}{line}{after}"


MADE: Final[tuple[tuple[Path, Callable[[], str]], ...]] = (
    *((CONF / f"{role}.conf", partial(conf, role)) for role in STANDARD),
    (VALUES, values),
    (PAGE, page),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: with `--check`, 1 if something is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    check = parser.parse_args(argv).check
    for path, make in MADE:
        text = make()
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path.relative_to(ROOT)} is stale: run `make roles`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
