"""The file of endpoints, read, and read again when it has changed."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import structlog

from webhooks.endpoints import Endpoint, endpoints_of
from webhooks.errors import EndpointsInvalid
from webhooks.metrics import WebhookMetrics

_log = structlog.get_logger("antiphon.webhooks")

_FILE_BYTES = 1 << 20


def read_endpoints(path: str) -> tuple[Endpoint, ...]:
    """The endpoints in a file, TOML unless its name ends in `.json`. Raises EndpointsInvalid."""
    if not path:
        return ()
    return endpoints_of(_parsed(path), lambda name: Path(name).read_text(encoding="ascii"))


def _parsed(path: str) -> Any:
    try:
        with Path(path).open("rb") as file:
            body = file.read(_FILE_BYTES + 1)
        if len(body) > _FILE_BYTES:
            raise EndpointsInvalid(f"{path} is larger than {_FILE_BYTES} bytes")
        return orjson.loads(body) if path.endswith(".json") else tomllib.loads(body.decode())
    except OSError as error:
        raise EndpointsInvalid(f"cannot read {path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise EndpointsInvalid(f"{path} is not JSON: line {error.lineno}, column {error.colno}") from None
    except tomllib.TOMLDecodeError as error:
        raise EndpointsInvalid(f"{path} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise EndpointsInvalid(f"{path} is not UTF-8") from None


class EndpointFile:
    """Follows a file. What was read last counts for as long as the file cannot be used."""

    def __init__(self, path: str, reload_s: float, metrics: WebhookMetrics) -> None:
        self._path = path
        self._reload_s = reload_s
        self._metrics = metrics
        self._look = asyncio.Event()
        self._problem = ""
        self.endpoints = read_endpoints(path)
        """Making one raises EndpointsInvalid."""
        metrics.file_valid.set(1)

    def look(self) -> None:
        """Reads the file now, and not only when it is time."""
        self._look.set()

    async def changes(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The endpoints, now and whenever others are in the file. Also changed secrets are a change."""
        yield self.endpoints
        while True:
            try:
                async with asyncio.timeout(self._reload_s):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            if await self._read():
                yield self.endpoints

    async def _read(self) -> bool:
        try:
            found = await asyncio.to_thread(read_endpoints, self._path)
        except EndpointsInvalid as error:
            self._metrics.file_valid.set(0)
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("the file of endpoints cannot be used; the one before counts on", reason=self._problem)
            return False
        self._metrics.file_valid.set(1)
        self._problem = ""
        if found == self.endpoints:
            return False
        self.endpoints = found
        _log.info("the file of endpoints has changed", endpoints=[endpoint.id for endpoint in found])
        return True
