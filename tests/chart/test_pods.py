"""The Pods: what they are told, how they leave, how they are confined, and that they hold no secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from antiphon.settings_table import OTHERS, SECTIONS
from broker.permissions import inbox_of
from tests.chart.rendering import CASES, ROOT, Object, case, container, env, render, selected

cases = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
DIGESTS = "sha256:[0-9a-f]{64}"
_OF_A_USER = ("_NATS_USER", "_NATS_PASSWORD_FILE", "_NATS_INBOX")


def settings_that_exist() -> set[str]:
    return {f"ANTIPHON_{name.upper()}" for _, cls in SECTIONS for name in cls.__dataclass_fields__} | {
        name for name, _ in OTHERS
    }


def of_component(templates: list[Object], component: str) -> list[Object]:
    return [t for t in templates if t["metadata"]["labels"]["app.kubernetes.io/component"] == component]


# --- settings --------------------------------------------------------------------------------------------------------


@cases
def test_every_variable_is_a_setting(path: Path) -> None:
    for template in render(path).pods():
        names = [entry["name"] for entry in container(template)["env"]]
        assert len(names) == len(set(names))
        assert {name for name in names if name.startswith("ANTIPHON_")} <= settings_that_exist()


def test_the_table_of_settings_names_them() -> None:
    table = set(
        re.findall(r"^\| `(ANTIPHON_\w+)`", (ROOT / "docs/SETTINGS.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert table == settings_that_exist()


@cases
def test_all_parts_agree(path: Path) -> None:
    told = [env(template) for template in render(path).pods()]
    own = {"ANTIPHON_POOLS", "ANTIPHON_POOL", "ANTIPHON_CONCURRENCY", "ANTIPHON_WORKER_VERSION"}
    for name in {name for each in told for name in each} - own:
        values = {each[name] for each in told if name in each}
        assert len(values) == 1 or name.endswith(("_GRACE_S", "_DRAIN_S", "_CREDENTIALS", *_OF_A_USER)), name


def test_each_part_comes_to_nats_as_its_role() -> None:
    """And has the password of that one alone."""
    templates = case("nats-users").pods()
    for component, role in (("gateway", "gateway"), ("worker", "worker"), ("topology", "provisioner")):
        [template] = of_component(templates, component)
        told = env(template)
        assert (told["ANTIPHON_NATS_USER"], told["ANTIPHON_NATS_INBOX"]) == (role, inbox_of(role))
        [volume] = [v for v in template["spec"]["volumes"] if v["name"] == "nats-password"]
        assert volume["secret"]["secretName"] == "antiphon-nats"
        assert volume["secret"]["items"] == [{"key": role, "path": role}]
        [mount] = [m for m in container(template)["volumeMounts"] if m["name"] == "nats-password"]
        assert told["ANTIPHON_NATS_PASSWORD_FILE"] == f"{mount['mountPath']}/{role}"


@cases
def test_every_pool_is_made(path: Path) -> None:
    rendered = render(path)
    workers = of_component(rendered.pods(), "worker")
    served = [env(template)["ANTIPHON_POOL"] for template in workers]
    assert served == [template["metadata"]["labels"]["antiphon-pool"] for template in workers]
    for topology in of_component(rendered.pods(), "topology"):
        pools = str(env(topology)["ANTIPHON_POOLS"]).split(",")
        assert set(served) <= set(pools)
        [gateway] = of_component(rendered.pods(), "gateway")
        assert env(gateway)["ANTIPHON_POOLS"] == pools[0]


def test_clients_are_moved_only_for_what_is_new_in_gateways() -> None:
    """Whatever changes a Deployment's template replaces its Pods."""
    second = 'workers=[{"name":"default","agent":"echo"},{"name":"second","agent":"echo"}]'
    before = case("minimal").one("Deployment", "chat-antiphon-gateway")
    after = case("minimal", second, "log.replicas=3", "log.deltaTtlSeconds=60").one(
        "Deployment", "chat-antiphon-gateway"
    )
    assert after["spec"]["template"] == before["spec"]["template"]
    for template in case("minimal").pods():
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & template["metadata"]["labels"].keys()


def test_the_first_worker_has_the_default_pool() -> None:
    [topology] = of_component(case("keda").pods(), "topology")
    assert env(topology)["ANTIPHON_POOLS"] == "default,critic,pictures,elsewhere"


