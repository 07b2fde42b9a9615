"""Wrong values are refused with what is wrong and where; what is said after an installation."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from antiphon import settings_table
from tests.chart.rendering import CHART, HELM, Refused, case, render

ENOUGH = ('connection={"url":"nats://nats:4222"}', 'auth={"jwtSecret":{"name":"s"}}')


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["gateway.replica=3"], "at '/gateway': additional properties 'replica' not allowed"),
        (["gatway={}"], "additional properties 'gatway' not allowed"),
        (["gateway.settings.ANTIPHON_PING_INTERVAL_S=0"], "ANTIPHON_PING_INTERVAL_S': minimum: got 0, want 1"),
        (['gateway.replicas="3"'], "at '/gateway/replicas': got string, want integer"),
        (["log.replicas=2"], "at '/log/replicas': value must be one of 1, 3, 5"),
        (["log.partitions=0"], "at '/log/partitions': minimum: got 0, want 1"),
        (['ingress.controller="ngnix"'], "at '/ingress/controller': value must be one of 'none', 'nginx'"),
        (['gateway.image.digest="latest"'], "at '/gateway/image/digest'"),
        (
            ['gateway.settings={"ANTIPHON_HEARTBEAT":1}'],
            "at '/gateway/settings': additional properties 'ANTIPHON_HEARTBEAT' not allowed",
        ),
        (['gateway.settings={"ANTIPHON_JWT_SECRET":"x"}'], "additional properties 'ANTIPHON_JWT_SECRET' not allowed"),
        (['gateway.settings={"ANTIPHON_DRAIN_S":60}'], "additional properties 'ANTIPHON_DRAIN_S' not allowed"),
        (
            ['gateway.extraEnv=[{"name":"ANTIPHON_JWT_SECRET","value":"x"}]'],
            "at '/gateway/extraEnv/0/name': 'not' failed",
        ),
        (['workers=[{"name":"Upper","agent":"echo"}]'], "at '/workers/0/name'"),
        (['workers=[{"agent":"echo"}]'], "missing property 'name'"),
        (['workers=[{"name":"a","agent":"echo"},{"name":"a","agent":"echo"}]'], '"a": there are two of this name'),
        (['workers=[{"name":"a"}]'], '"a": say which agent it runs'),
        (['workerDefaults.name="x"'], "at '/workerDefaults/name': false schema"),
        (['connection.url=""'], "connection.url: say where NATS is"),
        (['connection.url="nats://a:b@nats"'], "a user and password could be read by everybody here"),
        (['connection.url="nats:4222"'], '"nats:4222" must begin with nats:// or tls://'),
        (['connection.urlSecret={"name":"s"}'], "set url or urlSecret, not both"),
        (['connection.tls={"caSecret":"a","caConfigMap":"b"}'], "set caConfigMap or caSecret, not both"),
        (['auth.jwtSecret.name=""'], "a gateway does not start without a key to check tokens with"),
        (['auth.publicKeys={"secret":"s"}'], "auth.publicKeys.keys: name the keys"),
        (['auth.publicKeys={"secret":"s","configMap":"c","keys":["k"]}'], "set configMap or secret, not both"),
        (['gateway.strategy={"maxSurge":0,"maxUnavailable":"0%"}'], "maxSurge and maxUnavailable cannot both be 0"),
        (['gateway.autoscaling={"enabled":true,"minReplicas":5,"maxReplicas":4}'], "minReplicas is above maxReplicas"),
        (
            ['gateway.autoscaling={"enabled":true,"connections":null,"cpu":null}'],
            "scale by connections, by cpu, or by both",
        ),
        (['workers=[{"name":"a","agent":"e","autoscaling":{"kind":"keda"}}]'], "say where Prometheus is"),
        (
            ['workers=[{"name":"a","agent":"e","autoscaling":{"kind":"keda","source":"nats-jetstream"}}]'],
            "say where NATS's monitoring is",
        ),
        (['workers=[{"name":"a","agent":"e","autoscaling":{"kind":"hpa","minReplicas":0}}]'], "does not scale to 0"),
        (
            ['workers=[{"name":"a","agent":"e","autoscaling":{"kind":"hpa","minReplicas":9,"maxReplicas":2}}]'],
            "is above",
        ),
        (["webhooks.enabled=true"], "webhooks.endpoints.secretName: name the Secret with the file of endpoints"),
        (["webhooks.settings.ANTIPHON_WEBHOOK_FILE=1"], "additional properties 'ANTIPHON_WEBHOOK_FILE' not allowed"),
        (["gateway.settings.ANTIPHON_WEBHOOK_TRIES=1"], "additional properties 'ANTIPHON_WEBHOOK_TRIES' not allowed"),
        (["ingress.enabled=true"], "ingress.hosts: name the hosts"),
        (["gatewayApi.enabled=true"], "gatewayApi.parentRefs: name the Gateway"),
        (['monitoring.serviceMonitor.interval="often"'], "at '/monitoring/serviceMonitor/interval'"),
    ],
)
def test_wrong_values_are_refused(sets: list[str], told: str) -> None:
    render(None, *ENOUGH)
    with pytest.raises(Refused) as refused:
        render(None, *ENOUGH, *sets)
    assert told in str(refused.value)


def test_nothing_that_may_be_set_is_without_a_description_in_the_values() -> None:
    """values.yaml has every value that the schema allows, and no other."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def resolved(part: dict[str, object]) -> dict[str, object]:
        if "$ref" in part:
            return schema["definitions"][str(part["$ref"]).rpartition("/")[2]]
        if "allOf" in part:
            return resolved(part["allOf"][0])  # type: ignore[index]
        return part

    def compare(part: dict[str, object], value: object, where: str) -> None:
        properties = resolved(part).get("properties")
        if not isinstance(properties, dict) or not isinstance(value, dict):
            return
        known = {name for name in properties if (where, name) not in {("", "global"), ("/workerDefaults", "name")}}
        if where.rpartition("/")[2] not in ("startup", "liveness", "readiness", "settings"):
            assert set(value) == known, where
        for name, below in value.items():
            compare(properties[name], below, f"{where}/{name}")

    compare(schema, values, "")


