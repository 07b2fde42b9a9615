"""The command line, as people and scripts use it: real processes, exit codes, and one line for what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import nats
import psutil
import pytest
import pytest_asyncio

from antiphon.cli import main
from antiphon.place import make_token
from broker.config import NatsSettings
from broker.errors import NotPermitted
from broker.jetstream.connection import Connection
from broker.permissions import STANDARD, inbox_of
from tests.support.bare import bare, until_status
from tests.support.dev import COMMAND, END_WAIT_S, Dev, Ran, dev, environment, run
from tests.support.nats import NatsNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMANDS = (
    *("dev", "demo", "chat", "send", "tail", "gateway", "worker", "topology", "token", "doctor", "bench"),
    *("backup", "restore", "move", "nats-users"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """An `antiphon dev` for all tests that leave it as it is; each has sessions of its own."""
    async with dev(tmp_path_factory.mktemp("cli") / "data") as made:
        yield made


# --- help ----------------------------------------------------------------------------------------------------------------


async def test_help_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    listed = await run("--help")
    assert listed.code == 0
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        out = capsys.readouterr().out
        assert ended.value.code == 0
        assert f"usage: antiphon {command}" in out
        summary = out.split("\n\n")[1].strip()
        assert len(summary.split()) >= 1
        assert summary.endswith(".")
        assert re.search(rf"^ +{command}\s+{re.escape(summary[:30])}", listed.out, re.MULTILINE), command
        for flag in re.findall(r"^  (--[a-z-]+)", out, re.MULTILINE):
            # What it means stands beside it, or in the next line.
            assert re.search(rf"^  {flag}( \S+)?( {{2,}}|\n {{10,}})\S", out, re.MULTILINE), (command, flag)


@pytest.mark.parametrize("args", [[], ["fly"], ["send"], ["send", "demo"], ["topology", "mend"], ["tail", "--nothing"]])
async def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert "usage: antiphon" in capsys.readouterr().err


# --- beside a running dev --------------------------------------------------------------------------------------------------


async def test_what_dev_says(running: Dev) -> None:
    said = running.said
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", running.url)
    for user in ("user-1", "user-2"):
        link = next(line for line in said if line.startswith(f"{user}: "))
        assert f"{running.url}/#session=demo&token=ey" in link
    assert (running.data / "secret").stat().st_mode & 0o077 == 0, "the key is its owner's alone"
    assert running.data.stat().st_mode & 0o077 == 0


async def test_nobody_else_on_this_machine_writes_the_log(running: Dev) -> None:
    """Its NATS has a port that every user of the machine reaches."""
    url = json.loads((running.data / "running.json").read_text())["nats_url"]
    assert "@" not in url
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(b"CONNECT {}\r\nPUB s.00.talk.r.in 2\r\n{}\r\n")
    assert (await reader.readline()).startswith(b"INFO")
    assert await reader.read() == b"-ERR 'Authorization Violation'\r\n"
    writer.close()
    users = running.data / "nats-users"
    assert sorted(path.name for path in users.iterdir()) == sorted(STANDARD)
    for path in (users, *users.iterdir(), running.data / "nats" / "nats.conf"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert len({path.read_text() for path in users.iterdir()}) == len(STANDARD)
    # Not even the worker may say what participants say, nor anybody what the server repeats.
    for name, subject in (("worker", "s.00.talk.r.in"), ("provisioner", "live.00.talk.r.in")):
        async with Connection(_settings(url, users, name), name="test") as connection:
            with pytest.raises(NotPermitted):
                await connection.publish(subject, b"{}")


def _settings(url: str, users: Path, name: str) -> NatsSettings:
    who = {"nats_user": name, "nats_password_file": str(users / name), "nats_inbox": inbox_of(name)}
    return NatsSettings(nats_url=url, **who)  # type: ignore[arg-type]


async def test_send_with_a_file(running: Dev, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("some notes")
    sent = await running.run("send", "files", "look at this", "--attach", str(notes), "--wait")
    assert (sent.code, sent.out) == (0, "look at this\n"), sent.err
    shown = await running.run("tail", "files", "--from-start", "--until-idle")
    assert "attaches notes.txt: text/plain, 10 bytes, id " in shown.out
    missing = await running.run("send", "files", "x", "--attach", str(tmp_path / "none.txt"))
    assert (missing.code, missing.err.strip().endswith("none.txt: No such file or directory")) == (1, True)
    (tmp_path / "page.html").write_text("<html>")
    refused = await running.run("send", "files", "x", "--attach", str(tmp_path / "page.html"))
    assert refused.code == 1
    assert "media_type_refused" in refused.err


async def test_send_and_tail(running: Dev) -> None:
    answered = await running.run("send", "talk", "one\ntwo", "--wait")
    assert (answered.code, answered.out, answered.err) == (0, "one\ntwo\n", "")
    as_json = await running.run("send", "talk", "stream 3 tokens", "--wait", "--json")
    answer = json.loads(as_json.out)
    assert (as_json.code, answer["outcome"], answer["text"]) == (0, "success", "t0 t1 t2 ")
    failed = await running.run("send", "talk", "raise", "--wait", "--json")
    answer = json.loads(failed.out)
    assert (failed.code, answer["outcome"], answer["code"]) == (1, "error", "agent_error")

    told = await running.run("tail", "talk", "--until-idle")
    assert told.code == 0
    assert told.out.splitlines()[:4] == ["tester: one", "two", "echo: one", "two"]
    assert "(the run failed: the agent raised RuntimeError (agent_error))" in told.out
    lines = await running.run("tail", "talk", "--json", "--until-idle", "--from-start")
    assert lines.code == 0
    events = [json.loads(line) for line in lines.out.splitlines()]
    assert events[0]["op"] == "session.snapshot"
    assert events[-1]["op"] == "session.caught_up"
    entries = [event for event in events if event["op"] == "entry"]
    last = 0
    for entry in entries:
        assert entry["prev"] == last
        last = entry["seq"]
    kinds = [event["type"] for entry in entries for event in entry["events"]]
    assert kinds.count("input.sent") == 3
    assert {"session.owner", "RUN_STARTED", "TEXT_MESSAGE_CONTENT", "RUN_FINISHED", "RUN_ERROR"} <= set(kinds)


async def test_tail_waits_for_the_end(running: Dev) -> None:
    stored = await running.run("send", "busy", "stream 100 tokens at 100/s")
    assert stored.code == 0
    ids = re.fullmatch(r"stored as (\S+), starts run_(\S+)\n", stored.out)
    assert ids
    assert ids[1] == ids[2]
    told = await running.run("tail", "busy", "--until-idle")
    assert told.out.rstrip().endswith("t98 t99")


async def test_a_chat_without_a_terminal(running: Dev) -> None:
    told = await running.run("chat", "piped", "--user", "user-a", text="hello\n\nstream 3 tokens\n")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines() == ["user-a: hello", "echo: hello", "user-a: stream 3 tokens", "echo: t0 t1 t2 "]


async def test_the_data_directory_is_named_in_the_environment_or_is_here(running: Dev, tmp_path: Path) -> None:
    (tmp_path / ".antiphon").symlink_to(running.data)
    for env in ({"data": str(running.data)}, {}):
        made = await run("token", "user-1", cwd=tmp_path, **env)
        assert made.code == 0
        assert jwt.decode(made.out.strip(), secret(running), algorithms=["HS256"])["sub"] == "user-1"


def secret(running: Dev) -> str:
    return (running.data / "secret").read_text().strip()


async def test_elsewhere_with_url_and_token(running: Dev, tmp_path: Path) -> None:
    token = await running.run("token", "user-9", "--name", "A user", "--sessions", "a-*", "--rights", "read, send")
    claims = jwt.decode(token.out.strip(), secret(running), algorithms=["HS256"])
    assert (claims["sub"], claims["name"], claims["sessions"]) == ("user-9", "A user", {"a-*": ["read", "send"]})
    assert claims["exp"] > time.time() + 86_000
    away = {"cwd": tmp_path, "url": running.url, "token": token.out.strip()}
    sent = await run("send", "a-1", "hi", "--wait", **away)  # type: ignore[arg-type]
    assert (sent.code, sent.out) == (0, "hi\n")
    refused = await run("send", "b-1", "hi", **away)  # type: ignore[arg-type]
    assert "not_allowed" in refused.complaint


# --- what goes wrong -------------------------------------------------------------------------------------------------------


async def complaints(cases: list[tuple[tuple[str, ...], str]], cwd: Path, **env: str) -> None:
    """Runs commands that fail, two at a time; each says in one line what is in its case."""

    async def check(args: tuple[str, ...], said: str) -> None:
        async with turn:
            complaint = (await run(*args, cwd=cwd, **env)).complaint
            assert said in complaint, (args, complaint)

    turn = asyncio.Semaphore(2)
    async with asyncio.TaskGroup() as tasks:
        for args, said in cases:
            tasks.create_task(check(args, said))


async def test_without_a_dev_or_with_wrong_flags(running: Dev, tmp_path: Path) -> None:
    url, data = ("--url", running.url), ("--data", str(running.data))
    nowhere = "no `antiphon dev` runs with data directory .antiphon: start one, or give --url and --token"
    cases = [
        (("send", "demo", "hi"), nowhere),
        (("send", "demo", "hi", *url), "give --token, or set ANTIPHON_TOKEN"),
        (("send", "demo", "hi", *url, "--token", "nonsense"), "unauthorized"),
        (("send", "a b", "hi", *data), "bad_name"),
        (("send", "demo", "", *data), "empty"),
        (("token", "user-1"), "cannot read the secret .antiphon/secret: No such file or directory"),
        (("token", "user-1", "--rights", "read,fly", *data), "--rights: there is no right 'fly'"),
    ]
    await complaints(cases, tmp_path)


AGENTS = {
    "broken.py": "def agent(:\n",
    "raises.py": "raise RuntimeError('no key\\nfor the model')\n",
    "wrong.py": "agent = 42\n",
}


async def test_agents_that_cannot_be_had(tmp_path: Path) -> None:
    for name, text in AGENTS.items():
        (tmp_path / name).write_text(text)
    cases = [
        (("dev", "--agent", "nobody"), "'nobody' is neither built in (echo, local) nor of the form module:object"),
        (("worker", "raises:agent"), "importing raises failed: RuntimeError: no key"),
        (
            ("dev", "--agent", "missing:agent"),
            "importing missing failed: ModuleNotFoundError: No module named 'missing'",
        ),
        (("worker", "broken:agent"), "importing broken failed: SyntaxError"),
        (("worker", "wrong:other"), "the module wrong has no 'other'"),
        (("worker", "wrong:agent"), "neither an Agent nor an async function"),
    ]
    await complaints(cases, tmp_path)
    assert not (tmp_path / ".antiphon").exists(), "dev looks at the agent before it makes anything"


# --- doctor and topology -----------------------------------------------------------------------------------------------------


def findings(ran: Ran) -> dict[str, str]:
    """What `doctor` says of each thing, by its mark and first words."""
    assert "Traceback" not in ran.err
    return {line[5:]: line[:5].strip() for line in ran.out.splitlines()}


async def test_doctor_beside_a_running_dev(running: Dev) -> None:
    ran = await running.run("doctor")
    found = findings(ran)
    assert ran.code == 0, ran
    for part in ("Python 3", "nats-server: ", "disk: ", "NATS at nats://", "streams and consumers", "gateway at "):
        assert [mark for what, mark in found.items() if what.startswith(part)] == ["ok"], (part, found)


async def test_doctor_without_anything(tmp_path: Path) -> None:
    ran = await run("doctor", cwd=tmp_path)
    assert ran.code == 0
    assert "note" in findings(ran).values()
    assert "no `antiphon dev` runs with .antiphon: start it, or give --nats-url" in ran.out


async def test_doctor_finds_what_is_wrong(running: Dev, tmp_path: Path) -> None:
    away = await run("doctor", "--nats-url", "nats://127.0.0.1:1", "--connect-timeout-s", "0.3", cwd=tmp_path)
    assert away.code == 1
    assert re.search(r"^FAIL NATS at nats://127.0.0.1:1: .+is it running", away.out, re.MULTILINE)


async def test_topology(tmp_path: Path) -> None:
    """On a server of its own: nothing there, made, drifted, mended."""
    from tests.support.nats import single_server

    async with single_server(tmp_path / "nats") as node:
        env = {"nats_url": node.url, "partitions": "2"}
        missing = await run("topology", "check", **env)
        assert missing.code == 1
        assert {"stream S00 is missing", "stream WORK is missing"} <= set(missing.out.splitlines())
        assert "`antiphon topology apply` mends this" in missing.err
        unwell = await run("doctor", "--nats-url", node.url, cwd=tmp_path)
        assert unwell.code == 1
        assert "antiphon topology apply" in unwell.out

        made = await run("topology", "apply", **env)
        assert made.code == 0
        assert "the topology is as it must be" in made.out
        well = await run("topology", "check", **env)
        assert (well.code, well.out) == (0, "the topology is as it must be\n")
        other = await run("topology", "apply", **env | {"partitions": "3"})
        assert "this log has 2 partitions, fixed when it was made: set ANTIPHON_PARTITIONS=2" in other.complaint

        await drift(node)
        drifted = await run("topology", "check", **env)
        assert drifted.code == 1
        assert re.search(r"^stream S01: max_age is \d+, must be \d+$", drifted.out, re.MULTILINE)
        mended = await run("topology", "apply", **env)
        assert mended.code == 0
        assert re.search(r"^changed: stream S01: max_age", mended.out, re.MULTILINE)
        away = await run("topology", "check", nats_url="nats://127.0.0.1:1", connect_timeout_s="0.3")
        assert "NATS is away" in away.complaint


async def drift(node: NatsNode) -> None:
    client = await nats.connect(node.url)
    streams = client.jetstream()
    config = (await streams.stream_info("S01")).config
    await streams.update_stream(config.evolve(max_age=500))
    await client.close()


# --- the life of dev -------------------------------------------------------------------------------------------------------


async def gone(*processes: psutil.Process) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=END_WAIT_S)
    assert not alive


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(END_WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def stops(started: Dev, number: signal.Signals) -> None:
    children = started.children()
    assert set(children) == {"nats", "worker"}
    assert await started.end(number) == 0
    await gone(*children.values())
    assert not (started.data / "running.json").exists()


async def test_stopping_dev_stops_everything(tmp_path: Path) -> None:
    """Also in the middle of a run."""
    async with dev(tmp_path / "data") as started:
        sent = await started.run("send", "demo", "hang")
        assert sent.code == 0
        await stops(started, signal.SIGTERM)


async def test_a_dev_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    async with dev(tmp_path / "data") as killed:
        assert (await killed.run("send", "demo", "hang")).code == 0
        children = killed.children()
        assert await killed.end(signal.SIGKILL) == -signal.SIGKILL
        # The file that says where it was is still there, and nobody is misled by it.
        assert (killed.data / "running.json").exists()
        assert "no `antiphon dev` runs" in (await killed.run("tail", "demo")).complaint
        await gone(*children.values())


async def test_a_dev_that_is_killed_and_started_again_goes_on(tmp_path: Path) -> None:
    """At once, in the middle of a run; a second one on the same data is refused."""
    lease = ("--lease-s", "2")
    async with (
        dev(tmp_path / "data", *lease) as killed,
        bare(killed.url, make_token(secret(killed), "tester", None, {"*": ["admin"]})) as client,
    ):
        await client.ask("subscribe", session="demo")
        await client.ask("input.send", session="demo", inputId="a", content="stream 300 tokens at 100/s")
        while "TEXT_MESSAGE_CONTENT" not in str(await client.frame()):
            pass
        children = killed.children()
        await killed.end(signal.SIGKILL)
    async with dev(tmp_path / "data", *lease) as started:
        await gone(*children.values())
        second = await run("dev", "--data", str(started.data), "--port", "0")
        assert "is in use by another running server" in second.complaint
        told = await started.run("tail", "demo", "--until-idle")
        said, note, rest = told.out.splitlines()[1:]
        assert said.endswith("[worker_lost]")
        assert note == "(the worker was lost; another one goes on)"
        words = f"{said} {rest}".replace(" [worker_lost]", "").replace("echo: ", "")
        assert words.split() == [f"t{n}" for n in range(300)]
        await stops(started, signal.SIGINT)


async def test_dev_replaces_its_worker_and_ends_with_its_nats(tmp_path: Path) -> None:
    async with dev(tmp_path / "data") as started:
        await until(lambda: "worker" in started.children())
        first = started.children()["worker"]
        first.kill()
        await until(lambda: started.children().get("worker") not in (None, first))
        assert (await started.run("send", "demo", "still there", "--wait")).out == "still there\n"
        children = started.children()
        children["nats"].kill()
        async with asyncio.timeout(END_WAIT_S):
            assert await started.process.wait() == 1
        assert started.said[-1].startswith("antiphon: nats-server ended unexpectedly")
        await gone(*children.values())


async def test_a_port_that_is_taken(running: Dev, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    async with asyncio.timeout(END_WAIT_S):
        failed = await run("dev", "--data", str(tmp_path / "other"), "--port", port)
    assert failed.code == 1
    assert f"antiphon: cannot listen on 127.0.0.1:{port}: Address already in use" in failed.err
    await until_status(f"{running.url}/readyz", 200)


# --- in a terminal ---------------------------------------------------------------------------------------------------------


class Terminal:
    """The other side of a pseudo-terminal: what a person would type, and all that was drawn."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._drawn = bytearray()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    @property
    def text(self) -> str:
        """What was drawn, without the sequences that move and colour."""
        drawn = self._drawn.decode(errors="replace")
        return re.sub(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>]|\][^\a]*\a)", "", drawn)

    async def shows(self, pattern: str) -> None:
        """Waits until something that was drawn matches."""
        try:
            await until(lambda: re.search(pattern, self.text) is not None)
        except TimeoutError:
            raise AssertionError(f"{pattern!r} did not show: {self.text[-2000:]}") from None

    def read(self) -> None:
        # On Linux the end of the other side is an error.
        with contextlib.suppress(OSError):
            self._drawn += os.read(self._master, 65_536)


