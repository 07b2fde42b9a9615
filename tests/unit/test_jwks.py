"""Key sets: which of their keys are taken, each for one algorithm, and when they are fetched."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.errors import ConfigError, ErrorCode, Refused
from gateway.auth import Authenticator
from gateway.config import GatewaySettings
from gateway.jwks import JWKS_BYTES, JWKS_KEYS, JwksInvalid, parse_jwks
from gateway.key_sets import SOURCES_MAX, Source, read_sources
from gateway.metrics import GatewayMetrics
from gateway.revoked import RevokedTokens
from tests.support.issuer import Issuer

RSA = rsa.generate_private_key(65_537, 2048)
ED = Ed25519PrivateKey.generate()


def published(key: Any, name: str, **more: Any) -> dict[str, Any]:
    wire: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key()))
    return wire | more


def parsed(*keys: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.id) for key in parse_jwks(json.dumps({"keys": keys}).encode())]


# --- what is in a set ------------------------------------------------------------------------------------------------


def test_each_key_is_for_one_algorithm() -> None:
    assert parsed(
        published(RSA, "RS256", kid="a"),
        published(RSA, "RS256", kid="b", alg="PS384", use="sig"),
        published(ec.generate_private_key(ec.SECP256R1()), "ES256", kid="c"),
        published(ec.generate_private_key(ec.SECP384R1()), "ES384", alg="ES384", key_ops=["verify"]),
        published(ED, "EdDSA", kid="e"),
    ) == [("RS256", "a"), ("PS384", "b"), ("ES256", "c"), ("ES384", None), ("EdDSA", "e")]


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "secret"},
        published(RSA, "RS256", use="enc"),
        published(RSA, "RS256", key_ops=["encrypt"]),
        published(RSA, "RS256", key_ops="verify"),
        published(RSA, "RS256", alg="HS256"),
        published(RSA, "RS256", alg="none"),
        published(RSA, "RS256", alg=["RS256"]),
        published(RSA, "RS256", kid=7),
        published(RSA, "RS256", kid="k" * 257),
        published(rsa.generate_private_key(65_537, 1024), "RS256"),  # noqa: S505 (that is why it is passed over)
        published(ec.generate_private_key(ec.SECP521R1()), "ES512"),
        published(ec.generate_private_key(ec.SECP256R1()), "ES256", alg="ES384"),
        published(ED, "EdDSA", alg="RS256"),
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": ["RSA"]},
        {},
    ],
)
def test_other_keys_are_passed_over(other: dict[str, Any]) -> None:
    assert parsed(other, published(ED, "EdDSA", kid="good")) == [("EdDSA", "good")]


def test_of_a_private_key_only_the_public_part_is_taken() -> None:
    whole = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(ED)) | {"kid": "oops"}
    assert "d" in whole
    (key,) = parse_jwks(json.dumps({"keys": [whole]}).encode())
    assert not hasattr(key.material, "sign")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1, null]}',
        b" " * (JWKS_BYTES + 1),
        json.dumps({"keys": [published(ED, "EdDSA")] * (JWKS_KEYS + 1)}).encode(),
    ],
)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    with pytest.raises(JwksInvalid):
        parse_jwks(body)


# --- where sets are --------------------------------------------------------------------------------------------------


def test_sources_are_listed_with_their_issuers() -> None:
    text = "https://one.example/jwks, https://two.example https://two.example/jwks ,/etc/keys.json"
    assert read_sources(text) == (
        Source("https://one.example/jwks"),
        Source("https://two.example/jwks", "https://two.example"),
        Source("/etc/keys.json"),
    )
    assert read_sources("https://acme.example /f acme") == (Source("/f", "https://acme.example", "acme"),)
    assert read_sources("") == read_sources(" , ") == ()


@pytest.mark.parametrize(
    "text",
    [
        "http://one.example/jwks",
        "http://10.0.0.1/jwks",
        "ftp://127.0.0.1/jwks",
        "file:///etc/keys.json",
        "a b c d",
        "https://acme.example /f Acme",
        "https://acme.example /f a~b",
        ",".join(["/f"] * (SOURCES_MAX + 1)),
    ],
)
def test_sources_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match="ANTIPHON_JWKS"):
        read_sources(text)


@pytest.mark.parametrize(
    "url", ["http://localhost:1/k", "http://127.0.0.9:1/k", "http://[::1]:1/k", "https://10.0.0.1/k"]
)
def test_http_is_for_this_machine_alone(url: str) -> None:
    assert read_sources(url) == (Source(url),)


def test_a_file_that_is_absent_or_no_key_set_is_a_mistake(tmp_path: Path) -> None:
    for content in (None, b"{}"):
        path = tmp_path / "keys.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"ANTIPHON_JWKS.*keys\.json"):
            Authenticator.from_settings(GatewaySettings(jwks=str(path)), GatewayMetrics(), RevokedTokens(known=True))


# --- fetching --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def authenticator(jwks: str, **settings: Any) -> AsyncIterator[Authenticator]:
    defaults = {"jwks_min_interval_s": 0.1, "jwks_max_age_s": 1000.0}
    made = Authenticator.from_settings(
        GatewaySettings(jwks=jwks, **(defaults | settings)), GatewayMetrics(), RevokedTokens(known=True)
    )
    async with made.key_sets:
        yield made


async def refusal(made: Authenticator, token: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await made.identify(token)
    return caught.value


async def taken(made: Authenticator, token: str) -> None:
    """Returns when the token is taken, which may be as soon as another fetch is allowed."""
    async with asyncio.timeout(20):
        while True:
            try:
                await made.identify(token)
            except Refused as refused:
                if refused.code is not ErrorCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(refused.data["retry_after_ms"] / 1000)
            else:
                return


async def test_the_first_token_waits_for_the_first_fetch() -> None:
    issuer = Issuer(hold=asyncio.Event())
    issuer.rotate("one")
    async with issuer.serving(), authenticator(issuer.url, jwks_min_interval_s=1000.0) as made:
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            waiting = tasks.create_task(made.identify(issuer.token()))
            while not issuer.fetches:
                await asyncio.sleep(0.01)
            assert not waiting.done()
            assert issuer.hold is not None
            issuer.hold.set()
        assert waiting.result().id == "user-1"
    assert issuer.fetches == 1


async def test_a_token_of_a_new_key_has_the_set_fetched_once_for_all() -> None:
    issuer = Issuer()
    issuer.rotate("one")
    async with issuer.serving(), authenticator(issuer.url, jwks_min_interval_s=2.0) as made:
        await made.identify(issuer.token())
        await asyncio.sleep(2.05)  # beyond the interval, within which a fetch is not repeated
        issuer.rotate("two")
        fetched = issuer.fetches
        async with asyncio.TaskGroup() as tasks:
            for n in range(20):
                tasks.create_task(made.identify(issuer.token(f"user-{n}")))
        assert issuer.fetches == fetched + 1
        await made.identify(issuer.token(key_id="one"))
    assert issuer.fetches == fetched + 1


async def test_keys_that_nobody_publishes_cost_a_fetch_now_and_then() -> None:
    issuer, stranger = Issuer(), Issuer()
    issuer.rotate("one")
    stranger.rotate("forged")
    async with issuer.serving(), authenticator(issuer.url, jwks_min_interval_s=1000.0) as made:
        await made.identify(issuer.token())
        for _ in range(50):
            refused = await refusal(made, stranger.token())
            assert (refused.code, refused.retryable) == (ErrorCode.UNAVAILABLE, True)
            assert 990_000 < refused.data["retry_after_ms"] <= 1_000_000
        await made.identify(issuer.token())
    assert issuer.fetches == 1


async def test_a_key_that_is_known_not_to_be_published_is_refused_for_good() -> None:
    issuer, stranger = Issuer(), Issuer()
    issuer.rotate("one")
    stranger.rotate("forged")
    stranger.rotate("one")
    async with issuer.serving(), authenticator(issuer.url) as made:
        await made.identify(issuer.token())
        fetched = issuer.fetches
        refused = await refusal(made, stranger.token(key_id="one"))
        assert refused.code is ErrorCode.UNAUTHORIZED, "the key of that name has not signed it: nothing is fetched"
        assert issuer.fetches == fetched
        await asyncio.sleep(0.15)
        assert (await refusal(made, stranger.token(key_id="forged"))).code is ErrorCode.UNAUTHORIZED
    assert issuer.fetches == fetched + 1


async def test_a_set_is_fetched_again_when_it_is_old_and_keys_that_are_gone_are_not_taken() -> None:
    issuer = Issuer()
    issuer.rotate("one")
    old = issuer.token()
    async with issuer.serving(), authenticator(issuer.url, jwks_max_age_s=1.0) as made:
        await made.identify(old)
        issuer.rotate("two", keep=False)
        async with asyncio.timeout(20):
            while issuer.fetches < 2:
                await asyncio.sleep(0.02)
        await taken(made, issuer.token())
        async with asyncio.timeout(20):
            while (await refusal(made, old)).code is not ErrorCode.UNAUTHORIZED:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("body", [None, b"{}", b"x" * (JWKS_BYTES + 1)], ids=["error", "no keys", "too large"])
async def test_keys_outlive_a_source_that_fails_for_a_while(body: bytes | None) -> None:
    issuer = Issuer()
    issuer.rotate("one")
    settings = {"jwks_max_age_s": 1.0, "jwks_stale_s": 4.0}
    async with issuer.serving(), authenticator(issuer.url, **settings) as made:
        await made.identify(issuer.token())
        known_until = time.monotonic() + 4.0
        issuer.broken, issuer.body = body is None, body
        async with asyncio.timeout(20):
            while issuer.fetches < 3:
                await asyncio.sleep(0.02)
        if time.monotonic() < known_until - 0.5:
            assert made.problems() == []
            await made.identify(issuer.token())
        async with asyncio.timeout(20):
            while not made.problems():
                await asyncio.sleep(0.05)
        assert (await refusal(made, issuer.token())).code is ErrorCode.UNAVAILABLE
        issuer.broken, issuer.body = False, None
        await taken(made, issuer.token())
        assert made.problems() == []


async def test_a_source_that_does_not_answer_in_time() -> None:
    issuer = Issuer(hold=asyncio.Event())
    issuer.rotate("one")
    async with issuer.serving(), authenticator(issuer.url, jwks_timeout_s=0.2) as made:
        assert (await refusal(made, issuer.token())).code is ErrorCode.UNAVAILABLE
        assert issuer.hold is not None
        issuer.hold.set()
        await taken(made, issuer.token())


async def test_a_file_is_read_again(tmp_path: Path) -> None:
    issuer = Issuer()
    issuer.rotate("one")
    issuer.write(tmp_path / "keys.json")
    async with authenticator(str(tmp_path / "keys.json")) as made:
        await made.identify(issuer.token())
        issuer.rotate("two", keep=False)
        issuer.write(tmp_path / "keys.json")
        await taken(made, issuer.token())


async def test_an_issuers_keys_are_for_its_own_tokens_alone(tmp_path: Path) -> None:
    one, two = Issuer("https://one.example"), Issuer("https://two.example")
    for issuer, path in ((one, "one.json"), (two, "two.json")):
        issuer.rotate("key")
        issuer.write(tmp_path / path)
    nameless = Issuer(keys=one.keys)
    jwks = f"{one.name} {tmp_path / 'one.json'}, {two.name} {tmp_path / 'two.json'}"
    async with authenticator(jwks) as made:
        await made.identify(one.token())
        await made.identify(two.token())
        for forged in (one.token(iss=two.name), one.token(iss="https://three.example"), nameless.token()):
            assert (await refusal(made, forged)).code is ErrorCode.UNAUTHORIZED


async def test_an_issuer_of_one_tenant_speaks_for_no_other(tmp_path: Path) -> None:
    own, free = Issuer("https://acme.example"), Issuer("https://all.example")
    for issuer, name in ((own, "own.json"), (free, "free.json")):
        issuer.rotate("key")
        issuer.write(tmp_path / name)
    jwks = f"{own.name} {tmp_path / 'own.json'} acme, {free.name} {tmp_path / 'free.json'}"
    async with authenticator(jwks) as made:
        tenants = [(await made.identify(t)).tenant for t in (own.token(), own.token(tenant="acme"), free.token())]
        assert tenants == ["acme", "acme", ""]
        assert (await made.identify(free.token(tenant="acme"))).tenant == "acme"
        assert (await refusal(made, own.token(tenant="other"))).code is ErrorCode.UNAUTHORIZED
    async with authenticator(jwks, tenants="acme") as made:
        await made.identify(own.token())
        assert "served elsewhere" in (await refusal(made, free.token())).message


async def test_one_issuer_that_is_down_is_no_reason_not_to_be_ready(tmp_path: Path) -> None:
    up, down = Issuer("https://up.example"), Issuer("https://down.example")
    for issuer in (up, down):
        issuer.rotate("key")
    up.write(tmp_path / "up.json")
    async with authenticator(f"{up.name} {tmp_path / 'up.json'}, {down.name} {down.url}") as made:
        assert (await refusal(made, down.token())).code is ErrorCode.UNAVAILABLE
        await made.identify(up.token())
        assert made.problems() == []


async def test_issuers_of_keys_that_are_anybodys_are_listed(tmp_path: Path) -> None:
    issuer = Issuer()
    issuer.rotate("key")
    issuer.write(tmp_path / "keys.json")
    async with authenticator(str(tmp_path / "keys.json"), jwt_issuer="one, two") as made:
        for name in ("one", "two"):
            await made.identify(issuer.token(iss=name))
        assert (await refusal(made, issuer.token(iss="three"))).code is ErrorCode.UNAUTHORIZED
