"""Settings as flags: each settings class gives a group of flags, and takes their values back."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TypeVar

from broker.config import from_environment

T = TypeVar("T")


def add_settings(
    parser: argparse.ArgumentParser, cls: type, *, title: str, without: frozenset[str] = frozenset()
) -> None:
    """A flag for each setting of the class, `--its-name`; what it means and its default are in the help."""
    group = parser.add_argument_group(title, "also as ANTIPHON_… in the environment; see docs/SETTINGS.md")
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        default = field.default if field.default != "" else "none"
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            metavar="X",
            help=f"{field.metadata['meaning']} (default {default})".replace("%", "%%"),
        )


def settings(cls: type[T], args: argparse.Namespace, **fixed: object) -> T:
    """The settings of a class from flags, environment and file; `fixed` ones win. Raises ConfigError."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    flags = {name: value for name, value in vars(args).items() if name in names}
    return from_environment(cls, **(flags | fixed))
