"""The dashboard: every panel shows metrics that real processes expose, and every metric is shown or watched."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from agent_worker.metrics import WorkerMetrics
from gateway.metrics import GatewayMetrics
from tests.monitoring.conftest import DASHBOARD, Seen, alerts, panels, targets
from tests.monitoring.expressions import Known, labels_of, parse
from tests.monitoring.test_rules import record
from webhooks.metrics import WebhookMetrics

_ONLY_SOMETIMES = re.compile(r"> 0$|== [01]\)$")
"""Expressions that find nothing while all is well."""


def test_panels_ask_for_metrics_labels_and_values_that_exist(known: Known) -> None:
    record(known)
    for title, expr, legend in targets():
        labels = labels_of(parse(expr), known)
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels, (title, expr, labels)


def test_a_real_prometheus_has_an_answer_for_every_panel(seen: Seen) -> None:
    silent = {title for title, expr, _ in targets() if not seen.answers[expr] and not _ONLY_SOMETIMES.search(expr)}
    assert not silent


def test_every_metric_is_on_the_dashboard_or_watched_by_an_alert(known: Known) -> None:
    record(known)
    for expr in [*(expr for _, expr, _ in targets()), *(alert["expr"] for alert in alerts())]:
        labels_of(parse(expr), known)
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known.used}
    exposed = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known.samples if name.startswith("antiphon_")}
    assert exposed - families == set()


def test_processes_expose_what_the_code_declares(seen: Seen) -> None:
    declared = {"gateway": GatewayMetrics(), "worker": WorkerMetrics(), "webhooks": WebhookMetrics()}
    for component, registry in ((name, metrics.registry) for name, metrics in declared.items()):
        exposed = {family.name for family in text_string_to_metric_families(seen.exposed[component])}
        assert {name for name in exposed if name.startswith("antiphon_")} == {
            family.name for family in registry.collect() if family.name.startswith("antiphon_")
        }
        assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_start_time_seconds"} <= exposed


def test_no_label_names_a_session_a_user_or_a_connection(known: Known) -> None:
    labels = {label for name, values in known.samples.items() if name.startswith("antiphon_") for label in values}
    allowed = {
        "agent",
        "by",
        "code",
        "command",
        "component",
        "direction",
        "end",
        "endpoint",
        "how",
        "kind",
        "le",
        "limit",
    }
    assert labels <= allowed | {"operation", "outcome", "pool", "priority", "python", "reason", "state", "version"}


def test_a_process_exposes_few_series(seen: Seen) -> None:
    for text in seen.exposed.values():
        assert sum(not line.startswith("#") for line in text.splitlines()) < 500


def test_the_layout_is_sound() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
