"""How a command ends, whatever way it came: in time, and with a reply or with a refusal that its sender can be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from broker.errors import CursorError, ErrorCode, InvalidName, LogError, Refused

_log = structlog.get_logger("antiphon.commands")

_RETRY_AFTER_MS = 1000


@asynccontextmanager
async def refusing(timeout_s: float, connection: str, command: str) -> AsyncIterator[None]:
    """Carries out within: whatever is raised there, or takes too long, leaves as Refused.

    `connection` is what the log knows a fault by; it is told to the sender.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except Refused:
        raise
    except CursorError as error:
        raise Refused(error.code, str(error)) from None
    except InvalidName as error:
        raise Refused(ErrorCode.BAD_NAME, str(error)) from None
    except LogError as error:
        raise _unavailable(str(error)) from None
    except TimeoutError:
        raise _unavailable("the log did not answer in time; nothing is known of the outcome") from None
    except Exception:  # noqa: BLE001 (a fault in one command must not end the connection)
        _log.exception("a command failed", connection=connection, command=command)
        text = f"a fault of the server; it is logged as {connection}"
        raise Refused(ErrorCode.INTERNAL, text) from None


def _unavailable(message: str) -> Refused:
    return Refused(ErrorCode.UNAVAILABLE, message, retry_after_ms=_RETRY_AFTER_MS)
