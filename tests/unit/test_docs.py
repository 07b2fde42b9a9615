"""The documents say what is so: links lead somewhere, commands and flags exist, numbers and names are those of the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from agent_worker import errors
from agent_worker.config import WorkerSettings
from agent_worker.context import SessionContext
from agent_worker.loading import load_agent
from agent_worker.metrics import WorkerMetrics
from agent_worker.speaking import Speaking
from antiphon import settings_table
from antiphon.callout_config import CalloutSettings
from antiphon.callout_process import CalloutMetrics
from antiphon.span_metrics import SpanMetrics
from broker import events
from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings
from broker.errors import AntiphonError, ToolErrorCode
from broker.metrics import HotHistogram
from gateway.config import GatewaySettings
from gateway.metrics import GatewayMetrics
from webhooks.config import WebhookSettings
from webhooks.metrics import WebhookMetrics

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")),
        *(
            ROOT / name
            for name in ("clients/python/README.md", "clients/typescript/README.md", "clients/console/README.md")
        ),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
AGENTS = ROOT / "docs/AGENTS.md"
PROTOCOL = ROOT / "docs/PROTOCOL.md"
PACKAGES = ("broker", "gateway", "agent_worker", "webhooks", "antiphon")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_SETTINGS = {
    f"ANTIPHON_{field.name.upper()}": field.default
    for cls in (
        *(NatsSettings, LogSettings, GatewaySettings, WorkerSettings),
        *(AttachmentSettings, WebhookSettings, TraceSettings, CalloutSettings),
    )
    for field in fields(cls)
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def registries() -> tuple[CollectorRegistry, ...]:
    """The metrics of all processes."""
    SpanMetrics(spans := CollectorRegistry())
    made = (GatewayMetrics(), WorkerMetrics(), WebhookMetrics(), CalloutMetrics())
    return *(metrics.registry for metrics in made), spans


def commands(page: Path) -> Iterator[list[str]]:
    """The `antiphon …` and `make …` command lines of a page, in blocks without a language and in spans."""
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    for line in [*lines, *_SPAN.findall(prose(page))]:
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] in ("antiphon", "make"):
            yield words


# --- links ---------------------------------------------------------------------------------------------------------------


@pages
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for pair in _LINK.findall(prose(page)):
        link = pair[0] or pair[1]
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.compile(r"(?:broker|gateway|agent_worker|webhooks|antiphon|clients|tests|tools|docs)/[\w./-]*")
    absent = [span for span in _SPAN.findall(prose(page)) if named.fullmatch(span) and not (ROOT / span).exists()]
    assert not absent


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = (pair[0].partition("#")[0] for pair in _LINK.findall(prose(page)))
        targets = {(page.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link}
        waiting += targets - reached
    assert set(PAGES) <= reached


def test_decisions_that_are_named_exist() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs/adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    sources = [*PAGES, *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    named = {int(n) for path in sources for n in re.findall(r"\bADR (\d+)", path.read_text(encoding="utf-8"))}
    assert named <= set(numbers)


# --- commands --------------------------------------------------------------------------------------------------------------


@pages
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = set(re.findall(r"^ {4}([a-z-]+)(?: |$)", settings_table.help_of(), re.MULTILINE))
    assert {"dev", "chat", "topology"} <= known
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, words
            continue
        assert words[1] in known, words
        unknown = {word for word in words if word.startswith("--")} - settings_table.flags_of(words[1])
        assert not unknown, words


def test_the_readme_names_the_commands() -> None:
    named = {tuple(words[:2]) for words in commands(ROOT / "README.md")}
    assert {("make", "demo"), ("make", "test"), ("antiphon", "dev"), ("antiphon", "chat")} <= named


# --- settings, limits, metrics -----------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings_table.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_table_of_settings_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings_table, "PAGE", tmp_path / "SETTINGS.md")
    assert settings_table.main(["--check"]) == 1
    assert settings_table.main([]) == 0
    assert settings_table.main(["--check"]) == 0
    with (tmp_path / "SETTINGS.md").open("a", encoding="utf-8") as file:
        file.write("by hand\n")
    assert settings_table.main(["--check"]) == 1
    assert "python -m antiphon.settings_table" in capsys.readouterr().err


def test_every_variable_of_the_code_is_in_the_table() -> None:
    source = "".join(path.read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    used = {name for name in re.findall(r"\bANTIPHON_[A-Z_]*[A-Z]\b", source) if name != "ANTIPHON_META"}
    assert used == {*(name for name, _ in settings_table.OTHERS), *(used & _SETTINGS.keys())}


@pages
def test_variables_that_are_named_exist(page: Path) -> None:
    known = {*_SETTINGS, *(name for name, _ in settings_table.OTHERS), "ANTIPHON_META"}
    assert set(re.findall(r"\bANTIPHON_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8"))) <= known


def test_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([\d,]+) \|", prose(ROOT / "docs/ARCHITECTURE.md"), re.MULTILINE)
    assert len(rows) > 30
    for name, number in rows:
        module, _, constant = name.rpartition(".")
        value = getattr(importlib.import_module(module), constant) if module else _SETTINGS[name]
        assert value == int(number.replace(",", "")), name


def families() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name (of a counter: with its ending) and labels of each metric of ours."""
    for registry in registries():
        for collector, names in registry._collector_to_names.items():
            if isinstance(collector, MetricWrapperBase):
                ending = "_total" if f"{collector._name}_total" in names else ""
                yield f"{collector._name}{ending}", tuple(collector._labelnames)
            elif isinstance(collector, HotHistogram):
                yield collector.name, ()


