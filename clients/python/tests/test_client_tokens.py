"""Tokens against a scripted gateway: fixed, provided, renewed, refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from antiphon_client import Client, CommandRefused, Settings, TokenProvider, Unauthorized
from antiphon_client.tokens import Tokens, TokenUnavailable
from clients.python.tests.scripted_gateway import EPOCH, Peer, ScriptedGateway, delta, seqs, take


def client(
    gateway: ScriptedGateway, token: str | TokenProvider | None = "t1", provider: TokenProvider | None = None
) -> Client:
    settings = Settings(close_timeout_s=0.2)
    return Client(gateway.url, token, token_provider=provider, settings=settings, rand=lambda: 0.0)


class TestTokens:
    async def test_a_provider_gives_a_new_one_when_the_old_one_expires(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.opened(as_of=5)
            await peer.send(delta(6, 5, 0, "a"))
            await peer.close(4300, {"code": "token_expired"})

        async def second(peer: Peer) -> None:
            await peer.welcome(token="t2")
            await peer.subscribed(after=f"{EPOCH}:6")
            await peer.send(delta(7, 6, 1, "b"))

        tokens = iter(["t1", "t2"])

        async def provider() -> str:
            return next(tokens)

        async with (
            ScriptedGateway(first, second) as gateway,
            client(gateway, provider) as opened,
        ):
            assert seqs(await take(opened.session("demo"), 3)) == [6, 7]
        assert list(tokens) == []

    async def test_a_fixed_token_expires_for_good(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.close(4300, {"code": "token_expired"})

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(Unauthorized) as caught:
                await take(opened.session("demo"), 99)
            assert (caught.value.code, caught.value.close_code) == ("token_expired", 4300)

    async def test_a_refused_token_is_replaced_once(self) -> None:
        async def refuse(peer: Peer) -> None:
            await peer.error(await peer.expect("hello"), "unauthorized")
            await peer.close(4401, {"code": "unauthorized"})

        asked = 0

        async def provider() -> str:
            nonlocal asked
            asked += 1
            return "t2"

        async with ScriptedGateway(refuse, refuse) as gateway:
            with pytest.raises(Unauthorized):
                async with client(gateway, "t1", provider):
                    pass
        assert asked == 1

    async def test_is_renewed_before_it_expires(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome(token_expires_at=time.time() + 0.2)
            first = await peer.expect("auth.refresh", token="t2")
            await peer.ok(first, token_expires_at=time.time() + 0.2)
            await peer.error(await peer.expect("auth.refresh", token="t3"), "unauthorized")

        tokens = iter(["t2", "t3"])

        async def provider() -> str:
            return next(tokens)

        async with ScriptedGateway(script) as gateway, client(gateway, "t1", provider):
            await gateway.played(1)
            assert gateway.connections == 1

    async def test_a_renewal_that_fails_is_made_up_for_later(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.welcome(token_expires_at=time.time() + 0.1)
            await failed.wait()
            await peer.close(4300, {"code": "token_expired"})

        async def second(peer: Peer) -> None:
            await peer.welcome(token="t2")

        failed = asyncio.Event()

        async def provider() -> str:
            if not failed.is_set():
                failed.set()
                raise OSError("away")
            return "t2"

        async with ScriptedGateway(first, second) as gateway, client(gateway, "t1", provider):
            await gateway.played(2)

    async def test_a_provider_that_fails_at_the_start_is_heard(self) -> None:
        async def provider() -> str:
            raise KeyError("no session")

        with pytest.raises(Unauthorized, match="no session"):
            async with Client("http://127.0.0.1:1", provider):
                pass

    async def test_a_provider_that_fails_later_is_asked_again(self) -> None:
        async def expiring(peer: Peer) -> None:
            await peer.welcome()
            await peer.close(4300)

        async def second(peer: Peer) -> None:
            await peer.welcome(token="t2")

        answers: Iterator[str | OSError] = iter(["t1", OSError("away"), OSError("away"), "t2"])

        async def provider() -> str:
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return answer

        async with (
            ScriptedGateway(expiring, second) as gateway,
            client(gateway, None, provider),
        ):
            await gateway.played(2)

    async def test_a_provider_may_say_that_it_is_over(self) -> None:
        async def expiring(peer: Peer) -> None:
            await peer.opened()
            await peer.close(4300)

        answers: Iterator[str | CommandRefused] = iter(["t1", CommandRefused("signed_out")])

        async def provider() -> str:
            answer = next(answers)
            if isinstance(answer, CommandRefused):
                raise answer
            return answer

        async with (
            ScriptedGateway(expiring) as gateway,
            client(gateway, None, provider) as opened,
        ):
            with pytest.raises(CommandRefused, match="signed_out"):
                await take(opened.session("demo"), 99)

    async def test_when_it_is_renewed(self) -> None:
        async def provider() -> str:
            return "t"

        tokens = Tokens(None, provider)
        assert await tokens.get(0) == "t"
        assert tokens.renew_after_s(0, 30) is None
        tokens.accepted(100.0)
        assert tokens.renew_after_s(0, 30) == 70
        assert tokens.renew_after_s(60, 30) == 20  # half of what is left, for tokens that live shortly
        assert tokens.renew_after_s(100, 30) is None
        fixed = Tokens("t", None)
        fixed.accepted(100.0)
        assert fixed.renew_after_s(0, 30) is None
        assert await fixed.get(101) == "t"  # only a gateway knows for sure that it is over

    async def test_an_expired_token_is_not_tried(self) -> None:
        answers = iter(["t1", "t2"])

        async def provider() -> str:
            return next(answers)

        tokens = Tokens(None, provider)
        assert await tokens.get(0) == "t1"
        tokens.accepted(100.0)
        assert await tokens.get(99) == "t1"
        assert await tokens.get(100) == "t2"
        tokens.accepted(200.0)
        with pytest.raises(TokenUnavailable):
            await tokens.get(200)
