"""Images, made once, and compose.yaml, started once, for all tests of containers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.containers.images import Images, images
from tests.containers.project import Project

TAG, NEXT_TAG = "test", "test-next"
FIGURE = "figure"


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Docker, or a failure that says what to do."""
    hint = "run `make containers`, which starts one where it may, or start Docker"
    assert shutil.which("docker"), f"docker is missing: {hint}"
    done = subprocess.run(["docker", "info"], capture_output=True, check=False)
    assert done.returncode == 0, f"no Docker engine answers: {hint}"


@pytest.fixture(scope="session")
def made(docker_engine: None) -> Images:
    """All images, ours as `…:test`, and once more as the release that comes after it."""
    found = images()
    found.build_all(TAG)
    found.build_all(NEXT_TAG, "--build-arg", "REVISION=next")
    return found


@pytest.fixture(scope="session")
def project(made: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """compose.yaml, up."""
    without = tuple(image.rpartition("/")[2].partition(":")[0] for image in made.absent)
    running = Project(tmp_path_factory.mktemp("compose") / "deploy", TAG, without)
    try:
        running.up()
        yield running
    finally:
        running.down()


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes what a test has seen, for the end of the run's report."""
    return lambda text: record_property(FIGURE, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each figure."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == FIGURE:
                terminalreporter.write_line(f"{report.location[2]}: {text}")
