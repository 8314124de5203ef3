"""What a controller last saw of a product, for the terminal: what it decided, what it waits for, and every metric."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from ml_platform.cli.output import print_table, short

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.monitoring import Look, MetricReading

SHOWN_WAITS = 6


@dataclass(frozen=True)
class LastLook:
    """The last look at a product as of `now`: None where nobody looked, or why it cannot be read."""

    product: str
    look: "Look | None"
    problem: str | None
    now: datetime

    @property
    def late(self) -> str | None:
        """Why the look is too old to be believed, None for a fresh one."""
        from ml_platform.serving.gateway.console.words import late_look

        return late_look(self.look, self.now) if self.look else None

    def json(self) -> dict[str, Any]:
        """Plain data: the whole look, with its readings."""
        look = self.look.model_dump(mode="json") if self.look else None
        return {"controller": {"look": look, "late": self.late, "problem": self.problem}}


def last_looks(home: "Home", products: Iterable[str], now: datetime) -> dict[str, LastLook]:
    """The last look at each product; looks that cannot be read are a problem of theirs, and not of the ledger's."""
    from ml_platform.errors import MlPlatformError
    from ml_platform.lineage.looks import LookStore

    store = LookStore(home.monitoring_url)
    found: dict[str, LastLook] = {}
    for product in products:
        try:
            found[product] = LastLook(product, store.latest(product), None, now)
        except (MlPlatformError, ValueError) as error:
            found[product] = LastLook(product, None, str(error).splitlines()[0], now)
    store.close()
    return found


def print_controller(seen: LastLook) -> None:
    """What was decided and what it waits for, in a few lines; nothing where nobody ever looked."""
    from ml_platform.serving.gateway.console.words import action_words, ago

    if seen.problem:
        typer.echo(f"{seen.product}: what the controller saw cannot be read: {seen.problem}")
    if seen.look is None:
        return
    decision = seen.look.decision
    said = f"{action_words(decision)}, {ago(seen.look.looked_at, seen.now)}: {decision.reason}"
    typer.echo(f"{seen.product}: the controller says {said}")
    if decision.incident:
        typer.echo(f"  INCIDENT: {decision.incident}")
    for breach in decision.breaches:
        typer.echo(f"  hard limit broken by release {short(breach.release_id)}: {breach.sentence}")
    for one in decision.waits_for[:SHOWN_WAITS]:
        typer.echo(f"  waits for {one}")
    if (others := len(decision.waits_for) - SHOWN_WAITS) > 0:
        typer.echo(f"  and for {others} more: `mlp status {seen.product} --json`")
    if seen.late:
        typer.echo(f"  {seen.late}")


def print_readings(seen: LastLook) -> None:
    """Every metric of the last look against its limit; nothing where nothing was measured."""
    if seen.look is None or not seen.look.decision.readings:
        return
    from ml_platform.serving.gateway.console.words import measured_canary

    canary = measured_canary(seen.look)
    against = f"canary {short(canary)} against" if canary else "alone,"
    title = f"What is seen of {seen.product}: {against} production {short(seen.look.production or 'none')}"
    shown = "effect" if canary else "value"
    headers = (
        "metric",
        "verdict",
        "canary (users)",
        "production (users)",
        shown,
        "its bounds",
        "below",
        "harm: e-value",
    )
    print_table(title, headers, [_row(reading) for reading in seen.look.decision.readings])


def _row(reading: "MetricReading") -> tuple[Any, ...]:
    from ml_platform.serving.gateway.console import words

    return (
        reading.metric,
        reading.verdict.value,
        words.short_arm(reading.canary, reading),
        words.short_arm(reading.production, reading),
        words.shown_words(words.shown_numbers(reading)[0], reading),
        words.short_bounds(reading),
        words.shown_words(reading.limit, reading),
        words.evidence_words(reading),
    )
