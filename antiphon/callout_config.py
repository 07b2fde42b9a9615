"""Settings of `antiphon callout`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.config import setting
from broker.errors import ConfigError, InvalidName
from broker.subjects import check_tenant

_OF_NO_ACCOUNT = "$G"
"""The account of NATS that there is without any."""


@dataclass(frozen=True, slots=True)
class CalloutSettings:
    """What `antiphon callout` may be told. The keys that tokens are checked with are as for a gateway."""

    callout_issuer_file: str = setting("", "file with the seed of the account's NKey that answers are signed with")
    callout_system_file: str = setting(
        "", "file with the seed of the NKey of its user in the system account, by which connections are ended"
    )
    callout_accounts: str = setting(
        "",
        "accounts of NATS that workers come into: one for all, or `TENANT=ACCOUNT` with commas between, `-`: the default "
        "tenant; empty: the one that there is without any",
    )
    callout_session_s: float = setting(
        3600.0, "seconds after which a worker must come in anew, if its token has not expired before", minimum=1
    )
    callout_at_once: int = setting(64, "tokens that are checked at once; more are turned away", minimum=1)
    callout_timeout_s: float = setting(
        1.5, "seconds that checking a token may take; less than `timeout` in the servers' `authorization`", minimum=0.1
    )
    callout_sweep_s: float = setting(
        30.0, "seconds between looks at who is connected, beside those when something is revoked", minimum=1
    )
    callout_port: int = setting(0, "port for /metrics and /healthz; 0: none", minimum=0, maximum=65535)

    def __post_init__(self) -> None:
        _accounts(self.callout_accounts)

    def check(self) -> None:
        """Raises ConfigError if something is missing that the process needs."""
        for name, value in (("ISSUER", self.callout_issuer_file), ("SYSTEM", self.callout_system_file)):
            if not value:
                raise ConfigError(f"ANTIPHON_CALLOUT_{name}_FILE: name the file that `nats-users --callout` has made")

    def account_of(self, tenant: str) -> str | None:
        """The account for a tenant's workers; None: it is served nowhere here."""
        accounts = _accounts(self.callout_accounts)
        return accounts if isinstance(accounts, str) else accounts.get(tenant)


def _accounts(text: str) -> str | Mapping[str, str]:
    """One account for all, or accounts by tenant. Raises ConfigError."""
    if "=" not in text:
        return text.strip() or _OF_NO_ACCOUNT
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        tenant, _, account = part.partition("=")
        try:
            found["" if tenant == "-" else check_tenant(tenant)] = account.strip()
        except InvalidName as error:
            raise ConfigError(f"ANTIPHON_CALLOUT_ACCOUNTS: {error}") from None
    if not all(found.values()):
        raise ConfigError("ANTIPHON_CALLOUT_ACCOUNTS: must be an account, or TENANT=ACCOUNT with commas between")
    return found
