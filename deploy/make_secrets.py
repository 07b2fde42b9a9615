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
ROLES = ("provisioner", "gateway", "worker", "webhooks", "observer")
"""Users of NATS; what each may do is in nats/gateway.conf and so on."""


def main(directory: Path) -> None:
    # The files are read by a user of the containers, who is nobody here: what guards them is the directory.
    directory.mkdir(mode=0o700, exist_ok=True)
    keep(directory / "jwt_secret", lambda: secrets.token_urlsafe(48))
    keep(directory / "grafana_password", lambda: secrets.token_urlsafe(24))
    # What one file of a pair says the other must know, so both are made or none.
    if not all((directory / f"nats_{role}.toml").exists() for role in ROLES):
        passwords = {role: secrets.token_hex(24) for role in (*ROLES, "system")}
        for role in ROLES:
            write(directory / f"nats_{role}.toml", settings(role, passwords[role]))
        write(directory / "nats_users.conf", users(passwords))
    keep(directory / "nats_cluster.conf", lambda: cluster(secrets.token_hex(24)))


def settings(role: str, password: str) -> str:
    """How a process of that role comes to NATS."""
    servers = ",".join(f"nats://{role}:{password}@{node}:4222" for node in NODES)
    return f'nats_url = "{servers}"\nnats_inbox = "_INBOX_{role}"\n'


def users(passwords: dict[str, str]) -> str:
    """The users of NATS: one for each role, and `system`, who sees the servers and nothing of the log."""
    lines = [
        f'  {{ user: {role}, password: "{passwords[role]}", permissions {{ include {role}.conf }} }}\n'
        for role in ROLES
    ]
    system = f'{{ user: system, password: "{passwords["system"]}" }}'
    return (
        f"authorization {{ users: [\n{''.join(lines)}] }}\n"
        f"accounts {{ SYS {{ users: [ {system} ] }} }}\nsystem_account: SYS\n"
    )


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
