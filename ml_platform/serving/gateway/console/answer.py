"""What is told of one answer besides its text; pure."""

from ml_platform.contracts.provenance import ProvenanceRecord


def produced_rows(record: ProvenanceRecord) -> list[tuple[str, str]]:
    """What produced it, by name; what there was not is left out."""
    draw = "" if record.user_draw is None else f", the user's draw {record.user_draw:.6f}"
    features = record.features
    found = {
        "release": record.release_id or "none answered",
        "cohort": f"{record.cohort.value} ({record.route_reason.value})",
        "exposure": f"{record.exposure * 100:.3g} %{draw}",
        "epoch": str(record.epoch),
        "shadow of": record.shadow_of,
        "user (salted)": record.user_sha256,
        "about": ", ".join(f"{name}={value}" for name, value in record.entity.items()),
        "prompt": record.prompt and record.prompt.version,
        "guardrails": record.guardrails and record.guardrails.version,
        "adapter": record.adapter,
        "features": features and f"{features.service}, read {features.read_at:%Y-%m-%d %H:%M:%S} UTC",
        "published": features and features.published_at and f"{features.published_at:%Y-%m-%d %H:%M:%S} UTC",
        "code": record.code_commit,
    }
    return [(name, value) for name, value in found.items() if value]


def cost_rows(record: ProvenanceRecord) -> list[tuple[str, str]]:
    """Tokens, cost and where the time went."""
    times = record.timings
    steps = {
        "features": times.features_ms,
        "queue": times.queue_ms,
        "first token": times.first_token_ms,
        "in all": times.total_ms,
    }
    return [
        ("tokens", f"{record.input_tokens:,} read, {record.output_tokens:,} written"),
        ("cost", f"{record.cost_usd:.6f} USD"),
        *((name, f"{value:,.1f} ms") for name, value in steps.items() if value is not None),
    ]