def test_metrics_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(antiphon_\w+)(?:\{([\w,]+)\})?` \|", prose(ROOT / "docs/RUNBOOK.md"), re.MULTILINE)
    told = {name: tuple(labels.split(",")) if labels else () for name, labels in rows}
    assert len(told) == len(rows)
    assert told == dict(families())


@pages
def test_metrics_that_are_named_exist(page: Path) -> None:
    known = (
        {"antiphon_client"} | {name for name, _ in families()} | {name.removesuffix("_total") for name, _ in families()}
    )
    named = {span.partition("{")[0] for span in _SPAN.findall(prose(page)) if span.startswith("antiphon_")}
    assert {name.partition(".")[0] for name in named} <= known


def test_log_events_are_those_of_the_code() -> None:
    source = "".join(path.read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    used = set(re.findall(r"_log\.(?:info|warning|error|exception)\(\s*\"([^\"]+)\"", source))
    table = prose(ROOT / "docs/RUNBOOK.md").partition("| event | where | meaning |")[2]
    told = {event for row in table.splitlines() if row.startswith("| `") for event in _SPAN.findall(row.split("|")[1])}
    assert told == used


# --- examples ------------------------------------------------------------------------------------------------------------------


@pages
def test_examples_in_python_compile_and_find_what_they_import(page: Path) -> None:
    for code in blocks(page, "python"):
        # The examples of a client may await at their top level.
        compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for module, names in re.findall(r"^from ([\w.]+) import (.+)$", code, re.MULTILINE):
            for name in names.split(","):
                assert found_in(module, name.partition(" as ")[0].strip()), f"{module}: {name}"


def found_in(module: str, name: str) -> bool:
    """Whether a module has a name, as its own or as a module below it."""
    return hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}") is not None


def test_the_agents_of_the_page_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = blocks(AGENTS, "python")
    assert len(codes) > 5
    assert codes[0] in blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = {}
    for n, code in enumerate(codes):
        (tmp_path / f"docs_agent_{n}.py").write_text(code, encoding="utf-8")
        # A block is a module; one that makes no Agent is an async function alone.
        name = "agent" if "\nagent = " in code else re.findall(r"^async def (\w+)", code, re.MULTILINE)[-1]
        agent = load_agent(f"docs_agent_{n}:{name}")
        found[agent.name] = agent
    assert len(found) == len(codes)
    assert found["hello"].on_takeover == "restart"
    assert found["planner"].accepts_steering


def test_the_agents_of_the_page_call_what_is_there() -> None:
    seen = set()
    for code in blocks(AGENTS, "python"):
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Attribute(value=ast.Name(id="ctx"), attr=name):
                    arguments = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
                    inspect.signature(getattr(SessionContext, name)).bind(None, *call.args, **arguments)
                    seen.add(name)
    assert {"text", "step", "take_steering", "tool", "client_tool", "approve", "ask_user", "ask"} <= seen


def test_the_page_for_agents_names_all_that_a_context_has() -> None:
    named = set(re.findall(r"\bctx\.(\w+)", prose(AGENTS)))
    members = {name for name in dir(SessionContext) if not name.startswith("_")}
    source = inspect.getsource(SessionContext) + inspect.getsource(Speaking)
    attributes = set(re.findall(r"^ +self\.([a-z]\w*)(?::[^=]+)? = ", source, re.MULTILINE))
    assert named == members | attributes


def test_the_page_for_agents_names_all_errors() -> None:
    raised = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, AntiphonError) and found is not AntiphonError
    }
    table = prose(AGENTS).partition("| error | raised by | when |")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == raised


# --- lifecycles ----------------------------------------------------------------------------------------------------------------

_ARROW = re.compile(r"^ +(\[\*\]|\w+) --> (\[\*\]|\w+)(?: : ([^:;#]+))?$")


def arrows() -> list[tuple[str, str, str]]:
    """From, to, and what is written at it, of all state diagrams of the protocol."""
    found = []
    for diagram in blocks(PROTOCOL, "mermaid"):
        kind, *lines = diagram.splitlines()
        assert kind == "stateDiagram-v2"
        for line in lines:
            if not re.fullmatch(r" +(state \w+ \{|\})", line):
                arrow = _ARROW.match(line)
                assert arrow, line
                found.append((arrow[1], arrow[2], arrow[3] or ""))
    return found


def test_the_lifecycles_name_events_and_commands_that_exist() -> None:
    types = {found.TYPE for found in vars(events).values() if inspect.isclass(found) and hasattr(found, "TYPE")}
    listed = {
        span for row in re.findall(r"^\| (`.+?) \|", prose(PROTOCOL), re.MULTILINE) for span in _SPAN.findall(row)
    }
    labels = " ".join(label for _, _, label in arrows())
    dotted = set(re.findall(r"\b[a-z]+(?:\.[a-z_]+)+\b", labels))
    assert dotted <= types | listed
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", labels)) <= types
    told = prose(PROTOCOL).partition("## Lifecycles")[2] + labels
    # A segment is a piece of text: it changes no state.
    assert {name for name in types if "." in name and name not in told} <= {"message.segment"}
    assert not {code.value for code in ToolErrorCode if code.value not in told}


def test_the_states_of_a_lifecycle_are_reached() -> None:
    for diagram in blocks(PROTOCOL, "mermaid"):
        known = {
            pair for line in diagram.splitlines() if (arrow := _ARROW.match(line)) for pair in [(arrow[1], arrow[2])]
        }
        inner = set(re.findall(r"state (\w+) \{", diagram))
        targets = {to for _, to in known}
        assert {start for start, _ in known} - {"[*]"} <= targets | inner
