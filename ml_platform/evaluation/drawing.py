"""Drawing: a small SVG canvas whose bytes depend on nothing but what is drawn."""

import base64
import html
import unicodedata
from dataclasses import dataclass, field

INK, MUTED, LINE, PAPER = "#1c2733", "#66727f", "#e2e7ec", "#ffffff"
CANDIDATE, REFERENCE, WARNING = "#1f5fbf", "#98a4b0", "#b4501e"
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"


_JOINERS = "\u200c\u200d"  # scripts and emoji need them


def printable(text: str, keep: str = "") -> str:
    """The text with control and direction-changing characters spelled out, so that it cannot disguise itself.

    Characters in `keep`, such as line ends, stay.
    """
    return "".join(
        f"\\u{ord(character):04x}"
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") and character not in keep + _JOINERS
        else character
        for character in text
    )


def shortened(text: str, characters: int) -> str:
    """At most so many characters, with an ellipsis where it was cut."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


@dataclass
class Canvas:
    """Shapes in the order they are drawn, in pixels from the upper left corner."""

    width: float
    height: float
    title: str
    shapes: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, dash: str = "") -> None:
        """A straight line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{color}" '
            f'stroke-width="{_n(width)}" stroke-linecap="round"{dashed}/>'
        )

    def dot(self, x: float, y: float, radius: float, color: str, tip: str = "", hollow: bool = False) -> None:
        """A disc, or a ring when hollow; `tip` shows when the mouse rests on it."""
        fill, stroke = (PAPER, color) if hollow else (color, PAPER)
        self.shapes.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="1.6">{_tip(tip)}</circle>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, color: str, opacity: float = 1, tip: str = ""
    ) -> None:
        """A filled rectangle with slightly rounded corners."""
        self.shapes.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="2" fill="{color}" '
            f'fill-opacity="{_n(opacity)}">{_tip(tip)}</rect>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        color: str = INK,
        size: float = 12.5,
        anchor: str = "start",
        bold: bool = False,
        characters: int = 200,
        halo: bool = False,
    ) -> None:
        """One line of text on the baseline `y`, cut at so many characters, with the whole of it as a tip.

        A halo of paper keeps it readable on top of lines.
        """
        whole = printable(words)
        shown = shortened(whole, characters)
        weight = ' font-weight="600"' if bold else ""
        tip = _tip(whole) if shown != whole else ""
        ringed = f' stroke="{PAPER}" stroke-width="4" paint-order="stroke"' if halo else ""
        self.shapes.append(
            f'<text x="{_n(x)}" y="{_n(y)}" fill="{color}" font-size="{_n(size)}" text-anchor="{anchor}"'
            f"{weight}{ringed}>{html.escape(shown)}{tip}</text>"
        )

    def svg(self) -> str:
        """The drawing as an SVG element that stands in HTML or alone."""
        name = html.escape(self.title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'width="{_n(self.width)}" height="{_n(self.height)}" role="img" aria-label="{name}" '
            f'font-family="{html.escape(FONT)}">' + "".join(self.shapes) + "</svg>"
        )

    def data_uri(self) -> str:
        """The drawing as a data URI for Markdown."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg().encode()).decode()


def _tip(words: str) -> str:
    return f"<title>{html.escape(printable(words))}</title>" if words else ""


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
