"""The last step of an image's build: makes what is installed the same, byte for byte, whenever it is built.

`settle.py DIRECTORY`, with `SOURCE_DATE_EPOCH` in the environment: the bill of materials gets that time, and a number
that follows from its content; modules are compiled once, to byte code that is not compared with its source again (the
image cannot be written to); and every file gets that time.
"""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

SBOM = "sbom.cdx.json"
# What uv leaves for itself (when and from where it has installed), and for shells, of which there is none.
LEFT_BEHIND = ("uv_cache.json", "direct_url.json", ".lock", ".gitignore", "CACHEDIR.TAG", "activate*", "deactivate*")


def main(directory: Path, epoch_s: int) -> None:
    for pattern in LEFT_BEHIND:
        for path in [*directory.rglob(pattern)]:
            path.unlink()
    for record in directory.rglob("*.dist-info/RECORD"):
        forget(record)
    name_by_content(directory / SBOM, epoch_s)
    # A test module of some package may be no valid Python: what can be compiled is.
    compileall.compile_dir(
        directory, quiet=2, workers=1, force=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def forget(record: Path) -> None:
    """Takes files that are gone off a package's list."""
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if Path(line.split(",")[0]).name not in LEFT_BEHIND]
    record.write_text("".join(kept), encoding="utf-8")


def name_by_content(path: Path, epoch_s: int) -> None:
    """Replaces the time and the random number of a CycloneDX document."""
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["serialNumber"], document["metadata"]["timestamp"]
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    document["metadata"]["timestamp"] = datetime.fromtimestamp(epoch_s, UTC).isoformat()
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["SOURCE_DATE_EPOCH"]))
