"""`python -m antiphon.healthcheck gateway|worker`: asks the process of this container whether it answers.

For images, which have no shell and no curl. Takes the port from the environment and the settings file, as the process
does. The exit code is 0 if `/healthz` says 200, else 1, with one line that says why.
"""

from __future__ import annotations

import http.client
import sys

from agent_worker.config import WorkerSettings
from broker.config import from_environment
from broker.errors import ConfigError
from gateway.config import GatewaySettings

_TIMEOUT_S = 3.0


def main(role: str) -> int:
    """Asks once. Returns the exit code."""
    try:
        port = (
            from_environment(WorkerSettings).worker_port if role == "worker" else from_environment(GatewaySettings).port
        )
        status = _ask(port)
    except (ConfigError, OSError, http.client.HTTPException) as error:
        print(f"{role}: {error}")
        return 1
    print(f"{role}: {status}")
    return 0 if status == http.client.OK else 1


def _ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
