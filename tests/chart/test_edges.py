"""What comes in and goes out: Services, Ingress, the Gateway API, NetworkPolicies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import GatewaySettings
from tests.chart.rendering import CASES, ROOT, Object, case, render

cases = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
INSIDE = ("/metrics", "/healthz", "/readyz")


def ingress_paths(ingress: Object) -> list[tuple[str, str]]:
    return [(p["path"], p["pathType"]) for rule in ingress["spec"]["rules"] for p in rule["http"]["paths"]]


def routes_of_the_gateway() -> set[str]:
    return set(re.findall(r"router\.add_\w+\(\"([^\"]+)\"", (ROOT / "gateway/app.py").read_text(encoding="utf-8")))


# --- by Ingress ------------------------------------------------------------------------------------------------------


def reached(paths: list[tuple[str, str]]) -> set[str]:
    """The gateway's routes that these paths lead to."""
    return {
        route
        for route in routes_of_the_gateway()
        for path, kind in paths
        if route == path or (kind in ("Prefix", "PathPrefix") and route.startswith(f"{path.rstrip('/')}/"))
    }


def test_clients_reach_the_api_and_the_page_and_nothing_else() -> None:
    assert set(INSIDE) < routes_of_the_gateway()
    assert reached(ingress_paths(case("production").one("Ingress"))) == routes_of_the_gateway() - set(INSIDE)
    rules = case("gateway-api").one("HTTPRoute")["spec"]["rules"]
    matches = [(match["path"]["value"], match["path"]["type"]) for rule in rules for match in rule["matches"]]
    assert reached(matches) == routes_of_the_gateway() - set(INSIDE)


def test_without_the_page() -> None:
    assert ingress_paths(case("gke").one("Ingress")) == [("/v1", "Prefix")]
    rules = case("gateway-api", "gatewayApi.page=false").one("HTTPRoute")["spec"]["rules"]
    assert [match["path"]["value"] for match in rules[0]["matches"]] == ["/v1"]


@cases
def test_routes_lead_to_the_service_and_it_to_the_pods(path: Path) -> None:
    rendered = render(path)
    service = rendered.one("Service")
    [port] = service["spec"]["ports"]
    gateway = rendered.one("Deployment", "chat-antiphon-gateway")
    assert port["targetPort"] in [p["name"] for p in gateway["spec"]["template"]["spec"]["containers"][0]["ports"]]
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for each in rule["http"]["paths"]:
                to = each["backend"]["service"]
                assert to == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    for route in rendered.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]
    for monitor in rendered.of("ServiceMonitor"):
        assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"]]


_SECONDS = {
    "nginx": "nginx.ingress.kubernetes.io/proxy-read-timeout",
    "nginx-f5": "nginx.org/proxy-read-timeout",
    "haproxy": "haproxy.org/timeout-tunnel",
    "haproxy-ingress": "haproxy-ingress.github.io/timeout-tunnel",
}


def with_controller(name: str, *sets: str) -> Object:
    return case("minimal", f'ingress={{"enabled":true,"hosts":["a.example"],"controller":"{name}"}}', *sets).one(
        "Ingress"
    )


@pytest.mark.parametrize("controller", _SECONDS)
def test_silence_up_to_a_heartbeat_does_not_end_a_websocket(controller: str) -> None:
    told = with_controller(controller)["metadata"]["annotations"][_SECONDS[controller]]
    seconds = int(told.rstrip("sh")) * (3600 if told.endswith("h") else 1)
    assert seconds > 10 * GatewaySettings().heartbeat_s


@pytest.mark.parametrize("controller", ["none", "traefik", "gke"])
def test_controllers_that_need_no_annotations(controller: str) -> None:
    """Traefik has no time-out for an upgraded connection; Google's is in a BackendConfig."""
    assert "annotations" not in with_controller(controller)["metadata"]


def test_aws_looks_at_readiness_and_waits_for_the_drain() -> None:
    rendered = case("alb")
    told = rendered.one("Ingress")["metadata"]["annotations"]
    assert told["alb.ingress.kubernetes.io/load-balancer-attributes"] == "idle_timeout.timeout_seconds=3600"
    assert told["alb.ingress.kubernetes.io/healthcheck-path"] == "/readyz"
    drain = rendered.one("Deployment", "chat-antiphon-gateway")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert (
        f"deregistration_delay.timeout_seconds={drain - 5}" in told["alb.ingress.kubernetes.io/target-group-attributes"]
    )
    assert told["alb.ingress.kubernetes.io/scheme"] == "internet-facing"


def test_balancers_of_clouds_wait_for_an_hour_at_most() -> None:
    long = 'gateway.drain={"preStopSeconds":5,"delaySeconds":5,"seconds":7200,"perSecond":1}'
    told = case("alb", long).one("Ingress")["metadata"]["annotations"][
        "alb.ingress.kubernetes.io/target-group-attributes"
    ]
    assert told.endswith("deregistration_delay.timeout_seconds=3600")
    assert case("gke", long).one("BackendConfig")["spec"]["connectionDraining"] == {"drainingTimeoutSec": 3600}