def test_numbers_are_written_as_the_settings_read_them() -> None:
    [gateway] = of_component(case("production").pods(), "gateway")
    told = env(gateway)
    assert (told["ANTIPHON_RING_BYTES"], told["ANTIPHON_ACK_TIMEOUT_S"]) == ("2097152", "4.5")
    assert told["ANTIPHON_LOG_LEVEL"] == "warning"


def test_what_a_worker_does_not_say_comes_from_the_defaults_and_nothing_is_lost() -> None:
    rendered = case("keda")
    drawings = rendered.one("Deployment", "chat-antiphon-worker-drawings")
    assert drawings["spec"]["replicas"] == 0
    assert drawings["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120 + 5 + 5
    assert re.search(DIGESTS, container(drawings["spec"]["template"])["image"])
    critic = rendered.one("NetworkPolicy", "chat-antiphon-worker-critic")
    assert "0.0.0.0/0" not in str(critic)
    assert not [o for o in rendered.of("PodDisruptionBudget") if o["metadata"]["name"].endswith("drawings")]


# --- images and ports ------------------------------------------------------------------------------------------------


def test_images_by_tag_and_by_digest() -> None:
    images = {container(t)["image"] for t in case("production").pods()}
    assert images == {
        "registry.example.com/antiphon/antiphon-gateway@sha256:" + "0123456789abcdef" * 4,
        "registry.example.com/antiphon/our-agents:2026-11-20",
        "registry.example.com/antiphon/antiphon:0.1.0",
    }
    assert {container(t)["image"] for t in case("minimal").pods()} == {
        "antiphon-gateway:0.1.0",
        "antiphon-worker:0.1.0",
        "antiphon:0.1.0",
    }


def test_a_worker_names_the_version_of_its_image() -> None:
    told = {}
    for name in ("minimal", "production", "keda"):
        template = of_component(case(name).pods(), "worker")[0]
        told[name] = env(template)["ANTIPHON_WORKER_VERSION"]
    assert told == {"minimal": "0.1.0", "production": "2026-11-20", "keda": "fedcba987654"}
    two = 'workers=[{"name":"a","agent":"echo"},{"name":"b","pool":"a","agent":"echo","image":{"tag":"2"},"version":"two"}]'
    workers = of_component(case("minimal", two).pods(), "worker")
    assert [(env(each)["ANTIPHON_POOL"], env(each)["ANTIPHON_WORKER_VERSION"]) for each in workers] == [
        ("a", "0.1.0"),
        ("a", "two"),
    ]


@cases
def test_ports_and_probes_are_where_the_process_listens(path: Path) -> None:
    for template in render(path).pods():
        ours, told = container(template), env(template)
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        if component == "topology":
            assert not any(key.endswith("Probe") for key in ours)
            continue
        [port] = ours["ports"]
        variables = {"gateway": "ANTIPHON_PORT", "worker": "ANTIPHON_WORKER_PORT", "webhooks": "ANTIPHON_WEBHOOK_PORT"}
        assert str(port["containerPort"]) == told[variables[component]]
        probes = {key: probe["httpGet"] for key, probe in ours.items() if key.endswith("Probe")}
        assert {get["port"] for get in probes.values()} == {port["name"]}
        assert probes["livenessProbe"]["path"] == probes["startupProbe"]["path"] == "/healthz"
        assert probes["readinessProbe"]["path"] == ("/readyz" if component == "gateway" else "/healthz")


def test_a_gateway_listens_for_others() -> None:
    [gateway] = of_component(case("minimal").pods(), "gateway")
    assert env(gateway)["ANTIPHON_HOST"] == "0.0.0.0"
    assert "command" not in container(gateway)


def test_what_runs() -> None:
    templates = case("production").pods()
    words = {t["metadata"]["labels"]["app.kubernetes.io/component"]: container(t).get("args") for t in templates}
    assert words == {
        "gateway": None,
        "worker": ["our_agents:assistant"],
        "webhooks": ["webhooks"],
        "topology": ["topology", "apply"],
    }


# --- leaving ---------------------------------------------------------------------------------------------------------


@cases
def test_a_gateway_has_time_for_its_drain(path: Path) -> None:
    for template in of_component(render(path).pods(), "gateway"):
        told = env(template)
        hook = container(template).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = float(str(told["ANTIPHON_DRAIN_DELAY_S"])) + float(str(told["ANTIPHON_DRAIN_S"]))
        # RUNBOOK.md: the drain and 5 s.
        assert template["spec"]["terminationGracePeriodSeconds"] == hook + drain + 5


def test_balancers_notice_before_clients_are_sent_away() -> None:
    """/readyz says no from the beginning of the delay; a probe must have failed often enough within it."""
    for path in CASES:
        for template in of_component(render(path).pods(), "gateway"):
            probe = container(template)["readinessProbe"]
            hook = container(template)["lifecycle"]["preStop"]["sleep"]["seconds"]
            delay = float(str(env(template)["ANTIPHON_DRAIN_DELAY_S"]))
            assert hook + delay >= probe["periodSeconds"] * probe["failureThreshold"]


def test_a_drain_without_hook_or_delay() -> None:
    values = 'gateway.drain={"preStopSeconds":0,"delaySeconds":0,"seconds":7,"perSecond":50}'
    gateway = case("minimal", values).one("Deployment", "chat-antiphon-gateway")["spec"]["template"]
    assert "lifecycle" not in container(gateway)
    assert gateway["spec"]["terminationGracePeriodSeconds"] == 12


@cases
def test_a_worker_has_time_for_its_runs(path: Path) -> None:
    for template in of_component(render(path).pods(), "worker"):
        told = env(template)
        drain = float(str(told["ANTIPHON_WORKER_DRAIN_S"])) + float(str(told["ANTIPHON_CANCEL_GRACE_S"]))
        assert template["spec"]["terminationGracePeriodSeconds"] == drain + 5


def test_what_the_code_takes_beyond_its_settings_fits() -> None:
    from antiphon import worker_process
    from gateway import draining

    assert draining.GOODBYE_S < 5
    assert worker_process._HAND_OVER_S < 5


# --- confinement -----------------------------------------------------------------------------------------------------


@cases
def test_pods_satisfy_restricted(path: Path) -> None:
    """The Pod Security Standard `restricted`, control by control."""
    for template in render(path).pods():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser", 65532) == 65532
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for each in spec["containers"] + spec.get("initContainers", []):
            assert each["securityContext"]["allowPrivilegeEscalation"] is False
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            # Beyond the standard.
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "configMap", "projected"}


