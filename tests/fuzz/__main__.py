"""`make fuzz`: each target for some seconds, led by coverage where Atheris is installed, else by chance alone.

What makes a target fail is kept in `.fuzz/failed`, and is shown. Put it into `tests/fuzz/found`, where `make test` replays it,
together with what mends it.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from random import Random, SystemRandom

from tests.fuzz.catalogue import ALL, drawn, tried
from tests.fuzz.seeds import seeds

HERE = Path(__file__).parents[2] / ".fuzz"
RSS_MB = 2_048
GRACE_S = 120
"""Seconds beyond its own in which a target must have ended."""
ONE_S = 30
"""Seconds that one input may take, on a machine that has other things to do; `catalogue.CPU_S` is what counts."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(ALL)}; all of them by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each target (4)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**31), help="of the chance")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(ALL)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    guided = importlib.util.find_spec("atheris") is not None
    print(
        f"seed {asked.seed}, {'led by coverage' if guided else 'by chance alone: Atheris is not installed'}", flush=True
    )
    failed = [
        name for name in asked.targets or ALL if not (_guided if guided else _blind)(name, asked.seconds, asked.seed)
    ]
    if failed:
        print(f"failed: {', '.join(failed)}; what makes them fail is in {HERE / 'failed'}", file=sys.stderr)
    return 1 if failed else 0


def _guided(name: str, seconds: float, seed: int) -> bool:
    corpus, failed = HERE / "corpus" / name, HERE / "failed" / name
    for directory in (corpus, failed):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-seed={seed}",
        f"-rss_limit_mb={RSS_MB}",
        f"-timeout={ONE_S}",
    ]
    options += ["-max_len=262144", f"-artifact_prefix={failed}/", "-print_final_stats=1", "-verbosity=0", str(corpus)]
    # Not of this process: libFuzzer ends the one that it is in.
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.guided", name, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        # Seen now and then, in a target that does next to nothing: libFuzzer waits for a lock that it holds itself.
        print(f"{name:12} Atheris has not ended after {seconds + GRACE_S:g} s; by chance alone instead", flush=True)
        return _blind(name, seconds, seed)
    told = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO: Instrumenting")]
    runs = next((line.split()[-1] for line in told if "number_of_executed_units" in line), "?")
    print(f"{name:12} {runs:>9} runs{'' if done.returncode == 0 else ', FAILED'}", flush=True)
    if done.returncode:
        print("\n".join(told)[-4_000:], flush=True)
    return done.returncode == 0


def _blind(name: str, seconds: float, seed: int) -> bool:
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        runs += 1
        data = drawn(name, Random(f"{seed}-{runs}"))
        try:
            tried(name, data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked for)
            place = HERE / "failed" / name / f"blind-{seed}-{runs}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            print(f"{name:12} FAILED: {type(error).__name__}: {error}"[:500], flush=True)
            return False
    print(f"{name:12} {runs:>9} runs", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
