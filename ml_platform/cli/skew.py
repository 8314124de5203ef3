"""`mlp skew`: what serving logged, replayed against what training would have seen."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, print_json, print_table
from ml_platform.errors import RefusedError

if TYPE_CHECKING:
    from ml_platform.features.skew import Divergence, FeatureSkew, SkewReport

DAY = ["%Y-%m-%d"]


def skew(
    product: Annotated[str, typer.Argument(help="The product's name.")],
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="The first day of answering, UTC; default yesterday.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="The last day, included; default today.")
    ] = None,
    release: Annotated[str | None, typer.Option(help="Only answers of this release.")] = None,
    at_most: Annotated[float, typer.Option(min=0.0, max=1.0, help="The largest rate of a feature that passes.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Replay the feature values of answers against the point-in-time join that training learns from.

    Exit code 1 when a feature's mismatch rate is above --at-most, or when nothing could be compared.
    """
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product
    from ml_platform.features.skew import replay_features
    from ml_platform.lineage.object_store import artifact_store
    from ml_platform.lineage.provenance.store import ProvenanceStore
    from ml_platform.release.history import find_release
    from ml_platform.release.skew_sources import sources_of

    home, found = Home.from_environment(), find_product(product)
    since, until = _span(first, last)
    ledger = open_ledger(home)
    sources = sources_of(found, ledger.replay(found.name).releases, artifact_store(home))
    release_id = find_release(ledger, release).release_id if release else None
    with closing(ProvenanceStore(home.provenance_url)) as answers:
        records = answers.scan(found.name, since, until, release_id=release_id)
        report = replay_features(found.name, records, sources, home)
    if as_json:
        print_json(_json(report, since, until, at_most))
    else:
        _print(report)
    _judge(report, since, until, at_most)


def _span(first: datetime | None, last: datetime | None) -> tuple[datetime, datetime]:
    """From the start of the first day to the end of the last, UTC."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = first.replace(tzinfo=UTC) if first else today - timedelta(days=1)
    ends = last.replace(tzinfo=UTC) if last else today
    if ends < begins:
        raise typer.BadParameter(f"--to {ends:%Y-%m-%d} lies before --from {begins:%Y-%m-%d}. Exchange them.")
    return begins, ends + timedelta(days=1)


def _judge(report: "SkewReport", since: datetime, until: datetime, at_most: float) -> None:
    """Raises RefusedError for skew, and where nothing was compared: no data is no good news."""
    if report.rate is None:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in report.not_compared.most_common())
        raise RefusedError(
            f"nothing of {report.product} could be compared: {report.records:,} answers from {since:%Y-%m-%d} to "
            f"{until - timedelta(days=1):%Y-%m-%d}{f' ({reasons})' if reasons else ''}. Choose days on which "
            "people were answered, by the clock also where history was replayed; `mlp ship` brings them into the store."
        )
    wrong = {name: one for name, one in report.features.items() if one.rate > at_most}
    if wrong:
        name, worst = max(wrong.items(), key=lambda item: item[1].rate)
        raise RefusedError(
            f"{len(wrong)} of {len(report.features)} features of {report.product} differ from the point-in-time join, "
            f"'{name}' most: {worst.mismatches:,} of {worst.n:,} values ({worst.rate:.2%}), at most {at_most:.2%} may."
        )


def _json(report: "SkewReport", since: datetime, until: datetime, at_most: float) -> dict[str, Any]:
    return {
        "product": report.product,
        "since": since.isoformat(),
        "until": until.isoformat(),
        "records": report.records,
        "compared": report.compared,
        "not_compared": dict(report.not_compared),
        "rate": report.rate,
        "at_most": at_most,
        "passed": report.rate is not None and all(one.rate <= at_most for one in report.features.values()),
        "features": {name: asdict(one) | {"rate": one.rate} for name, one in report.features.items()},
    }


def _print(report: "SkewReport") -> None:
    headers = ("feature", "compared", "mismatches", "rate", "outdated", "first examples")
    rows = [(name, f"{one.n:,}", *_counts(one)) for name, one in report.features.items()]
    print_table(f"Skew of {report.product}: {report.compared:,} of {report.records:,} answers compared", headers, rows)
    for reason, count in report.not_compared.most_common():
        typer.echo(f"{count:,} answers not compared: {reason}")


def _counts(one: "FeatureSkew") -> tuple[Any, ...]:
    return f"{one.mismatches:,}", f"{one.rate:.2%}", f"{one.outdated:,}", "\n".join(map(_example, one.examples)) or None


def _example(one: "Divergence") -> str:
    event = f" of {one.event_at:%Y-%m-%d %H:%M}" if one.event_at else ""
    keys = ", ".join(f"{name} {value}" for name, value in one.keys.items())
    return (
        f"{one.response_id}: logged {one.logged}{event}, joined {one.joined} at {one.read_at:%Y-%m-%d %H:%M} ({keys})"
    )


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Runs")(skew)