@cases
def test_pods_have_no_access_to_the_api_and_no_variables_of_services(path: Path) -> None:
    rendered = render(path)
    for template in rendered.pods():
        assert template["spec"]["automountServiceAccountToken"] is False
        # A Service named `antiphon` would set ANTIPHON_PORT to tcp://…, and the gateway would not start.
        assert template["spec"]["enableServiceLinks"] is False
    assert all(account["automountServiceAccountToken"] is False for account in rendered.of("ServiceAccount"))
    assert not [found for found in rendered.objects if "Role" in found["kind"]]


@cases
def test_pods_find_their_service_accounts(path: Path) -> None:
    rendered = render(path)
    made = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")}
    used = {template["spec"]["serviceAccountName"] for template in rendered.pods()}
    assert used - made <= {"existing"}


@cases
def test_everything_has_bounds(path: Path) -> None:
    for template in render(path).pods():
        assert "memory" in container(template)["resources"]["limits"]
        tmp = next(volume for volume in template["spec"]["volumes"] if volume["name"] == "tmp")
        assert tmp["emptyDir"]["sizeLimit"] == "64Mi"


# --- secrets ---------------------------------------------------------------------------------------------------------


@cases
def test_no_secret_is_made_and_all_are_only_named(path: Path) -> None:
    rendered = render(path)
    assert not rendered.of("Secret")
    for template in rendered.pods():
        told = env(template)
        assert "ANTIPHON_JWT_SECRET" not in told
        assert all(value is None or "@" not in value for value in told.values())


@cases
def test_files_that_are_named_are_mounted_from_secrets(path: Path) -> None:
    for template in render(path).pods():
        mounts = {m["mountPath"]: m["name"] for m in container(template)["volumeMounts"]}
        volumes = {v["name"]: v for v in template["spec"]["volumes"]}
        for name, value in env(template).items():
            for file in str(value).split(",") if value and value.startswith("/etc/") else []:
                folder, _, key = file.rpartition("/")
                source = volumes[mounts[folder]]
                items = (source.get("secret") or source["configMap"]).get("items")
                assert items is None or {"key": key, "path": key} in items, name
                if "secret" in source:
                    assert source["secret"]["defaultMode"] == 0o440
        assert {v["name"] for v in template["spec"]["volumes"]} == set(mounts.values())


def test_each_part_has_its_own_credentials() -> None:
    secrets = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: volume["secret"]["secretName"]
        for template in case("production").pods()
        for volume in template["spec"]["volumes"]
        if volume["name"] == "nats-credentials"
    }
    assert secrets == {
        "gateway": "nats-gateway",
        "worker": "nats-worker",
        "webhooks": "nats-webhooks",
        "topology": "nats-provisioner",
    }