def notes(*arguments: str) -> str:
    """What `helm install` would print after an installation."""
    command = [HELM, "install", "chat", CHART, "--namespace", "chat", "--dry-run=client", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.partition("NOTES:\n")[2]


def test_the_notes_say_how_to_reach_it_and_what_is_not_yet_right() -> None:
    told = notes("--values", str(CHART / "ci/minimal.yaml"))
    for text in (
        "rollout status deployment/chat-antiphon-gateway",
        "get secret antiphon-jwt -o go-template='{{index .data \"jwt-secret\" | base64decode}}'",
        "antiphon token USER",
        "It is not reachable from outside",
        "log.replicas is 1",
        "There are no credentials for NATS",
        "Worker default runs the built-in agent echo",
    ):
        assert text in told
    assert "image.registry" not in told or "Not yet right" in told


def test_the_notes_have_nothing_against_a_good_installation() -> None:
    told = notes("--values", str(CHART / "ci/production.yaml"))
    assert "wss://chat.example.com/v1/connect, the page at https://chat.example.com/" in told
    assert "with the private key that belongs to issuer-2025.pem, issuer-2026.pem" in told
    assert "Not yet right" not in told


def test_commands_in_the_notes_are_ours() -> None:
    told = notes("--values", str(CHART / "ci/minimal.yaml"))
    [line] = [line.split() for line in told.splitlines() if line.split()[:1] == ["antiphon"]]
    assert {word for word in line if word.startswith("--")} <= settings_table.flags_of(line[1])


def test_objects_of_ones_own_are_templates() -> None:
    assert case("production").one("ConfigMap", "chat-extra")["data"] == {"namespace": "chat"}


def test_labels_and_annotations_for_all_are_on_all() -> None:
    for found in case("production").objects:
        if found["metadata"]["name"] != "chat-extra":
            assert found["metadata"]["labels"]["team"] == "chat"
            assert found["metadata"]["annotations"]["example.com/owner"] == "chat"
