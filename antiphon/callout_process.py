"""`antiphon callout`: tells the NATS servers which workers may come in, by their service tokens; its composition root."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from antiphon.callout_config import CalloutSettings
from antiphon.processes import BrokerSettings, settle_memory, stop_signals, wait_for_log, watching_the_loop
from broker.callout import Admission, Asked, ServiceName
from broker.config import NatsSettings
from broker.errors import ConfigError, ErrorCode, LogError, Refused
from broker.jetstream.callout import Doorkeeper, ServiceConnections
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.revocations import JetStreamRevocations
from broker.jetstream.vitals import JetStreamVitals
from broker.metrics import LogMetrics, ProcessMetrics, counter
from broker.nats_config import CALLOUT_SYSTEM_INBOX
from broker.nkeys import BadKey, Kind, NKey
from broker.permissions import Role, User, access, inbox_of_service
from broker.revocations import Revocation
from gateway.auth import Authenticator
from gateway.config import GatewaySettings
from gateway.revoked import RevokedTokens

_log = structlog.get_logger("antiphon.callout")

_RETRY_S: Final = 0.25
_AGAIN_S: Final = 1.0
"""After a revocation, connections are looked at once more: one may have been let in just before it came."""


class CalloutMetrics:
    """What the process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "callout")
        self.log = LogMetrics(self.registry)
        outcomes = ("admitted", "overloaded", *(code.value for code in (ErrorCode.UNAUTHORIZED, ErrorCode.UNAVAILABLE)))
        self.answers = counter(
            self.registry, "antiphon_callout_answers", "Answers to NATS servers about workers", outcome=outcomes
        )
        self.ended = counter(
            self.registry, "antiphon_callout_ended", "Connections ended because their tokens were revoked"
        )
        self.key_fetches = counter(
            self.registry,
            "antiphon_callout_key_fetches",
            "Fetches of the key sets that issuers publish",
            outcome=("ok", "failed"),
        )

    def sample(self) -> None:
        """Nothing is looked at."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Says as what somebody comes in."""

    authenticator: Authenticator
    settings: CalloutSettings
    log: JetStreamLog

    async def decide(self, asked: Asked) -> Admission:
        """Raises Refused."""
        if not asked.token:
            raise _unauthorized("it has no user here, and no service token as its password")
        who = await self.authenticator.identify(asked.token, asked.host)
        who.check()
        if who.worker is None:
            raise _unauthorized("the token is no worker's: it has no claim `worker`")
        account = self.settings.account_of(who.tenant)
        if account is None:
            raise _unauthorized("the token is of a tenant that has no account here")
        now = time.time()
        if who.expires_at <= now:
            raise _unauthorized("the token has expired")
        inbox = inbox_of_service(who.tenant, who.id)
        user = User(Role.WORKER, who.worker.pools, inbox, who.worker.sessions, who.worker.lanes)
        return Admission(
            ServiceName(who.tenant, who.id, int(who.issued_at), who.token_id or ""),
            access(user, self.log.partitions),
            account,
            min(who.expires_at, int(now + self.settings.callout_session_s)),
        )


def _unauthorized(message: str) -> Refused:
    return Refused(ErrorCode.UNAUTHORIZED, message)


class Sweeper:
    """Ends connections whose tokens are revoked: when something is, and now and then."""

    def __init__(
        self, connections: ServiceConnections, revoked: RevokedTokens, metrics: CalloutMetrics, sweep_s: float
    ) -> None:
        self._connections = connections
        self._revoked = revoked
        self._metrics = metrics
        self._sweep_s = sweep_s
        self._new = asyncio.Event()

    def take(self, revocations: list[Revocation]) -> None:
        """Puts them in force."""
        if self._revoked.take(revocations, time.time()):
            self._new.set()

    async def run(self) -> None:
        again = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if again else self._sweep_s):
                    await self._new.wait()
            again = self._new.is_set()
            self._new.clear()
            await self._sweep()

    async def _sweep(self) -> None:
        while True:
            try:
                self._metrics.ended.inc(await self._connections.end(self._is_over))
            except LogError as error:
                _log.warning("connections of revoked tokens cannot be ended", reason=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _is_over(self, who: ServiceName) -> bool:
        return self._revoked.has_token(who.tenant, who.user, who.token_id or None, who.issued_at)


@asynccontextmanager
async def running_callout(
    broker: BrokerSettings, keys: GatewaySettings, settings: CalloutSettings
) -> AsyncIterator[None]:
    """Answers, from when NATS, its streams and what is revoked are there. Raises ConfigError, NotPermitted."""
    settings.check()
    issuer = _key("ANTIPHON_CALLOUT_ISSUER_FILE", settings.callout_issuer_file)
    metrics, revoked = CalloutMetrics(), RevokedTokens()
    authenticator = Authenticator.from_settings(keys, metrics, revoked)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(authenticator.key_sets)
        connection = await stack.enter_async_context(
            Connection(broker.nats, name="antiphon-callout", metrics=metrics.log)
        )
        system = await stack.enter_async_context(Connection(_system(broker.nats, settings), name="antiphon-callout"))
        if settings.callout_port:
            from antiphon.scraping import serving_metrics

            vitals = await stack.enter_async_context(JetStreamVitals(connection))
            await stack.enter_async_context(serving_metrics(metrics, vitals, settings.callout_port))
            await stack.enter_async_context(watching_the_loop(metrics.process))
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await wait_for_log(connection, log, follow=False)
        await system.wait_connected()
        sweeper = Sweeper(ServiceConnections(system), revoked, metrics, settings.callout_sweep_s)
        revocations = await stack.enter_async_context(JetStreamRevocations(connection))
        revocations.follow(sweeper.take)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(tasks.create_task(sweeper.run(), name="callout-sweep").cancel)
        doorkeeper = Doorkeeper(
            connection,
            issuer,
            Judge(authenticator, settings, log).decide,
            lambda outcome: metrics.answers.labels(outcome).inc(),
            at_once=settings.callout_at_once,
            timeout_s=settings.callout_timeout_s,
        )
        await stack.enter_async_context(doorkeeper)
        await doorkeeper.ready()
        yield


async def run_callout(broker: BrokerSettings, keys: GatewaySettings, settings: CalloutSettings) -> None:
    """Answers until SIGTERM or SIGINT."""
    async with running_callout(broker, keys, settings):
        settle_memory()
        print("ready callout", flush=True)
        with stop_signals() as stop:
            await stop.wait()
        _log.info("leaving")


def _system(nats: NatsSettings, settings: CalloutSettings) -> NatsSettings:
    """The same servers, as the user of the system account."""
    return dataclasses.replace(
        nats,
        nats_user="",
        nats_password_file="",
        nats_credentials="",
        nats_nkey_file=settings.callout_system_file,
        nats_inbox=CALLOUT_SYSTEM_INBOX,
    )


def _key(name: str, path: str) -> NKey:
    try:
        key = NKey.of(Path(path).read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{name}: cannot read {path}: {reason}") from None
    except BadKey as error:
        raise ConfigError(f"{name}: {error}") from None
    if key.kind is not Kind.ACCOUNT:
        raise ConfigError(f"{name}: must be the seed of an account's NKey")
    return key
