"""`make manifests` writes what is made of something else in deploy/; with `--check` it compares.

- `deploy/kubernetes/antiphon.yaml`: what the Helm chart gives, for those without Helm.
- In the chart's `values.schema.json`: which settings (`docs/SETTINGS.md`) may be given in which `settings`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from agent_worker.config import WorkerSettings
from antiphon.callout_config import CalloutSettings
from antiphon.settings_table import SECTIONS
from gateway.config import GatewaySettings
from webhooks.config import WebhookSettings

ROOT = Path(__file__).resolve().parent.parent
HELM = ROOT / ".chart/bin/helm"
CHART = ROOT / "deploy/helm/antiphon"
SCHEMA = CHART / "values.schema.json"
PLAIN = ROOT / "deploy/kubernetes/antiphon.yaml"
PLAIN_VALUES = ROOT / "deploy/kubernetes/values.yaml"

OWNED = frozenset(
    f"ANTIPHON_{name}"
    for name in (
        *("HOST", "PORT", "JWT_SECRET", "JWT_SECRET_FILE", "JWT_PUBLIC_KEYS", "JWT_ISSUER", "JWT_AUDIENCE"),
        *("DRAIN_DELAY_S", "DRAIN_S", "DRAIN_PER_SECOND"),
        *("NATS_URL", "NATS_CREDENTIALS", "NATS_CA_FILE", "NATS_CERT_FILE", "NATS_KEY_FILE"),
        *("NATS_USER", "NATS_PASSWORD_FILE"),
        *("PARTITIONS", "REPLICAS", "DELTA_TTL_S", "LEASE_S", "POOLS"),
        *("POOL", "CONCURRENCY", "WORKER_DRAIN_S", "CANCEL_GRACE_S", "WORKER_PORT", "WORKER_VERSION"),
        *("WEBHOOK_FILE", "WEBHOOK_PORT"),
    )
)
"""Set by the chart from values of its own."""
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_HEAD = f"""\
# Antiphon for Kubernetes, without Helm. Made by `make manifests` from the chart and {PLAIN_VALUES.name} beside; do not edit.
# What has to be there before, and what to change: docs/DEPLOYMENT.md.
"""
_HELMS = re.compile(r"^ +(?:helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)


def settings_of(*others: type) -> dict[str, Any]:
    """Schemas of the settings of all classes but `others`, and the callout's, which the chart does not run; by variable, less
    those that the chart sets itself.
    """
    found = {"ANTIPHON_LOG_LEVEL": {"enum": ["debug", "info", "warning", "error"]}}
    for cls in (cls for _, cls in SECTIONS if cls not in (*others, CalloutSettings)):
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            bounds = (("minimum", field.metadata["min"]), ("maximum", field.metadata["max"]))
            found[f"ANTIPHON_{field.name.upper()}"] = {
                "description": field.metadata["meaning"],
                "type": _TYPES[hints[field.name]],
                **{word: bound for word, bound in bounds if bound is not None},
            }
    return {name: found[name] for name in sorted(found.keys() - OWNED)}


def schema() -> str:
    """The schema of the values, with the names of today's settings."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for name, others in (
        ("sharedSettings", (GatewaySettings, WorkerSettings, WebhookSettings)),
        ("gatewaySettings", (WorkerSettings, WebhookSettings)),
        ("workerSettings", (GatewaySettings, WebhookSettings)),
        ("webhookSettings", (GatewaySettings, WorkerSettings)),
        ("topologySettings", (GatewaySettings, WorkerSettings, WebhookSettings)),
    ):
        document["definitions"][name]["properties"] = settings_of(*others)
    return json.dumps(document, indent=2) + "\n"


def plain() -> str:
    """The objects without what only Helm needs."""
    rendered = helm("template", "antiphon", str(CHART), "--namespace", "antiphon", "--values", str(PLAIN_VALUES))
    # A template whose objects are all switched off leaves a separator.
    objects = [text.strip("\n") for text in re.split(r"^---\n", _HELMS.sub("", rendered), flags=re.MULTILINE)]
    return _HEAD + "".join(f"---\n{text}\n" for text in objects if text.strip())


def helm(*words: str) -> str:
    """What a helm command prints. Raises SystemExit with its errors."""
    if not HELM.exists():
        raise SystemExit("there is no helm yet: `make chart` makes one")
    done = subprocess.run([str(HELM), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: with `--check`, 1 if something is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    check = parser.parse_args(argv).check
    # The schema first: the rendering is checked against it.
    for path, make in ((SCHEMA, schema), (PLAIN, plain)):
        text = make()
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            print(f"{path.relative_to(ROOT)} is stale: run `make manifests`", file=sys.stderr)
            return 1
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
