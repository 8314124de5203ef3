"""`mlp trace RESPONSE_ID`: exactly what produced an answer, and what was said of it since."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, percent, print_json, print_pairs, print_table, short

if TYPE_CHECKING:
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.provenance import ProvenanceRecord
    from ml_platform.contracts.release import Release
    from ml_platform.lineage.provenance.store import Answered


def trace(
    response_id: Annotated[str, typer.Argument(help="The id in the header x-response-id.", metavar="RESPONSE_ID")],
    as_json: AsJson = False,
) -> None:
    """Show what produced an answer: release, prompt, guardrails, features, cohort, cost, and what was said of it."""
    from ml_platform.contracts.home import Home
    from ml_platform.errors import InvalidInputError

    home = Home.from_environment()
    found = _find(home, response_id)
    if found is None:
        raise InvalidInputError(
            f"there is no answer '{response_id}' in {home.root}. Ids begin with 'resp_' and stand in the header "
            "x-response-id; a gateway on another machine keeps its own log."
        )
    release, note = _release(home, found.record)
    copied = _find_copy(home, found.record)
    if as_json:
        print_json(
            {
                "record": found.record,
                "release": release,
                "release_note": note,
                "shadow": copied,
                "feedback": found.feedback,
                "outcomes": found.outcomes,
            }
        )
        return
    _print_answer(found.record)
    if copied is not None:
        _print_shadow(copied)
    _print_release(release, note, found.record)
    _print_features(found.record)
    _print_verdicts(found.record)
    _print_costs(found.record)
    _print_said(found)


def _find(home: "Home", response_id: str) -> "Answered | None":
    """The answer in the store or the log of this home; asking makes no store."""
    from pathlib import Path

    from ml_platform.lineage.databases import read_url
    from ml_platform.lineage.provenance.store import Answered, ProvenanceStore
    from ml_platform.lineage.provenance.trace import find_in_log
    from ml_platform.lineage.provenance.trace import trace as find

    url = read_url(home.provenance_url, "store")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        record = find_in_log(response_id, home.provenance_log, None)
        found = None if record is None else Answered(record, (), ())
    else:
        store = ProvenanceStore(home.provenance_url)
        found = find(response_id, store, home.provenance_log)
        store.close()
    return found


def _find_copy(home: "Home", record: "ProvenanceRecord") -> "ProvenanceRecord | None":
    """What the shadow made of the same question, None where it was not asked. An answer is shown without it too."""
    from ml_platform.errors import MlPlatformError
    from ml_platform.serving.shadow import shadow_id

    try:
        found = None if record.shadow_of else _find(home, shadow_id(record.response_id))
    except MlPlatformError:
        return None
    return None if found is None else found.record


def _release(home: "Home", record: "ProvenanceRecord") -> "tuple[Release | None, str]":
    """The release from the ledger; None, and why, where there is none. An answer is shown without it too."""
    from ml_platform.cli.dossier import open_ledger
    from ml_platform.errors import MlPlatformError
    from ml_platform.release.history import find_release

    if record.release_id is None:
        return None, "no release answered"
    try:
        return find_release(open_ledger(home), record.release_id).release, ""
    except MlPlatformError as error:
        return None, str(error)


def _print_answer(record: "ProvenanceRecord") -> None:
    draw = "" if record.user_draw is None else f", the user's draw {record.user_draw:.6f}"
    print_pairs(
        [
            ("response", record.response_id),
            ("answered", f"{record.answered_at:%Y-%m-%d %H:%M:%S.%f} UTC"),
            ("product", record.product),
            ("release", record.release_id),
            ("epoch", record.epoch),
            ("cohort", f"{record.cohort.value} ({record.route_reason.value})"),
            ("exposure", f"{percent(record.exposure)}{draw}"),
            ("shadow of", record.shadow_of),
            ("user (salted)", record.user_sha256 and short(record.user_sha256)),
            ("about", _flat(record.entity)),
            ("asked", record.utterance),
            ("answered with", record.answer),
            *((f"error: {error.kind}", error.message) for error in record.errors),
        ]
    )


def _print_shadow(copy: "ProvenanceRecord") -> None:
    """What the shadow answered to a copy of the question."""
    failed = ", ".join(error.kind for error in copy.errors)
    print_pairs(
        [
            ("shadow's response", copy.response_id),
            ("shadow's release", copy.release_id),
            ("shadow's answer", copy.answer or failed),
        ]
    )


def _print_release(release: "Release | None", note: str, record: "ProvenanceRecord") -> None:
    """The parts by version and digest; `mlp show` has all that is in them."""
    rows: list[tuple[str, Any, str | None]] = []
    if release is not None:
        data, model, features, code = release.data, release.model, release.features, release.code
        rows = [
            ("data", f"as of {data.as_of}", data.snapshot_sha256),
            ("features", getattr(features, "service", None), getattr(features, "definitions_sha256", None)),
            ("base model", model.base_model, None),
            ("adapter", model.family, model.adapter_sha256),
        ]
        for name in ("prompt", "guardrails", "serving", "action_policy", "promotion_policy", "monitor_policy"):
            part = getattr(release, name)
            rows.append((name.replace("_", " "), part and part.version, part and part.content_sha256))
        rows.append(("trained by", f"ml_platform {code.version} at {code.git_commit}", code.source_sha256))
    else:
        for name, part in (("prompt", record.prompt), ("guardrails", record.guardrails)):
            rows.append((name, getattr(part, "version", None), getattr(part, "content_sha256", None)))
    rows.append(("asked as", record.adapter, None))
    rows.append(("gateway", f"at {record.code_commit}", None))
    print_table("What answered", ("part", "", "digest"), [(*row[:2], row[2] and short(row[2])) for row in rows])
    if note:
        typer.echo(f"The ledger here does not have its release: {note}")


def _print_features(record: "ProvenanceRecord") -> None:
    read = record.features
    if read is not None:
        print_pairs(
            [
                ("feature service", read.service),
                ("definitions", read.definitions_sha256),
                ("read at", f"{read.read_at:%Y-%m-%d %H:%M:%S.%f} UTC"),
                ("looked up by", _flat(read.keys)),
            ]
        )
        rows = [
            (name, value, f"{at:%Y-%m-%d %H:%M:%S}" if (at := read.event_at[name]) else None)
            for name, value in read.values.items()
        ]
        print_table("Features, as they were read", ("feature", "value", "true at (UTC)"), rows)
    if record.facts:
        print_table("Facts that the model was shown", ("fact", "value"), record.facts.items())


def _print_verdicts(record: "ProvenanceRecord") -> None:
    rows = [
        (one.stage.value, one.guardrail, one.verdict.value, one.reason or None, f"{one.latency_ms:.2f}")
        for one in record.verdicts
    ]
    if rows:
        print_table("Guardrails", ("stage", "guardrail", "verdict", "reason", "ms"), rows)


def _print_costs(record: "ProvenanceRecord") -> None:
    times = record.timings
    print_pairs(
        [
            ("tokens", f"{record.input_tokens} read, {record.output_tokens} written"),
            ("cost", f"{record.cost_usd:.6f} USD"),
            *(
                (name, None if value is None else f"{value:.1f} ms")
                for name, value in (
                    ("features", times.features_ms),
                    ("queue", times.queue_ms),
                    ("first token", times.first_token_ms),
                    ("in all", times.total_ms),
                )
            ),
        ]
    )


def _print_said(found: "Answered") -> None:
    rows = [
        *((f"{one.received_at:%Y-%m-%d %H:%M:%S}", one.kind.value, one.text) for one in found.feedback),
        *((f"{one.received_at:%Y-%m-%d %H:%M:%S}", "outcome", _flat(one.values)) for one in found.outcomes),
    ]
    if rows:
        print_table("Said since", ("heard (UTC)", "what", ""), rows)
    else:
        typer.echo("Nothing was said of it yet.")


def _flat(values: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or None


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Machine")(trace)
