#!/usr/bin/env python3
"""Writes deploy/grafana/dashboard.json from the tables below. `--check`: only says whether it is as they say.

A row is a title and its panels; a panel's width is in 24ths of the page. `$gateway` and `$worker` are the instances that
somebody has chosen.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "deploy/grafana/dashboard.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT = {"stat": 4, "timeseries": 8, "table": 6}
G = 'instance=~"$gateway"'
W = 'instance=~"$worker"'
ALL = 'instance=~"$gateway|$worker"'


@dataclass(frozen=True)
class Panel:
    """`queries` are pairs of PromQL and legend; `unit` is one of Grafana's."""

    title: str
    meaning: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    limit: float | None = None
    """Beyond this a stat is red (`below`: at or below it)."""
    below: bool = False


def rate(metric: str, match: str, by: str = "") -> str:
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{match}}}[$__rate_interval]))"


def quantile(metric: str, match: str, q: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{match}}}[$__rate_interval])))"


def quantiles(metric: str, match: str, what: str = "") -> tuple[tuple[str, str], ...]:
    return tuple((quantile(metric, match, q), f"{what} {name}".strip()) for q, name in ((0.5, "p50"), (0.99, "p99")))


OVERVIEW = (
    Panel(
        "Connections",
        "Open client connections.",
        ((f"sum(antiphon_gateway_connections{{{G}}})", ""),),
        kind="stat",
        width=3,
    ),
    Panel(
        "Sessions open",
        "Sessions that gateways have open; one in two gateways counts twice.",
        ((f"sum(antiphon_gateway_sessions{{{G}}})", ""),),
        kind="stat",
        width=3,
    ),
    Panel(
        "Runs",
        "Runs that are being executed, waiting and paused ones included.",
        ((f"sum(antiphon_worker_runs_active{{{W}}})", ""),),
        kind="stat",
        width=3,
    ),
    Panel(
        "Jobs waiting",
        "Jobs that no worker has yet.",
        (('sum(max by (pool) (antiphon_pool_jobs{state="waiting"}))', ""),),
        kind="stat",
        width=3,
        limit=10,
    ),
    Panel(
        "Entries delivered",
        "Written to live readers, a second.",
        ((rate("antiphon_gateway_entries_delivered_total", G), ""),),
        unit="cps",
        kind="stat",
        width=3,
    ),
    Panel(
        "Fan-out p99",
        "From stored to written to the sockets.",
        ((quantile("antiphon_gateway_fan_out_lag_seconds", G, 0.99), ""),),
        unit="s",
        kind="stat",
        width=3,
        limit=0.25,
    ),
    Panel(
        "NATS reached",
        "The share of processes that reach NATS.",
        ((f"avg(antiphon_nats_connected{{{ALL}}})", ""),),
        unit="percentunit",
        kind="stat",
        width=3,
        limit=0.999,
        below=True,
    ),
    Panel(
        "Alerts firing",
        "Of this set of rules.",
        (('count(ALERTS{alertname=~"Antiphon.*", alertstate="firing"}) or vector(0)', ""),),
        kind="stat",
        width=3,
        limit=1,
    ),
    Panel(
        "Lag",
        "Fan-out: from when NATS stored an entry to when it was written to the sockets. End to end: from when it was published to when a client said that it had handled it.",
        (
            *quantiles("antiphon_gateway_fan_out_lag_seconds", G, "fan-out"),
            *quantiles("antiphon_gateway_end_to_end_lag_seconds", G, "end to end"),
        ),
        unit="s",
    ),
    Panel(
        "Runs by state",
        "Runs that are being executed.",
        ((f"sum by (state) (antiphon_worker_runs_active{{{W}}})", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        "Errors by objective",
        "The share of bad events within an hour; the objectives allow 0.1 % of commands, 1 % of deliveries and of starts.",
        (("antiphon:errors:ratio_rate1h", "{{slo}}"),),
        unit="percentunit",
    ),
)
GATEWAYS = (
    Panel(
        "Connections by gateway",
        "Open client connections of each.",
        ((f"antiphon_gateway_connections{{{G}}}", "{{instance}}"),),
    ),
    Panel(
        "Connecting",
        "Answers to those who connect, a second; closed by the gateway, by code.",
        (
            (rate("antiphon_gateway_upgrades_total", G, "outcome"), "{{outcome}}"),
            (rate("antiphon_gateway_closes_total", G, "code") + " > 0", "closed {{code}}"),
        ),
        unit="cps",
    ),
    Panel(
        "Tokens",
        "Fetches of issuers' key sets, a minute; revocations that are in force.",
        (
            (f"60 * ({rate('antiphon_gateway_key_fetches_total', G, 'outcome')})", "fetched: {{outcome}}"),
            (f"max(antiphon_gateway_revocations{{{G}}})", "revocations"),
        ),
    ),
    Panel(
        "Draining",
        "1 while a gateway or worker leaves; what is left at gateways that do.",
        (
            (f"antiphon_gateway_draining{{{G}}}", "{{instance}}"),
            (f"antiphon_worker_draining{{{W}}}", "{{instance}}"),
            (f"sum(antiphon_gateway_connections{{{G}}} and antiphon_gateway_draining{{{G}}} == 1)", "connections left"),
        ),
    ),
    Panel(
        "Joins",
        "By where they were served from, a second.",
        ((rate("antiphon_gateway_joins_total", G, "kind"), "{{kind}}"),),
        unit="cps",
        stacked=True,
    ),
    Panel(
        "Catch-up p99",
        "Until a reader was live.",
        ((quantile("antiphon_gateway_catch_up_seconds", G, 0.99, "kind"), "{{kind}}"),),
        unit="s",
    ),
    Panel(
        "Commands",
        "From a command's turn to its answer, p50 and p99.",
        (
            (quantile("antiphon_gateway_command_seconds", G, 0.5, "command"), "{{command}} p50"),
            (quantile("antiphon_gateway_command_seconds", G, 0.99, "command"), "{{command}} p99"),
        ),
        unit="s",
    ),
    Panel(
        "Inputs and refusals",
        "Inputs stored, and commands refused by code, a second.",
        (
            (rate("antiphon_gateway_inputs_total", G, "kind"), "inputs {{kind}}"),
            (rate("antiphon_gateway_refusals_total", G, "code") + " > 0", "refused {{code}}"),
        ),
        unit="cps",
    ),
    Panel(
        "Limits met",
        "What was refused because somebody has had as much as they may, by the limit, a second.",
        ((rate("antiphon_gateway_limited_total", G, "limit") + " > 0", "{{limit}}"),),
        unit="cps",
    ),
    Panel(
        "Read more slowly",
        "Sockets that are not read for a while because more comes than is read: of the connection, of its user or address, "
        "of all new sockets.",
        ((f"sum by (by) (antiphon_gateway_sockets_held{{{G}}})", "{{by}}"),),
    ),
    Panel(
        "Sent later",
        "What became of alarms of scheduled inputs, a second.",
        ((rate("antiphon_gateway_scheduled_total", G, "outcome") + " > 0", "{{outcome}}"),),
        unit="cps",
    ),
    Panel(
        "Sent late",
        "From the time that an input was scheduled for to when it was sent.",
        quantiles("antiphon_gateway_schedule_late_seconds", G),
        unit="s",
    ),
    Panel(
        "Slow readers",
        "Held back now, and how often readers fell behind.",
        (
            (f"sum(antiphon_gateway_readers_behind{{{G}}})", "behind now"),
            (rate("antiphon_gateway_readers_held_back_total", G), "held back, a second"),
        ),
    ),
    Panel(
        "Unsent",
        "Bytes that clients have not taken: of all, and of the worst one.",
        (
            (f"sum(antiphon_gateway_outbox_bytes{{{G}}})", "all"),
            (f"max(antiphon_gateway_outbox_largest_bytes{{{G}}})", "largest"),
        ),
        unit="bytes",
    ),
    Panel(
        "Sessions, subscriptions, people",
        "Summed over gateways.",
        tuple((f"sum(antiphon_gateway_{name}{{{G}}})", name) for name in ("sessions", "subscriptions", "participants")),
    ),
    Panel(
        "Entries delivered",
        "Written to live readers, a second.",
        ((rate("antiphon_gateway_entries_delivered_total", G, "instance"), "{{instance}}"),),
        unit="cps",
        stacked=True,
    ),
    Panel(
        "What became of entries",
        "That were due to readers, a second. Delivered and caught up together are as many as were due, less what is in flight.",
        (
            (rate("antiphon_gateway_entries_due_total", G), "due"),
            (rate("antiphon_gateway_entries_caught_up_total", G, "how"), "caught up: {{how}}"),
            (rate("antiphon_gateway_entries_replayed_total", G, "how"), "in joining: {{how}}"),
            (rate("antiphon_gateway_entries_taken_total", G), "came"),
        ),
        unit="cps",
    ),
    Panel(
        "Entries in flight",
        "Due to readers and not dealt with yet: more and more of them are readers that do not keep up.",
        ((f"sum by (instance) (antiphon_gateway_entries_in_flight{{{G}}})", "{{instance}}"),),
    ),
    Panel(
        "Sockets",
        "Open ones, with those that have asked for nothing yet, and why sockets were ended, a second.",
        (
            (f"sum(antiphon_gateway_sockets{{{G}}})", "open"),
            (rate("antiphon_gateway_sockets_cut_total", G, "reason"), "cut: {{reason}}"),
        ),
    ),
    Panel(
        "End to end, sampled",
        "Clients asked to say when they have handled an entry, and how many did, a second.",
        (
            (rate("antiphon_gateway_marks_total", G), "asked"),
            (rate("antiphon_gateway_end_to_end_lag_seconds_count", G), "answered"),
        ),
        unit="cps",
    ),
)
LOG = (
    Panel(
        "Append",
        "From sending a write to its acknowledgement.",
        quantiles("antiphon_log_append_seconds", ALL),
        unit="s",
    ),
    Panel(
        "Writes",
        "Entries of workers by kind, a second.",
        (
            (rate("antiphon_worker_appends_total", W, "kind"), "{{kind}}"),
            (rate("antiphon_log_append_seconds_count", ALL), "all writes"),
            (rate("antiphon_log_messages_stored_total", ALL, "kind"), "stored: {{kind}}"),
        ),
        unit="cps",
    ),
    Panel(
        "Trouble with writes",
        "Sent again, outcome unknown, refused because the storage is full, a second.",
        (
            (rate("antiphon_log_append_retries_total", ALL, "reason"), "sent again, {{reason}}"),
            (rate("antiphon_log_unknown_outcomes_total", ALL), "no answer"),
            (rate("antiphon_log_full_refusals_total", ALL), "full"),
        ),
        unit="cps",
    ),
    Panel(
        "Mended",
        "What the live path lost or had twice, a second.",
        (
            (rate("antiphon_log_gaps_repaired_total", ALL), "gaps repaired"),
            (rate("antiphon_log_duplicates_dropped_total", ALL), "duplicates dropped"),
            (rate("antiphon_gateway_rewinds_total", G), "sessions read afresh"),
            (rate("antiphon_nats_slow_consumer_total", ALL), "slow consumer"),
            (rate("antiphon_nats_permission_violations_total", ALL), "not permitted by NATS"),
        ),
        unit="cps",
    ),
    Panel(
        "NATS",
        "Processes that do not reach it; reconnects.",
        (
            (f"count(antiphon_nats_connected{{{ALL}}} == 0) or vector(0)", "away"),
            (f"sum(increase(antiphon_nats_reconnects_total{{{ALL}}}[$__rate_interval]))", "reconnects"),
        ),
    ),
    Panel(
        "Round trip to NATS",
        "One ping and back; by how much its clock is ahead.",
        (
            (f"max(antiphon_nats_round_trip_seconds{{{ALL}}})", "round trip, longest"),
            (f"max(abs(antiphon_nats_clock_offset_seconds{{{ALL}}}))", "clock, largest difference"),
        ),
        unit="s",
    ),
    Panel(
        "Replicas",
        "Operations behind the leader; replicas and streams that are away.",
        (
            ("max(antiphon_log_replica_lag_entries)", "behind"),
            ("max(antiphon_log_replicas_offline)", "offline"),
            ("max(antiphon_log_streams_silent)", "streams without leader"),
        ),
    ),
    Panel(
        "Size of the log", "Bytes of all streams, one replica.", (("max(antiphon_log_bytes)", "bytes"),), unit="bytes"
    ),
    Panel(
        "Entries in the log",
        "Messages of all streams.",
        (("max(antiphon_log_entries)", "messages"),),
    ),
    Panel(
        "Size of attachments",
        "Bytes of their stream, one replica.",
        (("max(antiphon_attachments_stored_bytes)", "bytes"),),
        unit="bytes",
    ),
    Panel(
        "Attachments moved",
        "Bytes that came from clients, and went to them.",
        (
            (
                f"sum by (direction) (rate(antiphon_attachments_bytes_total{{{G}}}[$__rate_interval]))",
                "{{direction}}",
            ),
        ),
        unit="Bps",
    ),
    Panel(
        "Attachments refused",
        "By code; and uploads that were cut short, and swept later.",
        (
            (
                f"sum by (reason) (increase(antiphon_attachments_refused_total{{{G}}}[$__rate_interval]))",
                "{{reason}}",
            ),
            (f"sum(increase(antiphon_attachments_swept_total{{{G}}}[$__rate_interval]))", "swept"),
        ),
    ),
)
WORKERS = (
    Panel(
        "Jobs by pool",
        "Waiting, and leased by workers.",
        (("max by (pool, state) (antiphon_pool_jobs)", "{{pool}} {{state}}"),),
    ),
    Panel(
        "Oldest waiting job", "By pool.", (("max by (pool) (antiphon_pool_oldest_job_seconds)", "{{pool}}"),), unit="s"
    ),
    Panel(
        "Waiting by priority",
        "Jobs, by pool and priority.",
        (("max by (pool, priority) (antiphon_pool_waiting_jobs)", "{{pool}} {{priority}}"),),
    ),
    Panel(
        "Oldest waiting job by priority",
        "By pool and priority.",
        (("max by (pool, priority) (antiphon_pool_oldest_waiting_job_seconds)", "{{pool}} {{priority}}"),),
        unit="s",
    ),
    Panel(
        "From job to worker",
        "How long jobs waited for a worker; workers that ask for one.",
        (*quantiles("antiphon_worker_job_wait_seconds", W),),
        unit="s",
    ),
    Panel(
        "Lanes",
        "Owned, parked, paused, and the capacity for those at work.",
        tuple((f"sum(antiphon_worker_{name}{{{W}}})", name) for name in ("sessions", "parked", "paused", "capacity")),
    ),
    Panel(
        "Load of pools",
        "Slots taken; workers that are free.",
        (("antiphon:pool_load:ratio", "{{pool}}"),),
        unit="percentunit",
    ),
    Panel(
        "Workers asking",
        "For a job, by pool.",
        (
            ("max by (pool) (antiphon_pool_workers_asking)", "{{pool}}"),
            (
                f"count by (pool, agent, version) (antiphon_worker_info{{{W}}})",
                "workers {{pool}} {{agent}} {{version}}",
            ),
            (f"sum(antiphon_worker_drained{{{W}}})", "drained"),
        ),
    ),
    Panel(
        "Ends of runs",
        "A second.",
        ((rate("antiphon_worker_runs_total", W, "end"), "{{end}}"),),
        unit="cps",
        stacked=True,
    ),
    Panel(
        "Agents that misbehave",
        "Times that the event loop stood still, by who blocked it, and tasks that outlived their runs, a second.",
        (
            (rate("antiphon_worker_loop_blocked_total", W, "by"), "blocked by {{by}}"),
            (rate("antiphon_worker_tasks_leaked_total", W), "tasks left behind"),
        ),
        unit="cps",
    ),
    Panel(
        "Tokens of models",
        "A second, as providers count them.",
        ((rate("antiphon_worker_model_tokens_total", W, "kind"), "{{kind}}"),),
    ),
    Panel(
        "Calls of models",
        "A second, by how they ended; and those that were made again.",
        (
            (rate("antiphon_worker_model_calls_total", W, "end"), "{{end}}"),
            (f"sum(rate(antiphon_worker_model_retries_total{{{W}}}[$__rate_interval]))", "again"),
        ),
        unit="cps",
    ),
    Panel(
        "Ends of jobs", "A second.", ((rate("antiphon_worker_jobs_total", W, "end") + " > 0", "{{end}}"),), unit="cps"
    ),
    Panel(
        "Workers lost",
        "Within the interval.",
        tuple(
            (f"sum(increase({name}{{{match}}}[$__rate_interval]))", what)
            for name, match, what in (
                ("antiphon_worker_takeovers_total", W, "takeovers"),
                ("antiphon_worker_fence_refusals_total", W, "fence refusals"),
                ("antiphon_worker_lease_renewals_failed_total", W, "renewals failed"),
                ("antiphon_worker_agents_abandoned_total", W, "agents abandoned"),
                ("antiphon_gateway_jobs_repaired_total", G, "jobs repaired"),
            )
        ),
    ),
    Panel("To the first text", "From a run's start.", quantiles("antiphon_worker_first_text_seconds", W), unit="s"),
    Panel(
        "Length of runs",
        "At one worker, waits and pauses included.",
        quantiles("antiphon_worker_run_seconds", W),
        unit="s",
    ),
    Panel(
        "Text",
        "Pieces (tokens, with most models) said, a second.",
        ((rate("antiphon_worker_text_pieces_total", W), "pieces"),),
        unit="cps",
    ),
)
PEOPLE = (
    Panel(
        "Waits", "Of runs, by what for.", ((f"sum by (kind) (antiphon_worker_waits{{{W}}})", "{{kind}}"),), stacked=True
    ),
    Panel(
        "Oldest wait",
        "By what for.",
        ((f"max by (kind) (antiphon_worker_oldest_wait_seconds{{{W}}})", "{{kind}}"),),
        unit="s",
    ),
    Panel(
        "Answered after",
        "p50 of waits that ended, by what for.",
        ((quantile("antiphon_worker_wait_seconds", W, 0.5, "kind"), "{{kind}}"),),
        unit="s",
    ),
    Panel("Paused", "Runs held because nobody watches.", ((f"sum(antiphon_worker_paused{{{W}}})", "runs"),)),
    Panel(
        "Paused time",
        "Of all runs, counted at a pause's end.",
        ((f"sum(increase(antiphon_paused_seconds_total{{{W}}}[1h]))", "within an hour"),),
        unit="s",
    ),
    Panel(
        "Text not said",
        "What pauses have saved, an estimate, within an hour.",
        ((f"sum(increase(antiphon_paused_tokens_estimate_total{{{W}}}[1h]))", "pieces"),),
    ),
)
PROCESSES = (
    Panel(
        "CPU",
        "Cores.",
        (
            (
                f"rate(process_cpu_seconds_total{{{ALL}}}[$__rate_interval]) and on (job, instance) antiphon_build_info",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Memory",
        "Resident.",
        ((f"process_resident_memory_bytes{{{ALL}}} and on (job, instance) antiphon_build_info", "{{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "Tasks",
        "Of event loops. They follow connections and sessions, or lanes; what grows without them is a leak.",
        ((f"sum by (instance) (antiphon_tasks{{{ALL}}})", "{{instance}}"),),
    ),
    Panel(
        "Event loop p99",
        "By how much timers are late.",
        ((quantile("antiphon_event_loop_lag_seconds", ALL, 0.99, "instance"), "{{instance}}"),),
        unit="s",
    ),
    Panel(
        "Open files",
        "Of what the system allows.",
        (
            (
                f"process_open_fds{{{ALL}}} / process_max_fds{{{ALL}}} and on (job, instance) antiphon_build_info",
                "{{instance}}",
            ),
        ),
        unit="percentunit",
        width=12,
    ),
    Panel(
        "Versions",
        "Processes by version.",
        ((f"count by (component, version, python) (antiphon_build_info{{{ALL}}})", ""),),
        kind="table",
        width=12,
    ),
)
H = 'endpoint=~".*"'
WEBHOOKS = (
    Panel(
        "Events",
        "Made for endpoints, and what became of them, each second.",
        (
            ("sum(rate(antiphon_webhook_events_total[$__rate_interval]))", "made"),
            (rate("antiphon_webhook_delivered_total", H), "taken"),
            (rate("antiphon_webhook_skipped_total", H), "not needed: somebody watches"),
            (rate("antiphon_webhook_given_up_total", H), "given up"),
        ),
    ),
    Panel(
        "Failures",
        "Requests that failed, and those that sent an event once more, each second.",
        (
            (rate("antiphon_webhook_failures_total", H, "endpoint, reason"), "{{endpoint}} {{reason}}"),
            (rate("antiphon_webhook_retries_total", H, "endpoint"), "{{endpoint}} again"),
        ),
    ),
    Panel(
        "Waiting events",
        "In the sender's memory; beyond ANTIPHON_WEBHOOK_BACKLOG the rest is in NATS.",
        (("sum by (endpoint) (antiphon_webhook_backlog)", "{{endpoint}}"),),
    ),
    Panel(
        "Answers",
        "How long endpoints take.",
        quantiles("antiphon_webhook_request_seconds", H),
        unit="s",
    ),
    Panel(
        "From the log to the endpoint",
        "From when something happened to when an endpoint had taken the event, and how far the sender is behind the log.",
        (
            *quantiles("antiphon_webhook_delay_seconds", 'le=~".*"'),
            ("max(antiphon_webhook_lag_seconds)", "behind the log"),
        ),
        unit="s",
    ),
    Panel(
        "Oldest event",
        "How long the oldest event of each endpoint has waited.",
        (("max by (endpoint) (antiphon_webhook_oldest_seconds)", "{{endpoint}}"),),
        unit="s",
    ),
)
ROWS = (
    ("Overview", OVERVIEW),
    ("Gateways", GATEWAYS),
    ("Log and NATS", LOG),
    ("Workers", WORKERS),
    ("People and cost", PEOPLE),
    ("Webhooks", WEBHOOKS),
    ("Processes", PROCESSES),
)


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        x, y, high = 0, y + 1, 0
        for panel in row:
            if x + panel.width > 24:
                x, y, high = 0, y + high, 0
            height = HEIGHT[panel.kind]
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            x, high = x + panel.width, max(high, height)
        y += high
    return {
        "uid": "antiphon",
        "title": "Antiphon",
        "tags": ["antiphon"],
        "description": "Gateways, workers and the log. Made by tools/dashboard.py; metrics: docs/RUNBOOK.md.",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _instances("gateway"), _instances("worker")]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": DATASOURCE,
            "expr": expr,
            "legendFormat": legend or "__auto",
            **({"format": "table", "instant": True} if panel.kind == "table" else {}),
        }
        for n, (expr, legend) in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        good, bad = ("red", "green") if panel.below else ("green", "red")
        steps = [{"color": good, "value": None}]
        if panel.limit is not None:
            steps.append({"color": bad, "value": panel.limit})
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _instances(component: str) -> dict[str, Any]:
    query = f'label_values(antiphon_build_info{{component="{component}"}}, instance)'
    return {
        "name": component,
        "label": component.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": component},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def main() -> int:
    made = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
            print(f"{PAGE} is not what tools/dashboard.py makes: run it", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
