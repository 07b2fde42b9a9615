"""Shows behaviours: `python -m tests.behaviours [B01 B19 …]`, all without arguments.

Prints one line for each with its figure, as they end. Most of them wait more than they work, so a few run at once;
those whose figures are times, or that take all cores, then run alone. The exit code is 0 if all were seen, 1 if one was
not, 2 if a number names no test. What pytest said is printed for those that failed, and their lines once more at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.behaviours.report import ALONE, Outcome, behaviours, number_of, read_outcome

_HERE = Path(__file__).parent
_AT_ONCE = 3


def main(numbers: Sequence[str]) -> int:
    """Runs the behaviours, each in a pytest of its own."""
    known = behaviours(_HERE)
    wanted = [number.upper() for number in numbers] or list(known)
    unknown = [number for number in wanted if number not in known]
    if unknown or not wanted:
        print(f"no test shows {', '.join(unknown) or 'anything'}; there are: {' '.join(known)}", file=sys.stderr)
        return 2
    together = [known[number] for number in wanted if number not in ALONE]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        failed = list(pool.map(_show, together))
    failed += [_show(known[number]) for number in wanted if number in ALONE]
    not_seen = [line for line in failed if line]
    print(*not_seen, sep="\n", end="\n" if not_seen else "", file=sys.stderr, flush=True)
    return 1 if not_seen else 0


def _show(path: Path) -> str:
    """Runs the tests of one behaviour and prints what came of it; returns the line if it failed, else nothing."""
    begin = time.monotonic()
    outcome, said = _run(path)
    line = outcome.line(number_of(path), time.monotonic() - begin)
    print(line, flush=True)
    if outcome.ok:
        return ""
    print(said, file=sys.stderr, flush=True)
    return line


def _run(path: Path) -> tuple[Outcome, str]:
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory) / "junit.xml"
        command = [sys.executable, "-m", "pytest", str(path), f"--junitxml={junit}", "-o", "junit_family=xunit1"]
        done = subprocess.run(
            command,
            cwd=_HERE.parent.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        outcome = read_outcome(junit)
    if done.returncode != 0 and outcome.ok:
        # Something outside of a test went wrong, at the end of pytest.
        outcome = Outcome(outcome.tests, (f"pytest ended with exit code {done.returncode}",), outcome.figures)
    return outcome, done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
