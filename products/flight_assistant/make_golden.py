"""Writes golden/answers.jsonl anew: run `python products/flight_assistant/make_golden.py`, then read what it wrote."""

from datetime import date
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.families.lora.examples import ExamplesContext
from ml_platform.families.lora.prepare import example_line
from ml_platform.features.build import build_features
from ml_platform.features.join import join_features
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.snapshots.extract import take_snapshot

AS_OF = date(2013, 3, 31)
ANSWERS = 120
ANSWERED = ("delay_risk", "expected_delay", "why", "weather", "compare_with_usual", "schedule")
INTENTS = (*ANSWERED, "out_of_scope", *ANSWERED, "override_attempt")


def write_golden() -> None:
    """The reserved flights of January to March with true outcomes, asked in held-out wordings."""
    product, home = load_product(Path(__file__).resolve().parent), Home.from_environment()
    store = LocalArtifactStore(home.artifacts)
    snapshot = take_snapshot(product, AS_OF, store)
    features = build_features(product, snapshot, store)
    context = ExamplesContext(
        product,
        snapshot,
        ANSWERS,
        product.spec.training.seed,
        lambda rows: join_features(product, features, rows, home),
    )
    flights = product.hook("examples.py:golden_flights")(context, ANSWERS)
    examples = product.hook("examples.py:ask")(context, flights, "held_out", INTENTS)
    lines = [example_line(example) for example in sorted(examples, key=lambda one: one.example_id)]
    (product.folder / "golden" / "answers.jsonl").write_bytes(b"".join(lines))
    print(f"wrote {len(lines)} answers")


if __name__ == "__main__":
    write_golden()
