"""The command line: composition roots, and nothing else."""

from broker.importing import absent

# structlog would load rich wherever it happens to be installed. We never show tracebacks with it, and it costs each
# process 7 MB and a quarter of a second. Agents may still use it.
with absent("rich"):
    import structlog  # noqa: F401 (imported for the modules that follow)
