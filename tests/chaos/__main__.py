"""`python -m tests.chaos`: rounds of faults under load, a line for each and a sum; see docs/CHAOS.md.

The exit code is 0 if nothing was found, 1 if something was, 2 for arguments that are none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.chaos import history
from tests.chaos.checker import check
from tests.chaos.disk import missing_for_disks, unmount_left_over
from tests.chaos.nemesis import Fault, kinds_here, schedule
from tests.chaos.network import missing_for_namespaces
from tests.chaos.rounds import Outcome, Round
from tests.chaos.world import running

DEFAULT_ROUNDS = 8
KEPT = Path(".chaos")
SHOWN = 20
"""Violations of a round that are printed; its histories hold them all."""


def main(argv: Sequence[str]) -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load, and a checker.")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run: the same schedule of faults")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="how many rounds")
    parser.add_argument("--from", type=int, default=1, dest="first", help="begin with that round of the schedule")
    parser.add_argument("--only", help="kinds of faults, separated by commas; all without it")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--keep", action="store_true", help="keep the histories also of rounds in which all was well")
    parser.add_argument("--check", type=Path, nargs="+", help="only check histories of an earlier run")
    args = parser.parse_args(argv)
    if args.check:
        return _check_again(args.check)
    if args.rounds < 1 or args.first < 1:
        parser.error("rounds are counted from 1")
    kinds = _kinds()
    if args.only is not None:
        wanted = [kind.strip() for kind in args.only.split(",")]
        if unknown := [kind for kind in wanted if kind not in kinds]:
            parser.error(f"no fault here is called {', '.join(unknown)}; there are: {', '.join(kinds)}")
        kinds = wanted
    seed = args.seed if args.seed is not None else secrets.randbelow(2**32)
    directory = KEPT / f"seed-{seed}-{time.strftime('%H%M%S')}"
    directory.mkdir(parents=True)
    (directory / "pid").write_text(str(os.getpid()))
    try:
        outcomes, error = asyncio.run(_rounds(args, seed, kinds, directory))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("told to end", file=sys.stderr)
        return 1
    return _sum_up(outcomes, error, seed, directory, keep=args.keep)


def _kinds() -> list[str]:
    """The kinds of faults that can be made here; says what is left out, and why."""
    no_cuts, no_disks = missing_for_namespaces(), missing_for_disks()
    if no_cuts:
        print(f"no partitions and no isolation here, only proxies: this needs {no_cuts}")
    if no_disks:
        print(f"no slow and no full disks here: this needs {no_disks}")
    return kinds_here(cuts=not no_cuts, disks=not no_disks)


async def _rounds(
    args: argparse.Namespace, seed: int, kinds: list[str], directory: Path
) -> tuple[list[Outcome], BaseException | None]:
    print(f"seed {seed}, {args.rounds} rounds, {len(kinds)} kinds of faults", flush=True)
    faults = list(itertools.islice(schedule(seed, kinds), args.first - 1 + args.rounds))
    _write_schedule(directory, faults)
    await unmount_left_over(KEPT)
    outcomes: list[Outcome] = []
    end = time.monotonic() + args.minutes * 60
    try:
        async with _ending_in_order(), running(directory, seed) as world:
            for number, fault in enumerate(faults[args.first - 1 :], args.first):
                if time.monotonic() > end:
                    break
                outcome = await Round(world, number, fault, seed, directory).play()
                print(outcome, flush=True)
                for violation in outcome.violations[:SHOWN]:
                    print(f"    {violation}", flush=True)
                outcomes.append(outcome)
                if outcome.violations:
                    # What comes after it would be about a world that is not as it should be.
                    break
                if not args.keep:
                    _forget(directory, number)
    except (TimeoutError, AssertionError, OSError, ExceptionGroup) as error:
        return outcomes, error
    return outcomes, None


@contextlib.asynccontextmanager
async def _ending_in_order() -> AsyncIterator[None]:
    """SIGTERM ends the run as Ctrl-C does: with nothing left of the world."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _forget(directory: Path, number: int) -> None:
    for path in directory.glob(f"r{number}-*.jsonl"):
        path.unlink()


def _write_schedule(directory: Path, faults: list[Fault]) -> None:
    lines = [f"{number} {fault}\n" for number, fault in enumerate(faults, 1)]
    (directory / "schedule.txt").write_text("".join(lines))


def _sum_up(outcomes: list[Outcome], error: BaseException | None, seed: int, directory: Path, *, keep: bool) -> int:
    groups = Counter(violation.kind.group for outcome in outcomes for violation in outcome.violations)
    kinds = Counter(outcome.fault.kind for outcome in outcomes)
    print(f"\nseed {seed}: {len(outcomes)} rounds: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}")
    fenced = sum(path.read_text().count('"another owner has the lane"') for path in directory.glob("w*.log"))
    print(
        f"{sum(o.inputs for o in outcomes)} inputs acknowledged, {sum(o.entries for o in outcomes)} entries, "
        f"seen {sum(o.seen for o in outcomes)} times: {groups['lost']} lost, {groups['duplicated']} duplicated, "
        f"{groups['fence']} fence violations, {groups['other']} other; {fenced} former owners were refused by the log"
    )
    failed = [outcome.number for outcome in outcomes if outcome.violations]
    if error is not None:
        print("ended early:", file=sys.stderr)
        traceback.print_exception(error)
    if failed or error is not None:
        upto = failed[0] if failed else outcomes[-1].number + 1 if outcomes else 1
        print(f"kept in {directory}; again: make chaos SEED={seed} ROUNDS={upto}", file=sys.stderr)
        return 1
    if not keep:
        shutil.rmtree(directory)
    return 0


def _check_again(paths: Sequence[Path]) -> int:
    found = 0
    for path in paths:
        for violation in check(history.read(path)):
            found += 1
            print(f"{path}: {violation}")
    print(f"{len(paths)} histories, {found} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
