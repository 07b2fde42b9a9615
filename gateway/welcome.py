"""What a client is told when it has said `hello` (PROTOCOL, section 1)."""

from __future__ import annotations

from typing import Any

import orjson

from broker.state import MAX_SCHEDULED, MAX_SCHEDULED_BYTES
from gateway.protocol import PROTOCOL_VERSION, Hello
from gateway.rights import Identity
from gateway.services import SERVER, Services

_LIMITS = (
    *("frame_bytes", "input_bytes", "subscriptions", "commands_per_second", "commands_burst", "command_queue"),
    *("bytes_per_second", "bytes_burst", "inputs_per_second", "inputs_burst", "joins_per_second", "joins_burst"),
    *("requests_per_second", "requests_burst", "user_connections", "address_connections", "schedule_ahead_s"),
    *("pace_factor", "user_frames_per_second", "address_frames_per_second"),
)
"""Those that are settings, by their names there."""


def welcome(services: Services, hello: Hello, who: Identity, connection: str) -> bytes:
    return orjson.dumps(
        {
            "op": "welcome",
            "id": hello.id,
            "protocol": PROTOCOL_VERSION,
            "server": SERVER,
            "gateway": services.name,
            "connection": connection,
            "user": {"id": who.id, "name": who.name},
            "token_expires_at": who.expires_at,
            "limits": _limits(services, who.tenant),
            "heartbeat_ms": int(services.settings.heartbeat_s * 1000),
        }
    )


def _limits(services: Services, tenant: str) -> dict[str, Any]:
    """All that the client may meet. Rates per second are whole numbers where they are."""
    found: dict[str, Any] = {name: _whole(getattr(services.settings, name)) for name in _LIMITS}
    quota = services.usage.quota(tenant)
    found |= {"scheduled_inputs": MAX_SCHEDULED, "scheduled_bytes": MAX_SCHEDULED_BYTES}
    return found | {"tenant_sessions": quota.sessions, "tenant_bytes": quota.bytes}


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
