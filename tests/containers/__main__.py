"""Tests of containers: `python -m tests.containers [pytest's arguments]`, with Docker at hand (`tools/docker`).

First our images and compose.yaml, then a part of the integration tests once more, on NATS and our processes in
containers: all of what is about clusters, what kills servers, two gateways that must agree, and one trace through all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.containers.conftest import TAG
from tests.containers.images import images
from tests.support import containers

INTEGRATION = (
    "tests/integration/test_log.py::test_a_stale_fence_is_refused_in_a_cluster",
    "tests/integration/test_log.py::test_of_many_claimants_one_wins_in_a_cluster",
    "tests/integration/test_log.py::test_following_goes_on_through_new_leaders",
    "tests/integration/test_log.py::test_a_server_that_holds_still_is_waited_for",
    "tests/integration/test_dispatch.py::test_done_frees_the_lane_in_a_cluster",
    "tests/integration/test_dispatch.py::test_offers_at_once_make_one_job_in_a_cluster",
    "tests/integration/test_dispatch.py::test_a_worker_that_leaves_takes_no_job_with_it_in_a_cluster",
    "tests/integration/test_dispatch.py::test_taking_goes_on_after_an_outage",
    "tests/integration/test_topology.py::test_a_cluster_keeps_three_copies",
    "tests/integration/test_two_gateways.py",
    "tests/integration/test_outages.py::test_nats_is_killed_in_the_middle_of_a_run",
    "tests/behaviours/test_b30_one_trace.py::test_one_trace_to_the_last_token",
)
STARTING_S = 240
"""What compose.yaml may take to be up, on a busy machine."""

# Whoever forwards a container's port accepts connections while the server behind it is down. nats-py leaves those to
# the garbage collector, which warns.
_QUIET = ("-W", "ignore::pytest.PytestUnraisableExceptionWarning")


def main(arguments: Sequence[str]) -> int:
    """Runs both parts, the second one also if the first has failed. Returns the exit code."""
    found = images()
    found.build_all(TAG)
    codes = [_pytest([f"--timeout={STARTING_S}", "tests/containers", *arguments])]
    if not arguments:
        inside = {containers.IN: "containers", containers.NATS: found.nats, containers.TAG: TAG}
        codes.append(_pytest([*_QUIET, "-n", "2", *INTEGRATION], **inside))
    return 1 if any(codes) else 0


def _pytest(arguments: list[str], **env: str) -> int:
    command = [sys.executable, "-m", "pytest", "--durations=8", *arguments]
    return subprocess.run(command, env=os.environ | env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
