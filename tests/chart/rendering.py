"""What the chart gives for values: by the real helm, read as YAML, found by kind and name."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/antiphon"
CASES = tuple(sorted((CHART / "ci").glob("*.yaml")))
HELM = ROOT / ".chart/bin/helm"

Object = dict[str, Any]


class Refused(Exception):
    """Helm did not take the values; the text says why."""


@dataclass(frozen=True)
class Rendered:
    """All objects of one rendering."""

    text: str
    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The only object of a kind, or that of a name."""
        found = [o for o in self.of(kind) if name is None or o["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
        return found[0]

    def pods(self) -> list[Object]:
        """The Pod templates of everything that makes Pods."""
        return [o["spec"]["template"] for kind in ("Deployment", "Job") for o in self.of(kind)]


@functools.cache
def render(values: Path | None = None, *sets: str, notes: bool = False) -> Rendered:
    """Renders with a values file (as release and namespace `chat`) and `--set-json`s. Raises Refused."""
    command = [str(HELM), "template", "chat", str(CHART), "--namespace", "chat"]
    command += ["--values", str(values)] if values else []
    command += [word for text in sets for word in ("--set-json", text)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return Rendered(done.stdout, tuple(o for o in yaml.safe_load_all(done.stdout) if o))


def case(name: str, *sets: str) -> Rendered:
    """One of the chart's own cases (deploy/helm/antiphon/ci)."""
    return render(CHART / "ci" / f"{name}.yaml", *sets)


def container(template: Object) -> Object:
    """Our container of a Pod: the first one."""
    found = template["spec"]["containers"][0]
    assert isinstance(found, dict)
    return found


def env(template: Object) -> dict[str, str | None]:
    """The variables of our container; None for those whose value is in a Secret."""
    return {entry["name"]: entry.get("value") for entry in container(template)["env"]}


def selected(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector of `matchLabels` alone takes these labels."""
    assert set(selector) == {"matchLabels"}
    return selector["matchLabels"].items() <= labels.items()
