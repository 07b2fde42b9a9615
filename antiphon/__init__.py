"""The command line: composition roots, and nothing else."""

import sys


def _import_structlog_alone() -> None:
    """Imports structlog without rich, which it would load wherever it happens to be installed.

    We never show tracebacks with it, and it costs each process 3 MB and a quarter of a second. Agents may still use it.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import structlog  # noqa: F401 (imported for the modules that follow)
    finally:
        del sys.modules["rich"]


_import_structlog_alone()
