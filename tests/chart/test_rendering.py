"""Every case lints, renders, and is what Kubernetes' schemas and the definitions of others say."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import CASES, CHART, HELM, ROOT, case, render
from tests.chart.schemas import KUBERNETES, WITHOUT_SCHEMA, Wrong, check, definitions

cases = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
versions = pytest.mark.parametrize("version", KUBERNETES)


@cases
def test_it_lints(path: Path) -> None:
    done = subprocess.run(
        [HELM, "lint", "--strict", "--values", path, CHART], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@cases
@versions
def test_objects_are_what_their_schemas_say(path: Path, version: str) -> None:
    rendered = render(path)
    assert rendered.objects
    for found in rendered.objects:
        check(found, version)


@versions
def test_plain_manifests_are_what_their_schemas_say(version: str) -> None:
    objects = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/antiphon.yaml").read_text(encoding="utf-8")))
    assert {"Deployment", "Service", "Job", "NetworkPolicy"} <= {found["kind"] for found in objects}
    for found in objects:
        check(found, version)
        assert "Helm" not in str(found)


def test_what_is_made_is_fresh() -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "-m", "tools.manifests", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_chart_has_the_rules_and_the_dashboard_themselves() -> None:
    for name, source in (("rules.yml", "prometheus/rules.yml"), ("dashboard.json", "grafana/dashboard.json")):
        assert (CHART / "files" / name).resolve() == ROOT / "deploy" / source


def test_cases_cover_what_the_chart_can_make() -> None:
    kinds = {found["kind"] for path in CASES for found in render(path).objects}
    assert kinds == {
        *("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("Job", "Ingress", "HTTPRoute", "ConfigMap", "ScaledObject", "ServiceMonitor", "PodMonitor", "PrometheusRule"),
        *("BackendConfig", "GCPBackendPolicy", "HealthCheckPolicy"),
    }


# --- the check itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "at", "value"),
    [
        ("production", "Deployment", ("spec", "template", "spec", "hostNetwrok"), True),
        ("production", "Deployment", ("spec", "replicas"), "three"),
        ("production", "ServiceMonitor", ("spec", "endpoint"), []),
        ("production", "PodMonitor", ("spec", "podMetricsEndpoints"), "metrics"),
        ("production", "PrometheusRule", ("spec", "groups"), [{"rules": []}]),
        ("keda", "ScaledObject", ("spec", "minReplicas"), 1),
        ("keda", "ScaledObject", ("spec", "triggers"), [{"type": "prometheus"}]),
        ("gateway-api", "HTTPRoute", ("spec", "rules"), [{"timeouts": {"request": "ten"}}]),
        ("minimal", "Job", ("kind",), "Jobb"),
    ],
)
def test_what_is_wrong_is_found(name: str, kind: str, at: tuple[str, ...], value: object) -> None:
    found = copy.deepcopy(case(name).of(kind)[0])
    check(found, KUBERNETES[-1])
    place = found
    for part in at[:-1]:
        place = place[part]
    place[at[-1]] = value
    with pytest.raises(Wrong):
        check(found, KUBERNETES[-1])


def test_the_oldest_is_the_one_that_the_chart_asks_for() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert about["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


def test_only_what_has_no_schema_goes_unchecked() -> None:
    assert not WITHOUT_SCHEMA & definitions().keys()
