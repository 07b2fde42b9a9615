"""The alert rules: each is tested both ways, explained, and asks for what real processes expose."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest
import yaml

from tests.monitoring.conftest import Seen, alerts, rules
from tests.monitoring.expressions import Known, labels_of, parse
from tests.support.prometheus import ROOT, RULES, tools

RUNBOOK = ROOT / "docs/RUNBOOK.md"
_OF_TEMPLATES = re.compile(r"\$labels\.(\w+)")


def record(known: Known) -> None:
    """Makes known what the rules record, in their order. Raises Wrong."""
    for rule in rules():
        if "record" in rule:
            known.recorded[rule["record"]] = labels_of(parse(rule["expr"]), known) | frozenset(rule.get("labels", ()))


def test_promtool_accepts_them() -> None:
    subprocess.run([tools() / "promtool", "check", "rules", str(RULES)], check=True)


def test_every_alert_fires_and_is_silent_in_a_test() -> None:
    tests = yaml.safe_load((RULES.parent / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    names = {alert["alert"] for alert in alerts()}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    headings = set(re.findall(r"^### Alert (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning"), alert
        told = alert["annotations"]
        assert told["summary"], alert
        assert told["description"], alert
        assert told["runbook_url"] == f"docs/RUNBOOK.md#alert-{alert['alert'].lower()}"


def test_rules_ask_for_metrics_labels_and_values_that_exist(known: Known) -> None:
    record(known)
    for alert in alerts():
        labels = labels_of(parse(alert["expr"]), known)
        named = set(_OF_TEMPLATES.findall("".join(alert["annotations"].values())))
        assert named <= labels, (alert["alert"], labels)


def test_a_real_prometheus_evaluates_every_rule(seen: Seen) -> None:
    assert Counter(rule["name"] for rule in seen.rules) == Counter(
        rule.get("record") or rule["alert"] for rule in rules()
    )
    failed = [rule for rule in seen.rules if rule["health"] != "ok" or rule.get("lastError")]
    assert not failed


def test_no_alert_fires_while_all_is_well(seen: Seen) -> None:
    firing = {rule["name"] for rule in seen.rules if rule.get("state") == "firing"}
    assert not firing


@pytest.mark.parametrize("component", ["gateway", "worker", "webhooks"])
def test_promtool_finds_nothing_wrong_with_the_metrics(seen: Seen, component: str) -> None:
    command = [tools() / "promtool", "check", "metrics"]
    found = subprocess.run(command, check=False, input=seen.exposed[component], text=True, capture_output=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
