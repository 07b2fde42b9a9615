"""The images that tests of containers run: our own, built here, and those of others.

Those of others are pulled where they can be. Elsewhere each is made from what the package indices have, under the very
name that users pull, so that the Dockerfile and compose.yaml are tested as they are: NATS from its wheel, the rest from
Debian 13. Only Grafana has no package; `missing` says so.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE = ROOT / "deploy/compose.yaml"
TARGETS = {"gateway": "antiphon-gateway", "worker": "antiphon-worker", "cli": "antiphon"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_LOCAL_BASE, _LOCAL_UV = "antiphon-local/python3-debian13", "antiphon-local/uv"
_MIRROR = "http://deb.debian.org/debian"
_PYTHON = "python3.13-minimal,libpython3.13-stdlib,libstdc++6,libgomp1,tzdata,base-files,netbase"
# As in the distroless image: users, and the certificates of this machine.
_SETTLE = """
set -e
ln -s python3.13 "$1/usr/bin/python3"
mkdir -p "$1/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
printf 'root:x:0:0:root:/root:/sbin/nologin\\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\\n' >"$1/etc/passwd"
printf 'root:x:0:\\nnonroot:x:65532:\\n' >"$1/etc/group"
"""
_OWN_DIRECTORY = 'mkdir -p "$1/prometheus" && chown 65534:65534 "$1/prometheus"'


def docker(*args: str, text: bytes | None = None) -> str:
    """Runs `docker …`; what it printed. Raises AssertionError with what it said if it fails."""
    done = subprocess.run(["docker", *args], input=text, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr.decode(errors='replace')[-4000:]}"
    return done.stdout.decode().strip()


def exists(image: str) -> bool:
    """Whether the engine has it, or could get it."""
    if _is_here(image):
        return True
    return subprocess.run(["docker", "pull", "--quiet", image], capture_output=True, check=False).returncode == 0


def _is_here(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Images:
    """What there is. `base` and `uv` are arguments of the Dockerfile; `absent` could neither be pulled nor made."""

    base: str
    uv: str
    nats: str
    absent: tuple[str, ...]

    def build(self, target: str, tag: str, *options: str) -> str:
        """Builds a target of the Dockerfile; returns the image's id."""
        certificates = ("--secret", f"id=ca,src={CERTIFICATES}") if CERTIFICATES.exists() else ()
        arguments = ("--build-arg", f"BASE={self.base}", "--build-arg", f"UV={self.uv}")
        where = ("--file", str(DOCKERFILE), "--target", target, "--tag", tag)
        return docker("buildx", "build", "--quiet", *where, *arguments, *certificates, *options, str(ROOT))

    def build_all(self, tag: str, *options: str) -> None:
        """Builds what compose.yaml runs."""
        for target, name in TARGETS.items():
            self.build(target, f"{name}:{tag}", *options)


def images() -> Images:
    """Everything that the tests need, pulled or made."""
    named = _named_in_compose()
    base, uv = (_argument(name) for name in ("BASE", "UV"))
    nats, grafana = named["NATS_IMAGE"], named["GRAFANA_IMAGE"]
    with ThreadPoolExecutor() as pool:
        there = dict(zip((*named.values(), base, uv), pool.map(exists, (*named.values(), base, uv)), strict=True))
        made = [
            pool.submit(make, name)
            for name, make in (
                (nats, _make_nats),
                (named["HAPROXY_IMAGE"], _make_haproxy),
                (named["PROMETHEUS_IMAGE"], _make_prometheus),
                (base, _make_base),
                (uv, _make_uv),
            )
            # What is made again has another identity, and everything that stands on it would be built again.
            if not there[name] and not _is_here({base: _LOCAL_BASE, uv: _LOCAL_UV}.get(name, name))
        ]
        for each in made:
            each.result()
    return Images(
        base if there[base] else _LOCAL_BASE,
        uv if there[uv] else _LOCAL_UV,
        nats,
        () if there[grafana] else (grafana,),
    )


def _named_in_compose() -> dict[str, str]:
    """The images that compose.yaml pulls, by the variable that overrides them."""
    return dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", COMPOSE.read_text(encoding="utf-8")))


def _argument(name: str) -> str:
    (found,) = re.findall(rf"^ARG {name}=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def _make_nats(name: str) -> None:
    _from_file(Path(sys.executable).parent / "nats-server", name, 'ENTRYPOINT ["/nats-server"]')


def _make_haproxy(name: str) -> None:
    _from_debian("base-files,haproxy", name)


def _make_prometheus(name: str) -> None:
    _from_debian("base-files,prometheus", name, 'ENTRYPOINT ["/usr/bin/prometheus"]', "USER 65534", hook=_OWN_DIRECTORY)


def _make_base(_: str) -> None:
    # An image cannot be given a digest, so it has a name of its own.
    _from_debian(_PYTHON, _LOCAL_BASE, hook=_SETTLE)


def _make_uv(_: str) -> None:
    _from_file(ROOT / ".uv/bin/uv", _LOCAL_UV)


def _from_file(binary: Path, name: str, *changes: str) -> None:
    """An image of one executable."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(binary.resolve(), arcname=binary.name)
    _import(archive.getvalue(), name, changes)


def _from_debian(packages: str, name: str, *changes: str, hook: str = "true") -> None:
    """An image of Debian 13's packages and what they depend on, unpacked and not configured, as distroless ones are."""
    assert shutil.which("mmdebstrap"), f"{name} cannot be pulled: to make it here, apt-get install mmdebstrap"
    command = ("mmdebstrap", "--quiet", "--variant=extract", "--format=tar", f"--include={packages}")
    done = subprocess.run(
        [*command, f"--extract-hook={hook}", "trixie", "-", _MIRROR], capture_output=True, check=False
    )
    assert done.returncode == 0, f"{name} cannot be made: {done.stderr.decode(errors='replace')[-2000:]}"
    _import(done.stdout, name, changes)


def _import(archive: bytes, name: str, changes: Sequence[str]) -> None:
    options = [word for change in changes for word in ("--change", change)]
    docker("import", *options, "-", name, text=archive)
