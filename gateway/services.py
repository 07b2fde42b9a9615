"""What every connection of a gateway shares."""

from __future__ import annotations

from dataclasses import dataclass

from broker.interfaces import Revocations, SessionLog
from broker.versions import VERSION
from gateway.admission import Admission
from gateway.attachments import Attachments
from gateway.auditing import Auditing
from gateway.auth import Authenticator
from gateway.commands import Commands
from gateway.config import GatewaySettings
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.presence import Rooms
from gateway.revoked import RevokedTokens
from gateway.usage import Usage

SERVER = f"antiphon/{VERSION}"


@dataclass(frozen=True, slots=True)
class Services:
    """One for a gateway, passed down."""

    name: str
    hub: Hub
    log: SessionLog
    commands: Commands
    attachments: Attachments
    rooms: Rooms
    authenticator: Authenticator
    settings: GatewaySettings
    metrics: GatewayMetrics
    auditing: Auditing
    revocations: Revocations
    revoked: RevokedTokens
    admission: Admission
    usage: Usage
