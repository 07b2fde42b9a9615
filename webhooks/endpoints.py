"""Who is told what: the file of endpoints, checked. Whoever reads files is `webhooks.source`.

::

    [[endpoint]]
    id = "pager"
    url = "https://pager.example/hooks/antiphon"
    secret_files = ["/run/secrets/pager"]
    events = ["approval.*", "handoff.*"]
    sessions = ["team-*"]
    when = "away"
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from broker.errors import InvalidName
from broker.subjects import TENANT_NAME, check_tenant, split_key
from webhooks.errors import EndpointsInvalid
from webhooks.notices import TYPES
from webhooks.signing import key_of

ENDPOINTS_MAX = 64
"""Endpoints in a file."""
PATTERNS_MAX = 100
"""Patterns of sessions, or of events, of an endpoint."""
SECRETS_MAX = 4
"""Secrets of an endpoint at once: two while one takes the other's place."""
WHEN = ("always", "away")
INCLUDE = ("text",)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SESSIONS = re.compile(r"[A-Za-z0-9_*-]{1,128}")
_EVENTS = re.compile(r"[a-z.*]{1,64}")

SecretReader = Callable[[str], str]
"""What a secret's file holds. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver. Limits that are None are those of the settings."""

    id: str
    url: str
    keys: tuple[bytes, ...] = field(repr=False)
    events: tuple[str, ...] = ("*",)
    sessions: tuple[str, ...] = ("*",)
    tenant: str = ""
    """Whose sessions the patterns mean; "": the default one's."""
    when: str = "always"
    include: tuple[str, ...] = ()
    child_runs: bool = False
    enabled: bool = True
    in_flight: int | None = None
    timeout_s: float | None = None
    tries: int | None = None
    age_s: float | None = None

    @property
    def fingerprint(self) -> str:
        """Names the URL without telling it: a URL may hold a secret of its owner."""
        return hashlib.blake2b(self.url.encode(), digest_size=16).hexdigest()

    def wants(self, type_: str, session: str) -> bool:
        """Whether it is told of this kind of event in the session with this key."""
        return self.wants_session(session) and any(fnmatchcase(type_, pattern) for pattern in self.events)

    def wants_session(self, session: str) -> bool:
        tenant, name = split_key(session)
        return self.enabled and tenant == self.tenant and any(fnmatchcase(name, pattern) for pattern in self.sessions)


def endpoints_of(file: Any, read_secret: SecretReader) -> tuple[Endpoint, ...]:
    """The endpoints of a file that has been parsed. Raises EndpointsInvalid for the first thing that is wrong."""
    match file:
        case {"endpoint": [*tables], **rest} if not rest:
            pass
        case {} if not file:
            tables = []
        case _:
            raise EndpointsInvalid("the file must hold a list `endpoint`, and nothing else")
    if len(tables) > ENDPOINTS_MAX:
        raise EndpointsInvalid(f"{len(tables)} endpoints, at most {ENDPOINTS_MAX} are possible")
    found: dict[str, Endpoint] = {}
    for number, table in enumerate(tables, 1):
        endpoint = _Table(number, table).endpoint(read_secret)
        if endpoint.id in found:
            raise EndpointsInvalid("there are two with this id", endpoint=endpoint.id, field="id")
        found[endpoint.id] = endpoint
    return tuple(found.values())


