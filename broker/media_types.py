"""Whether bytes may be what their media type says they are. Pure.

A declaration is believed unless the beginning says otherwise: a type with a signature must have it, a type without one
must not begin as another that would be opened or run, and text must be text. It keeps a program from being called a
picture; it does not say that a picture is a good one. Signatures are those of the MIME Sniffing Standard, section 6
(https://mimesniff.spec.whatwg.org/), and of the formats' own specifications.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from fnmatch import fnmatchcase

SNIFFED_BYTES = 512
"""Bytes at the beginning that are looked at."""


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == kind


def _boxes(head: bytes) -> bool:
    """ISO base media: MP4, QuickTime, and the like."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


def _mp3(head: bytes) -> bool:
    return head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


_ZIP = _starts(b"PK\x03\x04", b"PK\x05\x06")
_MATROSKA = _starts(b"\x1a\x45\xdf\xa3")
_OGG = _starts(b"OggS")
_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "image/png": _starts(b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": _starts(b"\xff\xd8\xff"),
    "image/gif": _starts(b"GIF87a", b"GIF89a"),
    "image/webp": _riff(b"WEBP"),
    "image/bmp": _starts(b"BM"),
    "image/tiff": _starts(b"II*\x00", b"MM\x00*"),
    "image/avif": _boxes,
    "image/heic": _boxes,
    "application/pdf": lambda head: b"%PDF-" in head,
    "application/zip": _ZIP,
    "application/epub+zip": _ZIP,
    "application/gzip": _starts(b"\x1f\x8b"),
    "audio/mpeg": _mp3,
    "audio/wav": _riff(b"WAVE"),
    "audio/x-wav": _riff(b"WAVE"),
    "audio/ogg": _OGG,
    "audio/webm": _MATROSKA,
    "audio/mp4": _boxes,
    "audio/flac": _starts(b"fLaC"),
    "video/mp4": _boxes,
    "video/quicktime": _boxes,
    "video/webm": _MATROSKA,
    "video/x-matroska": _MATROSKA,
    "video/ogg": _OGG,
}
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe", b"<svg", b"<?xml")
_ZIPPED = ("application/vnd.openxmlformats-officedocument.*", "application/vnd.oasis.opendocument.*")
_DANGEROUS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("a program", _starts(b"MZ", b"\x7fELF", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!")),
    ("a page", lambda head: head.lstrip(b"\xef\xbb\xbf \t\r\n\x0c").lower().startswith(_MARKUP)),
)
_TEXTS = ("application/json", "application/xml", "image/svg+xml")


def is_allowed(media_type: str, patterns: tuple[str, ...]) -> bool:
    """Whether a type is one of those that `patterns` allow, in which `*` stands for any characters."""
    # A type's characters have no meaning to `fnmatch`, but for the pattern's `*`.
    return any(fnmatchcase(media_type, pattern.replace("[", "[[]")) for pattern in patterns)


def mismatch(media_type: str, head: bytes) -> str | None:
    """Why content that begins so cannot be of the type; None if it may be. `head`: `SNIFFED_BYTES`, or all if it is less."""
    if is_text(media_type):
        return _no_text(media_type, head)
    signature = _ZIP if is_allowed(media_type, _ZIPPED) else _SIGNATURES.get(media_type)
    if signature is not None:
        return None if signature(head) else "it does not begin as that type does"
    for what, begins in _DANGEROUS:
        if begins(head):
            return f"it begins like {what}"
    for other, begins in _SIGNATURES.items():
        if other.partition("/")[0] != media_type.partition("/")[0] and other != "audio/mpeg" and begins(head):
            return f"it begins like {other}"
    return None


def is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type in _TEXTS or media_type.endswith(("+json", "+xml"))


def _no_text(media_type: str, head: bytes) -> str | None:
    if b"\x00" in head:
        return "it is not text"
    try:
        # The last character may be cut in two.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "it is not text in UTF-8"
    markup = media_type in ("text/html", "image/svg+xml") or media_type.endswith("xml")
    if not markup and _DANGEROUS[1][1](head):
        return "it begins like a page"
    return None