@contextlib.asynccontextmanager
async def in_a_terminal(*args: str) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    terminal, loop = Terminal(master), asyncio.get_running_loop()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *args,
        env=environment() | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    loop.add_reader(master, terminal.read)
    try:
        yield terminal, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(master)
        os.close(master)


async def test_a_chat_in_a_terminal(running: Dev) -> None:
    """Text streams above the prompt while one writes; others' messages appear; /stop stops; Ctrl-D leaves."""
    chat = ("chat", "terminal", "--user", "user-a", "--data", str(running.data))
    async with in_a_terminal(*chat) as (terminal, process):
        await terminal.shows(r"Session terminal\..*Enter sends")
        await terminal.shows(r"\n>")
        terminal.type("stream 5000 tokens at 50/s\r")
        await terminal.shows(r"user-a: stream 5000 tokens")
        await terminal.shows(r"t4\b")
        other = await running.run("send", "terminal", "and me", "--user", "user-b")
        assert other.code == 0
        await terminal.shows(r"waits: user-b: and me")
        assert "cancelled" not in terminal.text
        terminal.type("/stop\r")
        await terminal.shows(r"\(user-a stops the run\)")
        await terminal.shows(r"echo: t0 t1 t2 t3 .*\[cancelled\]")
        await terminal.shows(r"user-b: and me")
        await terminal.shows(r"echo: and me")
        terminal.type("/stop\r")
        await terminal.shows(r"\(nothing runs\)")
        terminal.type("\x04")
        async with asyncio.timeout(END_WAIT_S):
            assert await process.wait() == 0
    assert "Traceback" not in terminal.text


