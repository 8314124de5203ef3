"""Readings, numbers and times as people read them, on the console and in `mlp status` alike; pure."""

from datetime import datetime

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitoring import ArmReading, Decision, Look, MetricReading
from ml_platform.evaluation.wording import title

NOTHING = "–"
PER = " per 1,000"
POINTS = " points"
LATE_SECONDS = 15.0
"""A controller that looks once a second and has not for so long is not there."""


def metric_title(reading: MetricReading) -> str:
    """A metric's name: `latency_p95` reads `Latency p95`."""
    return title(reading.metric)


def value_words(value: float | None, reading: MetricReading) -> str:
    """A value of the metric with its unit: `2.1 %`, `412 ms`, `$0.021 per 1,000`."""
    if value is None:
        return NOTHING
    unit = reading.signal.value.rpartition("_")[2]
    if reading.kind == "rate":
        return _percent(value)
    if unit == "ms":
        return f"{value:,.0f} ms"
    if unit == "usd":
        return f"${value * 1000:,.3g}{PER}"
    return f"{value:,.4g}"


def effect_words(value: float | None, reading: MetricReading) -> str:
    """Canary against production: `+1.3 points`, `×1.12`, `+40 ms`."""
    if value is None:
        return NOTHING
    if reading.kind == "quantile":
        return f"×{value:,.3g}"
    sign = "−" if value < 0 else "+"
    if reading.kind == "rate":
        return f"{sign}{abs(value) * 100:.1f}{POINTS}"
    return sign + value_words(abs(value), reading)


def shown_words(value: float | None, reading: MetricReading) -> str:
    """A number as this reading has it: an effect of the canary, or production's own value where it stands alone."""
    return effect_words(value, reading) if compares(reading) else value_words(value, reading)


def compares(reading: MetricReading) -> bool:
    """Whether it is about the canary against production, and not about production alone."""
    return reading.canary is not None or reading.effect is not None


def measured_canary(look: Look) -> str | None:
    """The canary that a look's readings are about; a look that ended a rollout no longer has it in its slot."""
    against = any(compares(one) for one in look.decision.readings)
    return (look.canary or look.decision.release_id) if against else None


def shown_numbers(reading: MetricReading) -> tuple[float | None, float | None, float | None]:
    """What is drawn against the limit: the effect with its bounds, or production's value with its own."""
    if compares(reading):
        return reading.effect, reading.effect_lower, reading.effect_upper
    arm = reading.production
    return (arm.value, arm.lower, arm.upper) if arm is not None else (None, None, None)


def arm_words(arm: ArmReading | None, reading: MetricReading) -> str:
    """One arm: `2.1 % of 412 users`, with the share that has a label where one is needed."""
    if arm is None:
        return NOTHING
    coverage = "" if arm.coverage is None else f", {arm.coverage:.0%} labelled"
    return f"{value_words(arm.value, reading)} · {count(arm.users, 'user')}{coverage}"


def bounds_words(reading: MetricReading) -> str:
    """Both bounds that hold at every look: `−0.4 to +2.1 points`."""
    _, low, high = shown_numbers(reading)
    if low is None and high is None:
        return "no bound yet"
    if low is None or high is None:
        words, one = ("at least", low) if high is None else ("at most", high)
        return f"{words} {shown_words(one, reading)}"
    return f"{_without_unit(shown_words(low, reading))} to {shown_words(high, reading)}"


def short_arm(arm: ArmReading | None, reading: MetricReading) -> str:
    """One arm in a narrow column: `2.1 % (412)`."""
    return NOTHING if arm is None else f"{_without_unit(value_words(arm.value, reading))} ({arm.users:,})"


def short_bounds(reading: MetricReading) -> str:
    """Both bounds in a narrow column: `−0.4 to +2.1`."""
    return _without_unit(bounds_words(reading))


def limit_words(reading: MetricReading) -> str:
    """What it must stay below."""
    return f"below {shown_words(reading.limit, reading)}"


def edge_words(value: float, reading: MetricReading) -> str:
    """A number at the edge of a plot, as short as can be: `+5`, `×1.5`, `9,000 ms`."""
    if value == 0.0:
        return "0"
    return _without_unit(shown_words(value, reading)).removesuffix(" ms").replace(".0 %", " %").removesuffix(".0")


def evidence_words(reading: MetricReading) -> str | None:
    """How much speaks for harm, None for metrics that have no such number: `1.3, stops at 180`."""
    if reading.e_value is None or reading.e_threshold is None:
        return None
    return f"{_e(reading.e_value)}, stops at {_e(reading.e_threshold)}"


def waits_words(reading: MetricReading) -> str | None:
    """What it waits for, without the metric's name, which stands above it."""
    return None if reading.waits_for is None else reading.waits_for.removeprefix(f"{reading.metric}: ")


def smallest_words(reading: MetricReading) -> str | None:
    """The least harm that could be proven by now, None where nothing says so."""
    return None if reading.smallest_visible is None else effect_words(reading.smallest_visible, reading)


def count(number: int, noun: str) -> str:
    """`1 user`, `1,204 users`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def action_words(decision: Decision) -> str:
    """What was decided, in its word: `step up`."""
    return decision.action.value.replace("_", " ")


def verdicts(decision: Decision) -> dict[Verdict, int]:
    """How many readings have each verdict, the gravest first; those that none has are left out."""
    order = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)
    found = {one: sum(reading.verdict is one for reading in decision.readings) for one in order}
    return {one: number for one, number in found.items() if number}


def ago(moment: datetime, now: datetime) -> str:
    """How long ago something was: `3 s ago`, `2 h ago`; `just now` for what clocks disagree about."""
    seconds = (now - moment).total_seconds()
    if seconds < 1:
        return "just now"
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def late_look(look: Look, now: datetime) -> str | None:
    """Why a look is too old to be believed, None for one that is fresh."""
    seconds = (now - look.looked_at).total_seconds()
    if seconds <= LATE_SECONDS:
        return None
    return (
        f"No controller looks at this product: the last look was {ago(look.looked_at, now)}. What serves goes on, "
        "and nothing is stepped up, promoted, aborted or rolled back. Start `mlp controller`."
    )


def _without_unit(words: str) -> str:
    return words.removesuffix(POINTS).removesuffix(PER)


def _e(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else "over 10,000"


def _percent(share: float) -> str:
    digits = 2 if 0 < abs(share) < 0.001 else 1
    return f"{share * 100:.{digits}f} %"
