"""Settings of the process that sends webhooks. Endpoints are in a file of their own (`webhooks.endpoints`)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from broker.config import setting
from broker.errors import ConfigError
from webhooks.addresses import Network


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What `antiphon webhooks` may be told. Limits of endpoints are those that an endpoint does not set itself."""

    webhook_file: str = setting("", "TOML or JSON file of the endpoints that are told; empty: none")
    webhook_port: int = setting(0, "port for /metrics and /healthz; 0: none", minimum=0, maximum=65535)
    webhook_networks: str = setting(
        "",
        "networks beyond the public ones in which endpoints may be, also with http://, separated by commas: `10.0.0.0/8`",
    )
    webhook_reload_s: float = setting(
        5.0, "seconds between looks at the file of endpoints, which SIGHUP has read at once", minimum=0.05
    )
    webhook_lease_s: float = setting(
        10.0, "seconds after which another process takes over from one that is silent", minimum=2
    )
    webhook_stale_s: float = setting(
        300.0,
        "seconds by which an entry may have been stored after it was written; an older one is a copy of the past, and "
        "is not told",
        minimum=1,
    )
    webhook_sessions: int = setting(10_000, "sessions whose state is kept in memory", minimum=1)
    webhook_backlog: int = setting(1_000, "events of an endpoint that are in memory; the rest is in NATS", minimum=1)
    webhook_in_flight: int = setting(8, "requests to an endpoint at once, one for each session", minimum=1)
    webhook_timeout_s: float = setting(10.0, "seconds that an endpoint has to answer", minimum=0.1)
    webhook_retry_min_s: float = setting(
        1.0, "seconds, at most, before an event is sent again; twice as many after each failure", minimum=0.01
    )
    webhook_retry_max_s: float = setting(600.0, "seconds before an event is sent again, at most", minimum=0.01)
    webhook_tries: int = setting(300, "times that an event is sent until it is given up", minimum=1)
    webhook_age_s: float = setting(86_400.0, "seconds after which an event that was not taken is given up", minimum=1)
    webhook_keep_s: float = setting(
        1_209_600.0, "seconds that NATS keeps an event that waits or was given up", minimum=60
    )
    webhook_text_chars: int = setting(
        500, "characters of text that are sent to an endpoint that wants text", minimum=1, maximum=20_000
    )

    def __post_init__(self) -> None:
        if self.webhook_retry_max_s < self.webhook_retry_min_s:
            raise ConfigError("ANTIPHON_WEBHOOK_RETRY_MAX_S must be at least ANTIPHON_WEBHOOK_RETRY_MIN_S")
        if self.webhook_keep_s < self.webhook_age_s:
            raise ConfigError("ANTIPHON_WEBHOOK_KEEP_S must be at least ANTIPHON_WEBHOOK_AGE_S")
        _ = self.networks

    @property
    def networks(self) -> tuple[Network, ...]:
        """Raises ConfigError."""
        try:
            texts = [text.strip() for text in self.webhook_networks.split(",") if text.strip()]
            return tuple(ipaddress.ip_network(text) for text in texts)
        except ValueError as error:
            raise ConfigError(f"ANTIPHON_WEBHOOK_NETWORKS: {error}") from None
