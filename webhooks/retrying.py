"""When an event is sent again. Pure: chance and the clock are arguments."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

_DOUBLINGS_MAX = 32


def backoff_s(failures: int, minimum_s: float, maximum_s: float, chance: float) -> float:
    """Seconds to wait after so many failures in a row: "full jitter", any time up to a bound that doubles each time.

    `chance` is from 0 to 1. See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    return chance * min(maximum_s, minimum_s * 2.0 ** min(max(0, failures - 1), _DOUBLINGS_MAX))


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` asks for: a number or a date (RFC 9110, section 10.2.3); None if it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when: datetime = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, when.timestamp() - now)