class _Table:
    """One endpoint as the file has it."""

    def __init__(self, number: int, table: Any) -> None:
        if not isinstance(table, Mapping):
            raise EndpointsInvalid("must be a table", endpoint=str(number))
        self._left = dict(table)
        id_ = self._left.pop("id", None)
        if not isinstance(id_, str) or not _ID.fullmatch(id_):
            raise EndpointsInvalid("must be 1-64 of A-Z a-z 0-9 _ -", endpoint=str(number), field="id")
        self._id = id_

    def endpoint(self, read_secret: SecretReader) -> Endpoint:
        made = Endpoint(
            self._id,
            self._url(),
            self._keys(read_secret),
            events=self._events(),
            sessions=self._texts("sessions", ("*",), _SESSIONS),
            tenant=self._tenant(),
            when=self._one_of("when", WHEN),
            include=self._all_of("include", INCLUDE),
            child_runs=self._flag("child_runs", default=False),
            enabled=self._flag("enabled", default=True),
            in_flight=self._whole("in_flight", 1, 256),
            timeout_s=self._number("timeout_s", 0.1, 120),
            tries=self._whole("tries", 1, 10_000),
            age_s=self._number("age_s", 1, 31_536_000),
        )
        for name in self._left:
            raise self._wrong(name, "is not known")
        return made

    def _wrong(self, name: str, message: str) -> EndpointsInvalid:
        return EndpointsInvalid(message, endpoint=self._id, field=name)

    def _url(self) -> str:
        url = self._left.pop("url", None)
        if not isinstance(url, str) or len(url) > 2048 or not url.isascii() or any(c.isspace() for c in url):
            raise self._wrong("url", "must be an https:// URL of at most 2048 ASCII characters")
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 (raises if it is none)
        except ValueError as error:
            raise self._wrong("url", str(error)) from None
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise self._wrong("url", "must begin with https:// (http:// is for the networks of the settings alone)")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise self._wrong("url", "must have no user, password or fragment: a secret proves who sends")
        return url

    def _keys(self, read_secret: SecretReader) -> tuple[bytes, ...]:
        secrets = [("secrets", secret) for secret in self._list("secrets", ())]
        for path in self._list("secret_files", ()):
            try:
                secrets.append(("secret_files", read_secret(path).strip()))
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise self._wrong("secret_files", f"cannot read {path}: {reason}") from None
        if not 1 <= len(secrets) <= SECRETS_MAX:
            raise self._wrong("secrets", f"must be 1 to {SECRETS_MAX}, in `secrets` or `secret_files`")
        keys = []
        for name, secret in secrets:
            try:
                keys.append(key_of(secret))
            except ValueError as error:
                raise self._wrong(name, f"a secret {error}") from None
        return tuple(keys)

    def _events(self) -> tuple[str, ...]:
        events = self._texts("events", ("*",), _EVENTS)
        for pattern in events:
            if not any(fnmatchcase(type_, pattern) for type_ in TYPES):
                raise self._wrong("events", f"{pattern!r} is none of {', '.join(TYPES)}")
        return events

    def _tenant(self) -> str:
        tenant = self._left.pop("tenant", "")
        try:
            return check_tenant(tenant) if tenant else ""
        except (InvalidName, TypeError):
            raise self._wrong("tenant", f"must be {TENANT_NAME}") from None

    def _list(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._left.pop(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "must be a list of texts")
        return tuple(value)

    def _texts(self, name: str, default: tuple[str, ...], form: re.Pattern[str]) -> tuple[str, ...]:
        texts = self._list(name, default)
        if not 1 <= len(texts) <= PATTERNS_MAX:
            raise self._wrong(name, f"must be 1 to {PATTERNS_MAX} patterns")
        for text in texts:
            if not form.fullmatch(text):
                raise self._wrong(name, f"{text[:64]!r} is no pattern: {form.pattern}")
        return texts

    def _one_of(self, name: str, known: tuple[str, ...]) -> str:
        value = self._left.pop(name, known[0])
        if value not in known:
            raise self._wrong(name, f"must be one of {', '.join(known)}")
        return str(value)

    def _all_of(self, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
        values = self._list(name, ())
        if not set(values) <= set(known):
            raise self._wrong(name, f"may hold {', '.join(known)}")
        return values

    def _flag(self, name: str, *, default: bool) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "must be true or false")
        return value

    def _whole(self, name: str, low: int, high: int) -> int | None:
        value = self._number(name, low, high)
        if value is not None and value != int(value):
            raise self._wrong(name, "must be a whole number")
        return None if value is None else int(value)

    def _number(self, name: str, low: float, high: float) -> float | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._wrong(name, f"must be a number from {low:g} to {high:g}")
        return value
