"""The console: the page at `/`, and what it loads, as `make console` has built it into `gateway/web/`."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

_WEB = Path(__file__).parent / "web"
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_NOT_NEEDED = (
    *("accelerometer", "autoplay", "camera", "display-capture", "fullscreen", "geolocation", "gyroscope", "hid"),
    *("magnetometer", "microphone", "midi", "payment", "picture-in-picture", "publickey-credentials-get", "serial"),
    *("usb", "xr-spatial-tracking"),
)
"""What the page may not ask a browser for."""
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # For browsers that do not know `frame-ancestors`.
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not to be loaded by a page of another origin without asking: CORS says which may ask.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _NOT_NEEDED),
}
"""On every answer. No code and no style but that of the files here, no connection but to here, whatever somebody manages to
have the page show; and no frame of another page around it.
"""

_ALWAYS_ASKED = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
"""The name of such a file has a hash of its content in it: another content has another name."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, ready to be sent."""

    body: bytes
    compressed: bytes
    """By gzip; empty if that is not smaller."""
    content_type: str
    etag: str
    """Of either form, so a weak one."""
    cache_control: str

    def answer(self, request: web.Request) -> web.Response:
        headers = {hdrs.ETAG: f'W/"{self.etag}"', hdrs.CACHE_CONTROL: self.cache_control, hdrs.VARY: "Accept-Encoding"}
        known = request.if_none_match or ()
        if any(each.value in (self.etag, "*") for each in known):
            return web.Response(status=304, headers=headers)
        body = self.body
        if self.compressed and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            body = self.compressed
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, content_type=self.content_type, charset="utf-8", headers=headers)


class Console:
    """Serves the built files out of memory (half a megabyte), compressed once."""

    def __init__(self, directory: Path = _WEB) -> None:
        """Raises OSError when the files cannot be read, KeyError for a kind of file that nobody expects there."""
        self._assets = {path.name: _read(path) for path in sorted(directory.iterdir()) if path.is_file()}
        self._index = self._assets.pop(_INDEX)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/", self._page)
        app.router.add_get("/web/{name}", self._asset)

    async def _page(self, request: web.Request) -> web.Response:
        return self._index.answer(request)

    async def _asset(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return asset.answer(request)


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    compressed = gzip.compress(body, compresslevel=9, mtime=0)
    return Asset(
        body=body,
        compressed=compressed if len(compressed) < len(body) else b"",
        content_type=_TYPES[path.suffix],
        etag=hashlib.sha256(body).hexdigest()[:32],
        cache_control=_ALWAYS_ASKED if path.name == _INDEX else _FOR_EVER,
    )