async def test_a_chat_steers_and_takes_over(running: Dev) -> None:
    chat = ("chat", "desk", "--user", "user-a", "--data", str(running.data))
    async with in_a_terminal(*chat) as (terminal, process):
        await terminal.shows(r"\n>")
        terminal.type("stream 5000 tokens at 50/s\r")
        await terminal.shows(r"t4\b")
        terminal.type("/now something else\r")
        await terminal.shows(r"echo: something else")
        terminal.type("/allow\r")
        await terminal.shows(r"\(nothing waits for that\)")
        terminal.type("/back\r")
        await terminal.shows(r"! not_owner|! .*lane")
        terminal.type("/take\r")
        await terminal.shows(r"\(user-a has taken over from the agent\)")
        sent = await running.run("send", "desk", "anybody there?", "--user", "user-b", "--wait")
        assert (sent.code, sent.err) == (0, "antiphon: a person has the session; the message is with them\n")
        await terminal.shows(r"user-b: anybody there\?")
        terminal.type("/who\r")
        await terminal.shows(r"\(user-a \(active\)")
        terminal.type("/back over to you\r")
        await terminal.shows(r"\(user-a gives back to the agent\)")
        await terminal.shows(r"echo: over to you")
        terminal.type("/quit\r")
        async with asyncio.timeout(END_WAIT_S):
            assert await process.wait() == 0


