"""How much each tenant may have, as the settings say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import ConfigError, InvalidName
from broker.subjects import check_tenant

_DEFAULT_TENANT = "-"
_NAMES = ("sessions", "bytes")


@dataclass(frozen=True, slots=True)
class Quota:
    """Sessions, and bytes of their records and attachments; 0: as many as they like."""

    sessions: int = 0
    bytes: int = 0

    @property
    def is_any(self) -> bool:
        return bool(self.sessions or self.bytes)


class Quotas:
    """Each tenant's; "": the default one."""

    def __init__(self, everybody: Quota, single: str) -> None:
        """`single`: `acme sessions=1000 bytes=10737418240`, separated by commas. What one does not say is as everybody's.

        Raises ConfigError.
        """
        self._everybody = everybody
        self._single = dict(_read(part.split(), everybody) for part in single.split(",") if part.strip())

    @property
    def is_any(self) -> bool:
        """Whether anybody has a limit."""
        return self._everybody.is_any or any(quota.is_any for quota in self._single.values())

    def of(self, tenant: str) -> Quota:
        return self._single.get(tenant, self._everybody)


def _read(words: list[str], everybody: Quota) -> tuple[str, Quota]:
    name, *limits = words
    found = {"sessions": everybody.sessions, "bytes": everybody.bytes}
    for word in limits:
        key, _, value = word.partition("=")
        if key not in _NAMES or not (value.isascii() and value.isdigit()):
            raise _wrong(f"{word[:40]!r} is no limit; write sessions=1000 or bytes=10737418240")
        found[key] = int(value)
    try:
        return "" if name == _DEFAULT_TENANT else check_tenant(name), Quota(**found)
    except InvalidName as error:
        raise _wrong(str(error)) from None


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"ANTIPHON_TENANT_LIMITS: {what}")
