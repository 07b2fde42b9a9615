"""An issuer of tokens whose keys are published as a JWKS, over real HTTP or in a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.nats import free_ports


@dataclass(slots=True)
class Issuer:
    """Signs tokens with the newest of its keys, and publishes those that it says are in force."""

    name: str = ""
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    fetches: int = 0
    broken: bool = False
    """Whether a fetch is answered with HTTP 500."""
    hold: asyncio.Event | None = None
    """What a fetch waits for, if anything."""
    body: bytes | None = None
    """What is answered instead of the keys."""
    _port: int = field(default_factory=lambda: free_ports(1)[0])

    def rotate(self, key_id: str, *, keep: bool = True) -> None:
        """Has a new key from now on; the ones before are published on, if they are kept."""
        if not keep:
            self.keys.clear()
        self.keys[key_id] = Ed25519PrivateKey.generate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def jwks(self) -> bytes:
        algorithm = jwt.get_algorithm_by_name("EdDSA")
        listed = [
            json.loads(algorithm.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig", "alg": "EdDSA"}
            for key_id, key in self.keys.items()
        ]
        return json.dumps({"keys": listed}).encode()

    def write(self, path: Path) -> None:
        """As a deployment would put it there: whole, or not at all."""
        written = path.with_suffix(".new")
        written.write_bytes(self.jwks())
        written.replace(path)

    def token(self, user: str = "user-1", *, key_id: str | None = None, ttl_s: float = 3600, **claims: Any) -> str:
        """A token for all sessions with all rights, unless `claims` say otherwise."""
        key_id = key_id or list(self.keys)[-1]
        now = time.time()
        wire = {"sub": user, "iat": now, "exp": now + ttl_s, "sessions": {"*": ["admin"]}}
        if self.name:
            wire["iss"] = self.name
        return jwt.encode(wire | claims, self.keys[key_id], "EdDSA", headers={"kid": key_id})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Publishes over HTTP for as long as the context is open; may be entered again."""
        app = web.Application()
        app.router.add_get("/jwks.json", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.broken:
            return web.Response(status=500)
        return web.Response(body=self.jwks() if self.body is None else self.body, content_type="application/json")
