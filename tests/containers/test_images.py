"""Our images: what is in them, what is not, and that they are the same whenever they are built."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.containers.conftest import TAG
from tests.containers.images import ROOT, TARGETS, Images, docker

CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
_INSTALLED = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}))
"""
_AGENT = """
from agent_worker.context import Agent, SessionContext

async def greet(ctx: SessionContext) -> None:
    await ctx.text("hello")

agent = Agent("greeter", greet)
"""
# What the engine itself puts into each container, and directories that it makes while it builds one.
_OF_THE_ENGINE = (
    "dev/",
    "proc/",
    "sys/",
    ".dockerenv/",
    "etc/hostname/",
    "etc/hosts/",
    "etc/mtab/",
    "etc/resolv.conf/",
)
_MADE_BY_THE_ENGINE = ("app", "etc")

targets = pytest.mark.parametrize("target", TARGETS)


def python(image: str, code: str) -> Any:
    """What Python code prints as JSON, confined, in an image."""
    return json.loads(docker("run", "--rm", *CONFINED, "--entrypoint", "/app/bin/python", image, "-c", code))


@targets
def test_it_runs_confined_and_as_nobody(made: Images, target: str) -> None:
    image = f"{TARGETS[target]}:{TAG}"
    assert "usage: antiphon" in docker("run", "--rm", *CONFINED, image, "--help")
    assert python(image, "import os; print([os.getuid(), os.getgid()])") == [65532, 65532]


@targets
def test_what_it_says_of_itself(made: Images, target: str) -> None:
    (found,) = json.loads(docker("inspect", f"{TARGETS[target]}:{TAG}"))
    config = found["Config"]
    assert config["User"] == "65532:65532"
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels["title"] == TARGETS[target]
    assert labels["licenses"] == "Apache-2.0"
    assert labels.keys() >= {"description", "version", "revision"}
    if target != "cli":
        assert config["Healthcheck"]["Test"] == ["CMD", "/app/bin/python", "-m", "antiphon.healthcheck", target]
        assert config["StopSignal"] == "SIGTERM"


@targets
def test_there_is_no_shell_and_no_way_to_install(made: Images, target: str) -> None:
    files = tree(f"{TARGETS[target]}:{TAG}")
    programs = {Path(name).name for name in files if "bin/" in name}
    assert "python3" in programs
    assert not programs & {"sh", "bash", "dash", "busybox", "apt-get", "dpkg", "pip", "pip3", "uv", "curl", "wget"}
    page = {Path(name).suffix for name in files if "site-packages/gateway/web/" in name}
    assert page >= {".html", ".js", ".css"}
    writable = [name for name, (mode, _) in files.items() if name.startswith("app/") and mode & 0o022]
    assert not writable


def test_the_bill_of_materials_is_what_is_installed(made: Images, tmp_path: Path) -> None:
    """Each package with its version, and the one in the image is the one that the build gives out."""
    made.build("sbom", "antiphon-sbom", "--output", str(tmp_path))
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    image = f"{TARGETS['gateway']}:{TAG}"
    assert python(image, "print(open('/app/sbom.cdx.json').read())") == bill
    assert bill["bomFormat"] == "CycloneDX"
    own = bill["metadata"]["component"]
    named = {each["name"]: each["version"] for each in (*bill["components"], own)}
    installed = python(image, _INSTALLED)
    assert installed.keys() >= {"antiphon", "antiphon-client", "aiohttp", "nats-py"}
    assert installed.items() <= named.items()


def test_every_package_is_checked_against_a_hash(made: Images) -> None:
    """Each wheel that the lock names has its hash, and a base that is not overridden has its digest."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    for line in dockerfile.splitlines():
        if line.startswith(("ARG BASE=", "ARG UV=")):
            assert "@sha256:" in line, line
        if line.startswith("FROM "):
            assert line.split()[1] in ("${BASE}", "${UV}", "scratch") or line.split()[1].islower(), line
    export = subprocess.run(
        [ROOT / ".uv/bin/uv", "export", "--frozen", "--no-dev", "--no-emit-workspace", "--group", "build", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    entries = export.replace("\\\n", "").splitlines()
    packages = [line for line in entries if line and not line.lstrip().startswith("#")]
    assert len(packages) > 20
    assert all("--hash=sha256:" in line for line in packages)


def test_the_same_source_gives_the_same_files(made: Images, figure: Callable[[str], None]) -> None:
    """Built a second time from nothing: every file, its mode and its time are the same."""
    image = f"{TARGETS['gateway']}:{TAG}"
    made.build("gateway", "antiphon-gateway:again", "--no-cache")
    first, second = tree(image), tree("antiphon-gateway:again")
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == set()
    digest = hashlib.sha256(json.dumps(sorted(first.items())).encode()).hexdigest()
    figure(f"{len(first)} files, the same twice; digest of the tree {digest}")


def test_a_process_that_does_not_answer_is_unhealthy(made: Images) -> None:
    """The health check fails where nobody listens, and says why."""
    check = ("--entrypoint", "/app/bin/python", f"{TARGETS['gateway']}:{TAG}", "-m", "antiphon.healthcheck", "gateway")
    done = subprocess.run(["docker", "run", "--rm", *CONFINED, *check], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"Connection refused" in done.stdout


def test_a_gateway_without_a_key_does_not_start(made: Images) -> None:
    """There is no default that could be left in place."""
    done = subprocess.run(
        ["docker", "run", "--rm", *CONFINED, f"{TARGETS['gateway']}:{TAG}"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"no keys to check tokens with" in done.stderr


def test_an_image_with_agents_of_an_author(made: Images, tmp_path: Path) -> None:
    """As docs/DEPLOYMENT.md says."""
    page = (ROOT / "docs/DEPLOYMENT.md").read_text(encoding="utf-8")
    example = re.findall(r"^```dockerfile\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "Dockerfile").write_text(example.replace("FROM antiphon-worker\n", f"FROM antiphon-worker:{TAG}\n"))
    (tmp_path / "agents.py").write_text(_AGENT)
    docker("buildx", "build", "--quiet", "--tag", "antiphon-worker:authored", str(tmp_path))
    (found,) = json.loads(docker("inspect", "antiphon-worker:authored"))
    (name,) = found["Config"]["Cmd"]
    loaded = f"from agent_worker.loading import load_agent; import json; print(json.dumps(load_agent({name!r}).name))"
    assert python("antiphon-worker:authored", loaded) == "greeter"


def tree(image: str) -> dict[str, tuple[int, str]]:
    """Mode, and a hash of time, owner and content, of every file of an image."""
    container = docker("create", image)
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        docker("rm", container)
    found: dict[str, tuple[int, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        for member in tar:
            if f"{member.name}/".startswith(_OF_THE_ENGINE):
                continue
            file = tar.extractfile(member) if member.isfile() else None
            content = file.read() if file is not None else member.linkname.encode()
            time_s = "" if member.name in _MADE_BY_THE_ENGINE else str(int(member.mtime))
            about = f"{member.type!r} {member.uid} {member.gid} {time_s} ".encode()
            mode = 0 if member.issym() else member.mode
            found[member.name] = mode, hashlib.sha256(about + content).hexdigest()
    return found