def test_ones_own_annotations_go_before_ours() -> None:
    mine = 'ingress.annotations={"nginx.ingress.kubernetes.io/proxy-read-timeout":"90"}'
    told = with_controller("nginx", mine)["metadata"]["annotations"]
    assert told["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "90"
    assert told["nginx.ingress.kubernetes.io/proxy-send-timeout"] == "3600"


def test_google_lets_websockets_live_and_waits_for_the_drain() -> None:
    rendered = case("gke")
    name = rendered.one("Service")["metadata"]["name"]
    config, policy = rendered.one("BackendConfig"), rendered.one("GCPBackendPolicy")
    assert config["spec"]["timeoutSec"] == policy["spec"]["default"]["timeoutSec"] == 86400
    assert config["spec"]["connectionDraining"] == policy["spec"]["default"]["connectionDraining"]
    assert (
        rendered.one("Service")["metadata"]["annotations"]["cloud.google.com/backend-config"]
        == f'{{"default": "{name}"}}'
    )
    for kind in ("GCPBackendPolicy", "HealthCheckPolicy"):
        assert rendered.one(kind)["spec"]["targetRef"] == {"group": "", "kind": "Service", "name": name}
    probe = rendered.one("HealthCheckPolicy")["spec"]["default"]["config"]["httpHealthCheck"]
    assert probe == {"requestPath": "/readyz", "port": 8080}
    assert "timeouts" not in rendered.one("HTTPRoute")["spec"]["rules"][0]


def test_a_route_has_no_time_out() -> None:
    [rule] = case("gateway-api").one("HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


# --- NetworkPolicies -------------------------------------------------------------------------------------------------


def ports(rule: Object) -> set[object]:
    return {port["port"] for port in rule["ports"]}


@cases
def test_every_pod_has_a_policy_for_both_directions(path: Path) -> None:
    rendered = render(path)
    policies = rendered.of("NetworkPolicy")
    if path.stem == "gke":
        assert not policies
        return
    assert len(policies) == len(rendered.pods())
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", ["minimal", "production", "nats-tls", "keda"])
def test_all_reach_names_and_nats_and_nothing_else_unless_it_is_said(name: str) -> None:
    nats = {"nats-tls": {4222, 4443}}.get(name, {4222})
    for policy in case(name).of("NetworkPolicy"):
        dns, broker, *more = policy["spec"]["egress"]
        assert ports(dns) == {53}
        assert dns["to"]
        assert ports(broker) == nats
        component = policy["metadata"]["labels"]["app.kubernetes.io/component"]
        for rule in more:
            if component in ("worker", "webhooks"):
                assert ports(rule) == {443}
                if rule["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]:
                    assert (component, name) == ("webhooks", "production")
                    continue
                assert all(
                    "10.0.0.0/8" in to["ipBlock"]["except"] or "fc00::/7" in to["ipBlock"]["except"]
                    for to in rule["to"]
                )
                assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]
            else:
                assert (component, name) == ("gateway", "production")
                assert ports(rule) == {4318}


def test_nats_is_only_where_it_is_said_to_be() -> None:
    for policy in case("production").of("NetworkPolicy"):
        assert policy["spec"]["egress"][1]["to"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nats"}}}
        ]


def test_who_comes_in() -> None:
    rendered = case("production")
    prometheus = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    clients = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    gateway = rendered.one("NetworkPolicy", "chat-antiphon-gateway")["spec"]["ingress"]
    assert [rule["from"] for rule in gateway] == [clients, prometheus]
    assert [ports(rule) for rule in gateway] == [{"http"}, {"http"}]
    worker = rendered.one("NetworkPolicy", "chat-antiphon-worker-default")["spec"]["ingress"]
    assert [(ports(rule), rule["from"]) for rule in worker] == [({"metrics"}, prometheus)]
    assert "ingress" not in rendered.one("NetworkPolicy", "chat-antiphon-topology")["spec"]


def test_gateways_are_for_everybody_if_nobody_is_named() -> None:
    [rule] = case("minimal").one("NetworkPolicy", "chat-antiphon-gateway")["spec"]["ingress"]
    assert rule == {"ports": [{"port": "http", "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://nats", {4222}),
        ("nats://a:4222, tls://b.example:4443/", {4222, 4443}),
        ("tls://[2001:db8::1]:5222", {5222}),
    ],
)
def test_ports_of_nats_come_from_its_url(url: str, expected: set[int]) -> None:
    policy = case("minimal", f'connection.url="{url}"').one("NetworkPolicy", "chat-antiphon-topology")
    assert ports(policy["spec"]["egress"][1]) == expected
