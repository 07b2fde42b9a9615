"""Attachments: names, types, what is kept of one, and how AG-UI has them."""

from __future__ import annotations

from typing import Any

import ag_ui.core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.attachments import (
    Attachment,
    from_wire,
    id_in_path,
    name_problem,
    parse_media_type,
    path_of,
    references_of,
    to_wire,
)
from broker.config import AttachmentSettings
from broker.media_types import is_allowed, mismatch
from broker.subjects import AttachmentPlace, attachment_place
from gateway.agui.content import agent_metadata, user_content

TYPES = AttachmentSettings().types


@pytest.mark.parametrize("name", ["a", "Zeugnis für Ä.pdf", ".profile", "a..b", "日本語.txt", "x" * 255, "a b;c\"d'e"])
def test_names_that_are_files(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 256,
        "a/b",
        "a\\b",
        ".",
        "..",
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "a\u202egnp.exe",
        "a\u2066b",
        "a\u2028b",
        "\ud800",
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert name_problem(name) is not None


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("image/png", "image/png"),
        (" Text/Plain ; charset=utf-8", "text/plain"),
        ("application/vnd.a+json", "application/vnd.a+json"),
        ("png", None),
        ("image/", None),
        ("image/p ng", None),
        ("image/*", None),
        ("a/" + "b" * 128, None),
        ("", None),
    ],
)
def test_media_types(value: str, type_: str | None) -> None:
    assert parse_media_type(value) == type_


@pytest.mark.parametrize(
    ("media_type", "allowed"),
    [
        ("image/png", True),
        ("audio/flac", True),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", True),
        ("image/svg+xml", False),
        ("text/html", False),
        ("application/x-msdownload", False),
        ("application/octet-stream", False),
    ],
)
def test_what_is_allowed_unless_it_is_set(media_type: str, allowed: bool) -> None:
    assert is_allowed(media_type, TYPES) is allowed


def test_patterns_mean_what_they_say() -> None:
    assert is_allowed("a/b", ("*/*",))
    assert is_allowed("a/b", ("*",))
    assert not is_allowed("a/b", ())
    assert not is_allowed("ab/c", ("[ab]*/c",))


ZIP, MP4 = b"PK\x03\x04rest", b"\x00\x00\x00\x20ftypisom"
BEGINNINGS: dict[str, bytes] = {
    "image/png": b"\x89PNG\r\n\x1a\n....",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "application/pdf": b"\n%PDF-1.7",
    "application/zip": ZIP,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ZIP,
    "audio/mpeg": b"\xff\xfb\x90",
    "audio/wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "audio/ogg": b"OggS",
    "video/mp4": MP4,
    "video/webm": b"\x1a\x45\xdf\xa3",
    "text/plain": "naïve".encode(),
    "application/json": b'{"a":1}',
}


@pytest.mark.parametrize("media_type", BEGINNINGS)
def test_what_begins_as_its_type_does_is_that_and_no_other(media_type: str) -> None:
    head = BEGINNINGS[media_type]
    assert mismatch(media_type, head) is None
    for other in ("image/png", "image/jpeg", "application/pdf", "video/webm"):
        if other != media_type:
            assert mismatch(other, head) is not None
    if "text" not in media_type and "json" not in media_type:
        assert mismatch(media_type, b"") is not None


@pytest.mark.parametrize(
    ("media_type", "head"),
    [
        ("text/plain", b"\x00"),
        ("text/plain", b"\xff\xfe"),
        ("text/plain", b"  <!DOCTYPE HTML><p>"),
        ("text/markdown", b"<script>alert(1)</script>"),
        ("text/csv", b"\xef\xbb\xbf<html>"),
        ("application/json", b"<svg xmlns"),
        ("application/x-unknown", b"MZ\x90"),
        ("application/x-unknown", b"#!/bin/sh"),
        ("application/x-unknown", b"<html>"),
        ("audio/x-unknown", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_what_is_something_else(media_type: str, head: bytes) -> None:
    assert mismatch(media_type, head) is not None


@pytest.mark.parametrize(
    ("media_type", "head"),
    [
        ("text/plain", "ä".encode()[:1]),
        ("text/html", b"<html>"),
        ("image/svg+xml", b"<svg"),
        ("application/x-unknown", b"anything"),
        ("text/plain", b""),
    ],
)
def test_what_may_be(media_type: str, head: bytes) -> None:
    """A character that is cut in two is no fault of the text's."""
    assert mismatch(media_type, head) is None


@given(st.binary(max_size=600), st.sampled_from([*BEGINNINGS, "a/b"]))
def test_no_bytes_raise(head: bytes, media_type: str) -> None:
    mismatch(media_type, head)


@given(st.lists(st.integers(1, 2**53), unique=True).map(sorted), st.booleans())
def test_what_is_kept_of_one_comes_back(pieces: list[int], used: bool) -> None:
    stored = Attachment("a", "n", "a/b", 5, "00", "user-1", 7, used, "up", tuple(pieces), 9)
    assert from_wire(to_wire(stored), 9) == stored


def test_a_place_is_read_from_its_subjects() -> None:
    place = AttachmentPlace("demo_1-x", 42)
    assert attachment_place(place.data("a-b", "f00")) == (place, "a-b", "data.f00")
    assert attachment_place(place.info("a-b")) == (place, "a-b", "info")


@pytest.mark.parametrize("value", [None, "text", 5, {"a": 1}, b"x"])
def test_what_refers_to_nothing(value: Any) -> None:
    assert references_of(value) == ()
    assert references_of([value, {"id": "a"}])[-1] == {"id": "a"}


def test_agui_takes_what_is_attached() -> None:
    """The official models take every part for what it is: none is foreign, none is lost."""
    kinds = {"image/png": "image", "audio/mpeg": "audio", "video/mp4": "video", "application/pdf": "document"}
    references = [Attachment(f"a{n}", f"f{n}", t, n, "0" * 64).reference() for n, t in enumerate(kinds)]
    content = user_content("look", references, "s", modern=True)
    wire = {
        "type": "MESSAGES_SNAPSHOT",
        "messages": [
            {"id": "m1", "role": "user", "content": content},
            {"id": "m2", "role": "user", "content": user_content("", references[:1], "s", modern=True)},
            {"id": "m4", "role": "assistant", "content": "", "metadata": agent_metadata(references)},
            {"id": "m3", "role": "user", "content": user_content("only text", (), "s", modern=True)},
        ],
    }
    parsed = ag_ui.core.MessagesSnapshotEvent.model_validate(wire)
    assert parsed.model_dump(by_alias=True, exclude_none=True, mode="json") == wire
    assert [part["type"] for part in content if isinstance(part, dict)] == ["text", *kinds.values()]
    first = parsed.messages[0]
    assert isinstance(first, ag_ui.core.UserMessage)
    assert isinstance(first.content, list)
    assert isinstance(first.content[1], ag_ui.core.ImagePart)
    assert isinstance(first.content[1].source, ag_ui.core.FileSource)
    assert (first.content[1].source.value, first.content[1].source.mime_type) == ("a0", "image/png")


def test_paths_of_attachments() -> None:
    assert id_in_path("s", path_of("s", "a-1")) == "a-1"
    paths = (
        "",
        "a-1",
        path_of("t", "a-1"),
        path_of("s", ""),
        path_of("s", "a/b"),
        path_of("s", "a?b"),
        "x" + path_of("s", "a"),
    )
    assert [id_in_path("s", path) for path in paths] == [None] * len(paths)