# --- sessions ----------------------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_written_out_and_restored(running: Dev, tmp_path: Path) -> None:
    assert (await running.run("send", "kept", "hello", "--user", "keeper", "--wait")).out == "hello\n"
    listed = await running.run("sessions", "--user", "keeper")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d  (idle|running) +kept\n", listed.out)
    assert json.loads((await running.run("sessions", "--user", "keeper", "--json")).out)["session"] == "kept"
    assert (await running.run("handoffs")).out == "no hand-over waits for your roles\n"
    file = str(tmp_path / "kept.jsonl")
    assert (await running.run("export", "kept", "-o", file)).code == 0
    restored = await running.run("import", "copy", file)
    assert re.fullmatch(r"\d+ entries restored into copy\n", restored.out)
    original = (await running.run("tail", "kept", "--until-idle")).out
    assert (await running.run("tail", "copy", "--until-idle")).out == original == "keeper: hello\necho: hello\n"
    assert "is not empty" in (await running.run("import", "copy", file)).complaint
    assert "empty" in (await running.run("export", "nothing-here")).complaint
    assert "cannot open" in (await running.run("import", "other", "/nowhere/x")).complaint
    assert "line 1" in (await running.run("import", "other", "/dev/null")).complaint


async def test_a_request_is_followed(running: Dev) -> None:
    sent = json.loads((await running.run("send", "followed", "hello", "--wait", "--json")).out)
    told = json.loads((await running.run("trace", sent["runId"], "--json")).out)
    assert (told["session"], told["ended"]) == ("followed", True)
    whats = [moment["what"] for moment in told["moments"]]
    assert whats == [
        "input stored",
        "lane claimed",
        "run started",
        "input applied",
        "first token",
        "last token",
        "text ended",
        "run ended",
    ]
    (trace_id,) = told["traces"]
    lines = (await running.run("trace", trace_id, "--session", "followed")).out.splitlines()
    assert lines[0] == f"{trace_id} in followed, ended; trace {trace_id}"
    assert [line.split("  ")[-1] for line in lines[-1:]] == ["end success"]
    assert len(lines) == 1 + len(whats)
    assert "--session" in (await running.run("trace", "f" * 32)).complaint
    assert "no request" in (await running.run("trace", "nothing", "--session", "followed")).complaint
