"""Several gateway processes on one port (`antiphon gateway --processes N`).

A gateway runs on one core. Processes that share a port (SO_REUSEPORT) use all of a machine's without a balancer before
them: the kernel gives each connection to one of them. To the rest of the cluster they are as many gateways.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon import children
from antiphon.listening import address, reserved
from gateway.config import GatewaySettings
from gateway.draining import GOODBYE_S


async def run_gateways(argv: Sequence[str], settings: GatewaySettings) -> None:
    """Runs `antiphon *argv` as often as `settings.processes` says (`antiphon.children.keep`).

    Raises ConfigError if the port is taken, or if a process ends before it has been ready once.
    """
    drain_s = settings.drain_delay_s + settings.drain_s + GOODBYE_S
    with reserved(settings.host, settings.port) as port:
        command = (*argv, "--port", str(port))
        gateways = [
            children.Child("gateway", number, children.command(command, number), drain_s)
            for number in range(settings.processes)
        ]
        await children.keep(gateways, address(settings.host, port))
