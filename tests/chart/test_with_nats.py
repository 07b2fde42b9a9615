"""The chart that brings NATS along: how ours is wired to the official one.

That cannot be had from everywhere, so it is left out here.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from broker.config import LogSettings
from broker.permissions import STANDARD, User, access, as_config
from tests.chart.rendering import HELM, ROOT, Object, container
from tests.chart.schemas import KUBERNETES, check

CHART = ROOT / "deploy/helm/antiphon-with-nats"


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    copy = tmp_path_factory.mktemp("chart") / "antiphon-with-nats"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text(encoding="utf-8"))
    about["dependencies"] = [d for d in about["dependencies"] if d["repository"].startswith("file:")]
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    shutil.copytree(ROOT / "deploy/helm/antiphon", copy / "charts/antiphon")
    command = [HELM, "template", "chat", copy, "--namespace", "chat"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def test_objects_are_what_their_schemas_say(objects: list[Object]) -> None:
    for found in objects:
        for version in KUBERNETES:
            check(found, version)


def test_its_antiphon_is_that_of_the_repository() -> None:
    ours = yaml.safe_load((ROOT / "deploy/helm/antiphon/Chart.yaml").read_text(encoding="utf-8"))
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert {d["name"]: d["version"] for d in about["dependencies"]}["antiphon"] == ours["version"]
    assert (about["version"], about["appVersion"]) == (ours["version"], ours["appVersion"])


def test_only_antiphon_reaches_nats(objects: list[Object]) -> None:
    [policy] = [o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "chat-nats"]
    clients, cluster, _ = policy["spec"]["ingress"]
    assert [port["port"] for port in clients["ports"]] == [4222]
    [peer] = clients["from"]
    for found in objects:
        if found["kind"] in ("Deployment", "Job"):
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert peer["podSelector"]["matchLabels"].items() <= labels.items()
            [url] = [e for e in container(found["spec"]["template"])["env"] if e["name"] == "ANTIPHON_NATS_URL"]
            assert url["valueFrom"]["secretKeyRef"] == {"name": "antiphon-nats", "key": "url"}
    assert cluster["from"] == [{"podSelector": policy["spec"]["podSelector"]}]


def test_the_cluster_keeps_what_it_acknowledges() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    nats = values["nats"]["config"]
    assert nats["cluster"] == {"enabled": True, "replicas": values["antiphon"]["log"]["replicas"]}
    assert nats["jetstream"]["merge"] == {"sync_interval": "always"}


def test_its_users_may_do_what_their_roles_need() -> None:
    """The password of each is in the Secret that its Pods have theirs from."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    secret, partitions = "antiphon-nats", LogSettings().partitions
    assert values["antiphon"]["connection"]["users"] == {"secretName": secret}
    assert "partitions" not in values["antiphon"]["log"]
    config, env = values["nats"]["config"]["merge"], values["nats"]["container"]["env"]
    users = {user["user"]: user for user in config["authorization"]["users"]}
    assert users.keys() == {*STANDARD}
    for role in STANDARD:
        assert users[role]["permissions"] == as_config(access(User(role), partitions))
        assert users[role]["password"] == f"<< ${role.upper()}_PASSWORD >>"
        wanted = {"valueFrom": {"secretKeyRef": {"name": secret, "key": str(role)}}}
        assert env[f"{role.upper()}_PASSWORD"] == wanted


def test_it_names_the_official_chart() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    [nats] = [d for d in about["dependencies"] if d["name"] == "nats"]
    assert nats["repository"] == "https://nats-io.github.io/helm/charts/"
    assert nats["condition"] == "nats.enabled"
    assert Path(CHART / "charts").exists() is False
