"""Flags that commands share. Each settings class gives a group of flags, and takes their values back."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from antiphon.place import DEFAULT_DIR
from antiphon.processes import BrokerSettings
from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings, from_environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Parsers = Any  # argparse's type for subparsers is private

_SERVICES = frozenset({"dev", "gateway", "worker", "webhooks", "callout"})
"""Commands that run on, and log what they do; the others speak only of what goes wrong."""


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


def command(
    commands: Parsers, name: str, summary: str, main_: Callable[[argparse.Namespace], Coroutine[Any, Any, int | None]]
) -> argparse.ArgumentParser:
    """A command of `antiphon`, without its flags."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(main=main_, log_level="info" if name in _SERVICES else "warning")
    return parser


def data_flag(parser: argparse.ArgumentParser) -> None:
    """`--data`."""
    parser.add_argument("--data", metavar="DIR", help=f"data directory (default {DEFAULT_DIR}, or ANTIPHON_DATA)")


def broker_settings(args: argparse.Namespace) -> BrokerSettings:
    """How to reach the log, from the flags. Raises ConfigError."""
    return BrokerSettings(
        settings(NatsSettings, args),
        settings(LogSettings, args),
        settings(TraceSettings, args),
        settings(AttachmentSettings, args),
    )


def flags_of(values: DataclassInstance) -> list[str]:
    """The flags by which another process gets the same settings."""
    return [f"--{field.name.replace('_', '-')}={getattr(values, field.name)}" for field in dataclasses.fields(values)]


def names(text: str) -> list[str]:
    """What a flag lists, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
