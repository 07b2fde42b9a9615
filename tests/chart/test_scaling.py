"""Autoscaling, and the metrics that it and the monitoring stand on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from agent_worker.metrics import WorkerMetrics
from broker.jetstream.topology import WORK_STREAM, pool_consumer
from broker.queues import Layout
from gateway.metrics import GatewayMetrics
from tests.chart.rendering import CASES, ROOT, Object, Refused, case, env, render

cases = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)


def metrics() -> set[str]:
    registries = (GatewayMetrics().registry, WorkerMetrics().registry)
    return {sample for registry in registries for metric in registry.collect() for sample in [metric.name]}


def test_gateways_scale_by_connections_and_cpu() -> None:
    scaler = case("production").one("HorizontalPodAutoscaler", "chat-antiphon-gateway")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 30)
    connections, cpu = scaler["metrics"]
    assert connections["pods"]["metric"]["name"] in metrics()
    assert connections["pods"]["target"] == {"type": "AverageValue", "averageValue": "4000"}
    assert cpu["containerResource"]["target"]["averageUtilization"] == 60
    # Each gateway that goes moves its clients: one at a time, and not for a dip.
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_gateways_scale_by_one_of_them() -> None:
    scaling = '"enabled":true,"minReplicas":2,"maxReplicas":4'
    only = case("minimal", f'gateway.autoscaling={{{scaling},"connections":null}}').one("HorizontalPodAutoscaler")
    assert [metric["type"] for metric in only["spec"]["metrics"]] == ["ContainerResource"]
    only = case("minimal", f'gateway.autoscaling={{{scaling},"cpu":null}}').one("HorizontalPodAutoscaler")
    assert [metric["type"] for metric in only["spec"]["metrics"]] == ["Pods"]


@cases
def test_whoever_is_scaled_has_no_replicas_of_its_own(path: Path) -> None:
    """Else each upgrade would set them back."""
    rendered = render(path)
    scalers = rendered.of("HorizontalPodAutoscaler") + rendered.of("ScaledObject")
    targets = {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers}
    assert len(targets) == len(scalers)
    for found in rendered.of("Deployment"):
        assert ("replicas" in found["spec"]) is (found["metadata"]["name"] not in targets)
    assert targets <= {found["metadata"]["name"] for found in rendered.of("Deployment")}


def test_workers_scale_by_jobs_and_by_age() -> None:
    scaler = case("production").one("HorizontalPodAutoscaler", "chat-antiphon-worker-default")["spec"]
    jobs, age = (metric["external"] for metric in scaler["metrics"])
    assert {jobs["metric"]["name"], age["metric"]["name"]} <= metrics()
    assert jobs["metric"]["selector"] == age["metric"]["selector"] == {"matchLabels": {"pool": "default"}}
    # 80 % of 32.
    assert jobs["target"] == {"type": "AverageValue", "averageValue": "25"}
    assert age["target"] == {"type": "Value", "value": "5"}


def test_keda_scales_by_prometheus() -> None:
    scaler = case("keda").one("ScaledObject", "chat-antiphon-worker-default")["spec"]
    jobs, age = scaler["triggers"]
    for trigger in (jobs, age):
        assert set(re.findall(r"antiphon_\w+", trigger["metadata"]["query"])) <= metrics()
        assert trigger["metadata"]["query"].count('pool="default"') == trigger["metadata"]["query"].count("antiphon_")
        # No answer is no zero: it falls back instead.
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["authenticationRef"] == {"name": "prometheus", "kind": "TriggerAuthentication"}
    assert (jobs["metadata"]["threshold"], age["metadata"]["threshold"]) == ("12", "5")
    assert (jobs["metricType"], age["metricType"]) == ("AverageValue", "Value")
    assert scaler["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}


def test_keda_scales_by_the_stream_itself_and_down_to_nothing() -> None:
    scaler = case("keda").one("ScaledObject", "chat-antiphon-worker-critic")["spec"]
    assert [trigger["name"] for trigger in scaler["triggers"]] == ["jobs-high", "jobs", "jobs-low"]
    for trigger, queue in zip(scaler["triggers"], Layout(priorities=True).queues("critic"), strict=True):
        assert trigger["metadata"] == {
            "natsServerMonitoringEndpoint": "nats-headless.nats:8222",
            "account": "CHAT",
            "stream": WORK_STREAM,
            "consumer": pool_consumer(queue.key),
            "lagThreshold": "4",
        }
    assert (scaler["minReplicaCount"], scaler["fallback"]["replicas"]) == (0, 1)


@pytest.mark.parametrize("layout", [Layout(), Layout(shares=2), Layout(priorities=True, shares=3)])
def test_keda_looks_into_every_queue_of_the_stream(layout: Layout) -> None:
    settings = {"ANTIPHON_PRIORITIES": layout.priorities, "ANTIPHON_TENANT_SHARES": layout.shares}
    scaler = case("keda", f"settings={json.dumps(settings)}").one("ScaledObject", "chat-antiphon-worker-critic")["spec"]
    consumers = {trigger["metadata"]["consumer"] for trigger in scaler["triggers"]}
    assert consumers == {pool_consumer(queue.key) for queue in layout.queues("critic")}
    assert len({trigger["name"] for trigger in scaler["triggers"]}) == len(consumers)


def test_prometheus_learns_the_pool_of_a_worker() -> None:
    rendered = case("keda")
    [endpoint] = rendered.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_label_antiphon_pool"], "targetLabel": "pool"}
    ]
    for found in rendered.of("Deployment"):
        template: Object = found["spec"]["template"]
        assert template["metadata"]["labels"].get("antiphon-pool") == env(template).get("ANTIPHON_POOL")


def test_rules_and_dashboard_are_those_of_the_repository() -> None:
    rendered = case("production")
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    assert rendered.one("PrometheusRule")["spec"] == rules
    assert rules["groups"]
    dashboard = (ROOT / "deploy/grafana/dashboard.json").read_text(encoding="utf-8")
    shown = rendered.one("ConfigMap", "chat-antiphon-dashboard")
    assert shown["data"]["antiphon.json"].rstrip("\n") == dashboard.rstrip("\n")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_operators_selector_is_heard() -> None:
    rendered = case("production")
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        found = rendered.of(kind)
        assert found
        assert {each["metadata"]["labels"]["release"] for each in found} == {"prometheus"}


def test_a_pool_of_a_tenants_own() -> None:
    """Its name is no label of Kubernetes, and no selector's: an HPA cannot have it."""
    workers = 'workers=[{"name":"default","agent":"a:b"},{"name":"acme","agent":"a:b","pool":"acme~default"%s}]'
    rendered = case("minimal", workers % "")
    told = {t["metadata"]["labels"].get("antiphon-pool"): env(t) for t in rendered.pods()}
    assert told["acme.default"]["ANTIPHON_POOL"] == "acme~default"
    assert "default,acme~default" in [env(t).get("ANTIPHON_POOLS") for t in rendered.pods()]
    keda = case("minimal", workers % ',"autoscaling":{"kind":"keda","prometheusUrl":"http://p:9090"}')
    [scaled] = keda.of("ScaledObject")
    assert "acme~default" in str(scaled["spec"]["triggers"])
    with pytest.raises(Refused, match="scale it by KEDA"):
        case("minimal", workers % ',"autoscaling":{"kind":"hpa"}')
