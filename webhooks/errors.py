"""What may go wrong with webhooks, beyond what the log raises."""

from __future__ import annotations

from broker.errors import AntiphonError, ConfigError


class EndpointsInvalid(ConfigError):
    """The file of endpoints cannot be used; `endpoint` is which of them, `field` what of it, both empty for the file."""

    def __init__(self, message: str, *, endpoint: str = "", field: str = "") -> None:
        self.endpoint = endpoint
        self.field = field
        where = ": ".join(part for part in (f"endpoint {endpoint}" if endpoint else "", field) if part)
        super().__init__(f"{where}: {message}" if where else message)


class AddressRefused(AntiphonError, OSError):
    """An endpoint's name leads to an address where webhooks may not go (`webhooks.addresses`)."""


class TermOver(AntiphonError):
    """Another process may be sending by now: stop at once."""
