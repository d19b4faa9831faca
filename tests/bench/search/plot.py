"""Lines on logarithmic axes as SVG, by hand: no library for one picture."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 84, 36, 44
COLOURS = ("#1f5fa8", "#c2521b", "#3a7d44", "#7a4a9c")


@dataclass(frozen=True)
class Line:
    """Points (x, y), both above 0, in the order of x; the label may be empty."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A picture of some lines. across: what x counts."""

    title: str
    across: str
    lines: Sequence[Line]


def svg(panels: Sequence[Panel]) -> str:
    """The panels beside each other; readable on light and dark pages."""
    drawn = "\n".join(
        f'<g transform="translate({WIDTH * place} 0)">\n{"".join(_panel(panel))}</g>'
        for place, panel in enumerate(panels)
    )
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{drawn}\n</svg>\n'
    )


def _panel(panel: Panel) -> Iterator[str]:
    across = _Axis.over([x for line in panel.lines for x, _ in line.points], LEFT, WIDTH - RIGHT)
    up = _Axis.over([y for line in panel.lines for _, y in line.points], HEIGHT - BOTTOM, TOP)
    yield f'<text x="{LEFT}" y="20" font-weight="bold">{escape(panel.title)}</text>\n'
    for value in across.decades():
        x = across.place(value)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#dddddd"/>\n'
        yield _text(x, HEIGHT - BOTTOM + 18, f"{value:,.0f}", "middle")
    for value in up.decades():
        y = up.place(value)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>\n'
        yield _text(LEFT - 6, y + 4, f"{value:,g}", "end")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, panel.across, "middle")
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [(across.place(x), up.place(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>\n'
        # At the last point, where the lines are farthest apart.
        x, y = places[-1]
        last = f"{line.label} {line.points[-1][1]:,.0f}".strip()
        yield _text(x + 7, y + 4, last, "start", colour)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>\n"


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis of whole decades from pixel `start` to pixel `end`."""

    least: int
    most: int
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        least = math.floor(math.log10(min(values)) + 1e-9)
        most = math.ceil(math.log10(max(values)) - 1e-9)
        return cls(least, max(most, least + 1), start, end)

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.least) / (self.most - self.least)
        return self.start + share * (self.end - self.start)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.least, self.most + 1)]
