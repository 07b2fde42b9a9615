"""Makes the keys that compose.yaml needs, anew and at random, beside it in `secrets/`.

`python3 deploy/make_secrets.py`; run it once. Nothing here has a default: without these files nothing starts. A key that
is there is kept, so it is safe to run this again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

DIRECTORY = Path(__file__).parent / "secrets"
NODES = ("nats-1", "nats-2", "nats-3")


def main(directory: Path) -> None:
    # The files are read by a user of the containers, who is nobody here: what guards them is the directory.
    directory.mkdir(mode=0o700, exist_ok=True)
    keep(directory / "jwt_secret", lambda: secrets.token_urlsafe(48))
    keep(directory / "grafana_password", lambda: secrets.token_urlsafe(24))
    # What one file of a pair says the other must know, so both are made or none.
    password, route = secrets.token_hex(24), secrets.token_hex(24)
    if not (directory / "antiphon.toml").exists():
        servers = ",".join(f"nats://antiphon:{password}@{node}:4222" for node in NODES)
        write(directory / "antiphon.toml", f'nats_url = "{servers}"\n')
        write(directory / "nats_users.conf", users(password))
    keep(directory / "nats_cluster.conf", lambda: cluster(route))


def users(password: str) -> str:
    """The one user of NATS. `live.>` is what the servers republish: nobody else may say something there."""
    permissions = '{ publish: { deny: ["live.>"] } }'
    return f'authorization {{ users: [ {{ user: antiphon, password: "{password}", permissions: {permissions} }} ] }}\n'


def cluster(password: str) -> str:
    """How the servers know each other."""
    routes = ", ".join(f'"nats-route://route:{password}@{node}:6222"' for node in NODES)
    return f'authorization {{ user: route, password: "{password}" }}\nroutes: [{routes}]\n'


def keep(path: Path, make: Callable[[], str]) -> None:
    if not path.exists():
        write(path, make() + "\n")


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
    path.chmod(0o444)
    print(f"made {path}")


if __name__ == "__main__":
    main(DIRECTORY)
