"""Whether a webhook is genuine, held to the reference implementation of Standard Webhooks in both directions."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client.webhooks import WebhookInvalid, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = 1_614_265_330
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"


def body(**data: object) -> str:
    return json.dumps({"type": "run.finished", "timestamp": "2026-01-02T03:04:05Z", "data": data})


def signed(text: str, secret: str = SECRET, at: int = NOW, id_: str = ID) -> dict[str, str]:
    """Headers by the reference implementation."""
    signature = standardwebhooks.Webhook(secret).sign(id_, datetime.fromtimestamp(at, UTC), text)
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": signature}


def refused(headers: dict[str, str], text: str, now: float = NOW, secret: str = SECRET) -> str:
    with pytest.raises(WebhookInvalid) as caught:
        verify(headers, text, secret, now=now)
    return caught.value.code


def test_the_published_vector() -> None:
    text = '{"test": 2432232314}'
    headers = signed(text)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    # It is signed as it must be, and only then seen to be no event of ours.
    assert refused(headers, text) == "body_invalid"


def test_what_is_genuine_is_read() -> None:
    text = body(session="s", runId="run_1")
    for headers in (signed(text), {name.title(): value for name, value in signed(text).items()}):
        found = verify(headers, text.encode(), SECRET, now=NOW)
        assert (found.id, found.type, found.timestamp) == (ID, "run.finished", "2026-01-02T03:04:05Z")
        assert found.data == {"session": "s", "runId": "run_1"}


def test_two_secrets_while_one_takes_the_others_place() -> None:
    text = body()
    old, new = signed(text, OTHER), signed(text)
    both = {**old, "webhook-signature": f"v1a,xyz {old['webhook-signature']} {new['webhook-signature']}"}
    assert verify(both, text, SECRET, now=NOW).id == ID
    assert verify(old, text, [SECRET, OTHER], now=NOW).id == ID
    assert refused(old, text) == "signature_invalid"


def test_what_is_not_genuine_is_refused_and_why() -> None:
    text = body()
    headers = signed(text)
    for name in headers:
        assert refused({k: v for k, v in headers.items() if k != name}, text) == "headers_missing"
    assert refused(headers, text + " ") == "signature_invalid"
    assert refused({**headers, "webhook-id": "msg_2"}, text) == "signature_invalid"
    assert refused({**headers, "webhook-timestamp": str(NOW + 1)}, text) == "signature_invalid"
    assert refused({**headers, "webhook-signature": "v1,not base64"}, text) == "signature_invalid"
    assert refused({**headers, "webhook-signature": headers["webhook-signature"].replace("v1", "v2")}, text) == (
        "signature_invalid"
    )
    for stamp in ("soon", "-1", "1e9", "٣"):
        assert refused({**headers, "webhook-timestamp": stamp}, text) == "timestamp_invalid"
    assert refused(headers, text, NOW + 301) == "timestamp_too_old"
    assert refused(headers, text, NOW - 301) == "timestamp_too_new"
    assert verify(headers, text, SECRET, 400, now=NOW + 301).id == ID


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", ""])
def test_a_secret_that_is_none_is_a_mistake_of_the_program(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify(signed(body()), body(), secret, now=NOW)


@given(
    key=st.binary(min_size=1, max_size=64),
    text=st.text(max_size=200),
    id_=st.from_regex(r"[\w.-]{1,40}", fullmatch=True),
)
def test_both_implementations_agree(key: bytes, text: str, id_: str) -> None:
    secret, event = "whsec_" + base64.b64encode(key).decode(), body(text=text)
    now = int(datetime.now(UTC).timestamp())
    headers = signed(event, secret, now, id_)
    found = verify(headers, event, secret)
    assert found.data == standardwebhooks.Webhook(secret).verify(event, headers)["data"]
