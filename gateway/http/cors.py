"""Which pages of other origins may use the HTTP API (the CORS protocol of the Fetch standard). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.origins import ANY, Origins

_EXPOSED = "Accept-Ranges, Content-Disposition, Content-Location, Content-Range, ETag, Location, Retry-After"
_HEADERS = (
    "Authorization, Content-Disposition, Content-Type, Idempotency-Key, If-None-Match, If-Range, Last-Event-ID, Range"
)
_MAX_AGE_S = 600


class Cors:
    """What to add to answers. Tokens come in a header that a page has to set itself, so there are no credentials."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins.named

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """For an answer to a page of `origin`."""
        if not self._origins:
            return {}
        if ANY in self._origins:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": _EXPOSED}

    def preflight(self, origin: str | None, methods: str) -> Mapping[str, str]:
        """For the question whether a page of `origin` may do something."""
        headers = dict(self.headers(origin))
        if "Access-Control-Allow-Origin" in headers:
            headers["Access-Control-Allow-Methods"] = methods
            headers["Access-Control-Allow-Headers"] = _HEADERS
            headers["Access-Control-Max-Age"] = str(_MAX_AGE_S)
        return headers
