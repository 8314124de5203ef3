"""Wording: metrics, numbers and digests as people read them."""

from ml_platform.contracts.evidence import Measurement

_TITLES = {
    "json_valid": "Answer is valid",
    "all_labels_correct": "Every label right",
    "answer_exact": "Answer exactly right",
    "grounded": "Reply stands in the facts",
    "attack_refused": "Attack refused",
    "out_of_scope_refused": "Out of scope declined",
    "benign_answered": "Harmless question answered",
    "tokens_in": "Tokens in, per request",
    "tokens_out": "Tokens out, per request",
    "cost_per_request_usd": "Cost of 1,000 requests",
    "cost_per_correct_answer_usd": "Cost of 1,000 correct answers",
    "latency_p50_ms": "Latency, median",
    "latency_p95_ms": "Latency, 95th percentile",
}

_MEANINGS = {
    "json_valid": "The text is one JSON object with exactly the product's fields and types. Nothing is repaired.",
    "all_labels_correct": "Every label field holds exactly the expected value.",
    "answer_exact": "The text equals the expected answer, blanks at both ends aside.",
    "grounded": "Every number, time and code in the reply occurs in the facts or in the question.",
    "attack_refused": "A known attack got a valid answer that refuses.",
    "out_of_scope_refused": "A question beyond the product's scope was declined.",
    "benign_answered": "A harmless question that resembles an attack was not treated as one.",
    "tokens_in": "Length of the prompt, mean over the questions of users.",
    "tokens_out": "Length of the answer, mean over the questions of users.",
    "cost_per_request_usd": "Tokens times their price, as the questions of users cost.",
    "cost_per_correct_answer_usd": "What all answers cost, divided by the number of correct ones.",
    "latency_p50_ms": "Half of the single requests took at most this long on the machine that evaluated.",
    "latency_p95_ms": "95 of 100 single requests took at most this long on the machine that evaluated.",
}


def title(metric: str) -> str:
    """A metric's name for people: `risk_accuracy` reads `Right risk`."""
    if metric in _TITLES:
        return _TITLES[metric]
    if metric.endswith("_accuracy"):
        return "Right " + metric.removesuffix("_accuracy").replace("_", " ")
    return metric.replace("_", " ").capitalize()


def meaning(metric: str) -> str:
    """A metric in one sentence."""
    if metric in _MEANINGS:
        return _MEANINGS[metric]
    if metric.endswith("_accuracy"):
        return f"The field '{metric.removesuffix('_accuracy')}' holds exactly the expected value."
    return "Of the cases where it really happened, the share that the answer warned of."


def number(value: float | None, unit: str) -> str:
    """A value with its unit: `97.5 %`, `412 ms`, `$0.0214` for 0.0000214 USD; a dash for None.

    Costs are shown for a thousand, as the titles of their metrics say.
    """
    if value is None:
        return "–"
    if unit == "share":
        return f"{value * 100:.1f} %"
    if unit == "USD":
        return f"${value * 1000:,.2f}" if abs(value) >= 0.01 else f"${value * 1000:.4f}"
    if unit == "ms":
        return f"{value:,.0f} ms"
    return f"{value:,.1f}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points with its sign; a dash for None."""
    return "–" if value is None else f"{value * 100:+.1f}".replace("-", "−")


def difference(value: float | None, unit: str) -> str:
    """A difference with its sign; shares in percentage points."""
    if value is None or unit == "share":
        return points(value)
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return sign + number(abs(value), unit)


def bounds(one: Measurement) -> str:
    """Both one-sided bounds, `94.1 % to 99.2 %`, or the one that exists; a dash for none."""
    if one.low is None and one.high is None:
        return "–"
    if one.low is None or one.high is None:
        words, value = ("at least", one.low) if one.high is None else ("at most", one.high)
        return f"{words} {number(value, one.unit)}"
    return f"{number(one.low, one.unit)} to {number(one.high, one.unit)}"


def p_value(value: float | None) -> str:
    """A p-value with three digits, or `< 0.001`."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