def test_the_file_of_endpoints_is_where_it_is_looked_for() -> None:
    [webhooks] = of_component(case("production").pods(), "webhooks")
    [volume] = [volume for volume in webhooks["spec"]["volumes"] if volume["name"] == "webhooks"]
    [mount] = [mount for mount in container(webhooks)["volumeMounts"] if mount["name"] == "webhooks"]
    assert volume["secret"]["secretName"] == "hooks"
    # A file that is mounted by itself (`subPath`) would never change.
    assert mount == {"name": "webhooks", "mountPath": "/etc/antiphon/webhooks", "readOnly": True}
    assert env(webhooks)["ANTIPHON_WEBHOOK_FILE"] == "/etc/antiphon/webhooks/hooks.toml"
    assert not of_component(case("minimal").pods(), "webhooks")


def test_a_url_with_a_password_stays_in_its_secret() -> None:
    for template in case("nats-tls").pods():
        [url] = [entry for entry in container(template)["env"] if entry["name"] == "ANTIPHON_NATS_URL"]
        assert url == {"name": "ANTIPHON_NATS_URL", "valueFrom": {"secretKeyRef": {"name": "nats-url", "key": "url"}}}


# --- selection -------------------------------------------------------------------------------------------------------


@cases
def test_selectors_select_their_pods_and_no_others(path: Path) -> None:
    rendered = render(path)
    labels = {
        t["metadata"]["labels"]["app.kubernetes.io/component"] + t["metadata"]["labels"].get("antiphon-worker", ""): t[
            "metadata"
        ]["labels"]
        for t in rendered.pods()
    }
    for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PodMonitor"):
        for found in rendered.of(kind):
            selector = found["spec"].get("selector") or found["spec"]["podSelector"]
            chosen = {name for name, each in labels.items() if selected(selector, each)}
            # A ServiceMonitor selects the Service by its labels, which are those of the Pods.
            wanted = found["metadata"]["labels"]
            expected = wanted["app.kubernetes.io/component"] + wanted.get("antiphon-worker", "")
            if kind == "PodMonitor":
                assert chosen == {name for name in labels if name.startswith(wanted["app.kubernetes.io/component"])}
            else:
                assert chosen == {expected}
    service = rendered.one("Service")
    assert {n for n, each in labels.items() if selected({"matchLabels": service["spec"]["selector"]}, each)} == {
        "gateway"
    }


@cases
def test_spread_selects_the_pods_themselves(path: Path) -> None:
    for template in render(path).pods():
        for spread in template["spec"].get("topologySpreadConstraints", []):
            assert selected(spread["labelSelector"], template["metadata"]["labels"])


def test_names_are_no_longer_than_kubernetes_allows() -> None:
    name = "a-release-name-that-is-as-long-as-helm-allows-it-to-be"[:53]
    rendered = case("minimal", f'fullnameOverride="{name}"')
    for found in rendered.objects:
        assert len(found["metadata"]["name"]) <= 63, found["metadata"]["name"]


# --- rollouts --------------------------------------------------------------------------------------------------------


@cases
def test_rollouts_keep_what_is_there(path: Path) -> None:
    for found in render(path).of("Deployment"):
        rolling = found["spec"]["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0 or found["metadata"]["name"].endswith("drawings")


def test_new_gateways_start_beside_all_old_ones() -> None:
    gateway = case("minimal").one("Deployment", "chat-antiphon-gateway")
    assert gateway["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "100%", "maxUnavailable": 0}


@cases
def test_a_budget_never_stops_the_draining_of_a_node(path: Path) -> None:
    for budget in render(path).of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] >= 1
        assert "minAvailable" not in budget["spec"]


def test_the_topology_job_has_another_name_when_it_does_something_else() -> None:
    def name(*sets: str) -> str:
        return str(case("minimal", *sets).one("Job")["metadata"]["name"])

    assert name() == name("gateway.replicas=5") == name('workers=[{"name":"default","agent":"other"}]')
    others = {name("log.replicas=3"), name('image.tag="0.2.0"'), name('workers=[{"name":"second","agent":"echo"}]')}
    assert len(others | {name()}) == 4


def test_the_plain_manifests_have_no_hooks() -> None:
    text = (ROOT / "deploy/kubernetes/antiphon.yaml").read_text(encoding="utf-8")
    objects = list(yaml.safe_load_all(text))
    assert "helm" not in text.split("\n", 2)[2].lower()
    assert {o["metadata"]["namespace"] for o in objects} == {"antiphon"}
