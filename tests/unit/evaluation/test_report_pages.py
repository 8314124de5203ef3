"""The report as people see it: complete without outside help, deterministic, and proof against hostile text."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.evaluation.drawing import Canvas, printable, shortened
from ml_platform.evaluation.figures import Row, columns, distribution, forest, matrix
from ml_platform.evaluation.wording import number, points, title

HOSTILE = (
    "</dd></main><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
    "{{ 7*7 }}{% raw %} ![x](http://evil.example/p.png) [y](javascript:alert(4)) | ` $a$ \u202e\x00\x1b[31m &lt; ' \""
)
Make = Callable[..., Any]


class Page(HTMLParser):
    """Every element and attribute that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def hostile(example: Make, number: int, kind: str = "answer") -> Example:
    made: Example = example(
        number,
        kind,
        utterance=f"{number}{HOSTILE}",
        slices={"origin": HOSTILE} if kind == "answer" else {},
        facts={HOSTILE: HOSTILE},
        answer={"intent": HOSTILE[:80], "risk": "high", "reply": HOSTILE},
    )
    return made


@pytest.fixture
def attacked(bench: Any, shop: Product, example: Make) -> Any:
    golden = {"attacks": [hostile(example, n, "attack") for n in range(8)]}
    golden["benign"] = [hostile(example, n, "benign") for n in range(8)]
    return bench.evaluate(
        shop, [hostile(example, n) for n in range(20)], golden, lambda one: f"{HOSTILE}{one.example_id}"
    )


def test_nothing_that_a_model_or_an_attacker_wrote_becomes_markup(attacked: Any) -> None:
    text = attacked.file("report.html").read_text()
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {attributes["href"] for tag, attributes in page.elements if tag == "a"} == {
        attributes["href"]
        for tag, attributes in page.elements
        if tag == "a" and str(attributes["href"]).startswith("#")
    }
    assert "{{ 7*7 }}" in text, "templates inside answers are shown, not run"
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_the_summary_contains_no_markup_of_others(attacked: Any) -> None:
    text = attacked.file("summary.md").read_text()
    drawn = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert drawn
    assert all(uri.startswith("data:image/svg+xml;base64,") for uri in drawn)
    assert not re.search(r"<(?!\s)", text)
    assert "](javascript" not in text


def test_the_report_needs_nothing_from_outside_and_is_small(attacked: Any) -> None:
    text = attacked.file("report.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(" not in text
    assert len(text) < 600_000
    assert attacked.file("summary.md").stat().st_size < 150_000


def test_the_pages_tell_what_was_measured_and_what_was_not(bench: Any, shop: Product, example: Make) -> None:
    golden = {"attacks": [example(n, "attack") for n in range(5)], "benign": [example(n, "benign") for n in range(5)]}

    def careless(one: Example) -> str:
        return '{"intent":"delay_risk","risk":"low","reply":"77 % of flights to ZZZ are late"}'

    artifact = bench.evaluate(shop, [example(n) for n in range(20)], golden, careless, lambda _: "hello")
    text = artifact.file("report.html").read_text()
    for words in ("Shop &lt;assistant&gt;", "2020-02-02", "the bare base model", "What really happened", "Confusions"):
        assert words in text
    assert "not in the facts: 77 %, ZZZ" in text
    assert "Attacks that were not refused" in text
    assert "Out of scope declined" in text
    assert "not measured" in text
    summary = artifact.file("summary.md").read_text()
    assert "| Out of scope declined | not measured | – | 0 |" in summary


def test_drawings_hold_any_text_and_cut_what_is_long() -> None:
    row = Row(HOSTILE, 0.5, None, None, 3, reference=0.4, heading="日本 <b>")
    for canvas in (
        forest([row, Row("b", 1.0, 0.97, 1.0, 5)], HOSTILE, 0.8),
        columns([row], HOSTILE, 0.3, HOSTILE),
        matrix([HOSTILE, "b"], [HOSTILE, "b"], [[1, 0], [0, 0]], HOSTILE),
        distribution([1.0, 2.0, 2.0], [(HOSTILE, 1.5)], HOSTILE, "ms"),
    ):
        page = Page(canvas.svg())
        assert {tag for tag, _ in page.elements} <= {"svg", "text", "title", "line", "rect", "circle"}
        assert "nan" not in canvas.svg()


@pytest.mark.parametrize("values", [[0.0], [5.0] * 300, [0.0, 1e6]])
def test_latencies_of_any_size_can_be_drawn(values: list[float]) -> None:
    assert distribution(values, [], "latency", "ms").svg().count("<circle") == len(values)


def test_text_that_could_disguise_itself_is_spelled_out() -> None:
    assert printable("a\u202eb\x00c\n") == "a\\u202eb\\u0000c\\u000a"
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("👩‍🚀 نمی‌دانم") == "👩‍🚀 نمی‌دانم"
    assert shortened("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "share", "–"),
        (0.975, "share", "97.5 %"),
        (1446.1, "ms", "1,446 ms"),
        (0.0000149, "USD", "$0.0149"),
        (0.02, "USD", "$20.00"),
        (0.0, "USD", "$0.0000"),
        (114.14, "tokens", "114.1"),
    ],
)
def test_numbers_read_well(value: float | None, unit: str, words: str) -> None:
    assert number(value, unit) == words


def test_differences_carry_their_sign_and_metrics_their_plain_names() -> None:
    assert (points(0.034), points(-0.034), points(None)) == ("+3.4", "−3.4", "–")
    assert (title("risk_accuracy"), title("late_recall"), title("json_valid")) == (
        "Right risk",
        "Late recall",
        "Answer is valid",
    )


def test_an_empty_canvas_is_an_image_with_a_name() -> None:
    assert 'aria-label="a &lt; b"' in Canvas(10, 10, "a < b").svg()
