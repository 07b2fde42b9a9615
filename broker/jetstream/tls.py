"""How the servers of NATS and this process prove to each other who they are, with certificates."""

from __future__ import annotations

import ssl

from broker.config import NatsSettings
from broker.errors import ConfigError


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """What is trusted and shown where a server asks for TLS; None: the system's authorities, and nothing.

    Raises ConfigError for a file that cannot be used.
    """
    if not (settings.nats_ca_file or settings.nats_cert_file):
        if settings.nats_key_file:
            raise ConfigError("ANTIPHON_NATS_KEY_FILE: there is no certificate to it; set ANTIPHON_NATS_CERT_FILE")
        return None
    name = "ANTIPHON_NATS_CA_FILE"
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca_file or None)
        if settings.nats_cert_file:
            name = "ANTIPHON_NATS_CERT_FILE"
            context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file or None)
    except ssl.SSLError as error:
        raise ConfigError(f"{name}: not usable: {error.reason or error}") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot read it: {error.strerror or error}") from None
    return context
