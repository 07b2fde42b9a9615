"""Credentials files of NATS, for tests; the JWTs in them are `broker.nats_jwt`'s."""

from __future__ import annotations

from broker.nkeys import NKey


def credentials_file(jwt: str, user: NKey) -> str:
    """What a credentials file holds."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
