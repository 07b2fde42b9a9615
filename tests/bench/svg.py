"""Bars with their spread, as SVG: what the report needs of drawing, in colours for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABELS, _VALUES = 760, 150, 110
_BAR, _GAP, _TOP, _BOTTOM = 20, 8, 50, 22
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .note, .value { fill: #57606a; }
  .note { font-size: 12px; }
  .bar { fill: #8c959f; } .own { fill: #0969da; }
  .spread { stroke: #24292f; stroke-width: 1.5; }
  .target { stroke: #cf222e; stroke-dasharray: 4 3; } .aim { fill: #cf222e; font-size: 12px; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .note, .value { fill: #9198a1; } .bar { fill: #6e7681; } .own { fill: #4493f8; }
    .spread { stroke: #e6edf3; } .target { stroke: #ff7b72; } .aim { fill: #ff7b72; }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A median, the least and the greatest value. Without a value: `missing` is what stands there."""

    label: str
    value: float | None
    low: float = 0.0
    high: float = 0.0
    own: bool = False
    missing: str = "not installed"


def bars(title: str, note: str, rows: Sequence[Bar], *, target: float | None = None) -> str:
    """A picture of bars, one below the other, on a scale from 0 that all of them and the target fit on."""
    most = max([row.high for row in rows if row.value is not None] + [target or 0.0, 1e-9])
    scale = (_WIDTH - _LABELS - _VALUES) / _round_up(most)
    height = _TOP + len(rows) * (_BAR + _GAP) + _BOTTOM
    drawn = [_row(row, _TOP + i * (_BAR + _GAP), scale) for i, row in enumerate(rows)]
    if target is not None:
        x = _LABELS + target * scale
        drawn.append(
            f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height - _BOTTOM}"/>'
            f'<text class="aim" x="{x:.1f}" y="{height - 7}" text-anchor="middle">target {shown(target)}</text>'
        )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}"',
            f'  width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="0" y="17">{escape(title)}</text>',
            f'<text class="note" x="0" y="36">{escape(note)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _row(row: Bar, y: int, scale: float) -> str:
    middle = y + _BAR / 2
    label = f'<text x="{_LABELS - 8}" y="{middle + 5:.0f}" text-anchor="end">{escape(row.label)}</text>'
    if row.value is None:
        return label + f'<text class="note" x="{_LABELS}" y="{middle + 5:.0f}">{escape(row.missing)}</text>'
    end, low, high = (_LABELS + value * scale for value in (row.value, row.low, row.high))
    return (
        f'{label}<rect class="{"own" if row.own else "bar"}" x="{_LABELS}" y="{y}" width="{max(1.0, end - _LABELS):.1f}" '
        f'height="{_BAR}" rx="2"/>'
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.0f}" y2="{middle:.0f}"/>'
        f'<text class="value" x="{max(end, high) + 8:.1f}" y="{middle + 5:.0f}">{shown(row.value)}</text>'
    )


def _round_up(value: float) -> float:
    """To two digits, so that the scale does not change with every run."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def shown(value: float) -> str:
    """A number as tables and pictures have it: three digits that count, at least."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
