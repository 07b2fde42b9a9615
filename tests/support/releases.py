"""The code of earlier days, from this repository's history, for processes of an older version beside today's."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

FIRST_PLANE: Final = "35ff84e"
"""Checkpoints of version 2; no input that replaces another. The session plane is there, with presence and the index."""
BEFORE_PLANE: Final = "caa2fde"
"""Checkpoints of version 1; a fold, gateways and workers that know nothing of steering, tools, approvals, hand-over,
sessions' configs, presence or the index.
"""

BEFORE_QUEUES: Final = "01453bf"
"""One queue for each pool; claims that do not name their jobs."""


def in_history(commit: str) -> bool:
    """Whether this clone has a commit: one without history has not."""
    there = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{tree}}"], cwd=ROOT, capture_output=True, check=False)
    return there.returncode == 0


def checked_out(commit: str, directory: Path) -> Path:
    """The tree of a commit, in a directory of its own. Skips the test where there is no history to take it from."""
    if not in_history(commit):
        pytest.skip(f"needs the repository's history, with commit {commit}: `git fetch --unshallow`")
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    tree = directory / commit
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tree, filter="data")
    return tree
