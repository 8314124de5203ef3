"""What is judged are the bytes that have the digest: a file that changes after its artifact was opened is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec
from ml_platform.errors import ArtifactCorruptError
from ml_platform.evaluation.evaluate import REPORT, load_report
from ml_platform.evaluation.generation import ANSWERS, LATENCIES, Model, load_answers, load_latencies, open_lora
from ml_platform.families.lora.adapter_files import CONFIG, WEIGHTS
from ml_platform.families.lora.prepare import load_examples
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import load_table, parquet_bytes
from tests.samples.releases import make_report

ANSWER = {"items": "test", "example_id": "1", "text": "late", "tokens_in": 3, "tokens_out": 2, "finished": True}
QUESTION = Example(example_id="1", entity="e", utterance="late?", answer="late")


def open_adapter(candidate: Artifact) -> object:
    model = Model("tiny", "c" * 64, candidate, PromptSpec(version="1.0.0", system="{facts}"))
    return open_lora(Home(candidate.path.parents[2]))(model)


def table(text: str) -> bytes:
    import pyarrow as pa

    return parquet_bytes(pa.Table.from_pandas(pd.DataFrame({"id": [text]})))


LOADED: dict[str, tuple[str, bytes, bytes, Callable[[Artifact], Any]]] = {
    "a report": (
        REPORT,
        make_report().canonical_bytes(),
        make_report(reference="f" * 64).canonical_bytes(),
        load_report,
    ),
    "answers": (ANSWERS, json.dumps(ANSWER).encode(), json.dumps(ANSWER | {"text": "soon"}).encode(), load_answers),
    "latencies": (LATENCIES, b"[900.0]", b"[100.0]", load_latencies),
    "a test split": (
        "test.jsonl",
        QUESTION.canonical_bytes(),
        QUESTION.model_copy(update={"answer": "soon"}).canonical_bytes(),
        lambda made: load_examples(made, "test"),
    ),
    "a table": ("tables/rows.parquet", table("a"), table("b"), lambda made: load_table(made, "rows")),
    "an adapter": (f"adapter/{WEIGHTS}", b"honest", b"better", open_adapter),
    "a configuration": (f"adapter/{CONFIG}", b"{}", b"[]", open_adapter),
}
CANDIDATE = {
    "product": "shop",
    "as_of": "2020-02-02",
    "family": "lora",
    "base_model": "tiny",
    "training": {},
    "seed": 1,
    "base_sha256": "c" * 64,
    "training_set_sha256": "e" * 64,
    "adapter_sha256": "d" * 64,
    "steps": 2,
    "train_loss": 0.5,
    "validation_loss": None,
}


@pytest.mark.parametrize("what", LOADED)
@pytest.mark.parametrize("gone", [False, True])
def test_what_changes_after_it_was_opened_is_not_judged(tmp_path: Path, what: str, gone: bool) -> None:
    name, honest, forged, load = LOADED[what]

    def build(folder: Path) -> dict[str, Any]:
        for file in {name, f"adapter/{WEIGHTS}", f"adapter/{CONFIG}"}:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(honest)
        return CANDIDATE

    store = LocalArtifactStore(tmp_path / "artifacts")
    opened = store.open("made", store.make("made", {}, build).sha256)
    if what not in ("an adapter", "a configuration"):
        load(opened)
    file = opened.file(name)
    file.unlink()
    if not gone:
        file.write_bytes(forged)

    with pytest.raises(ArtifactCorruptError, match="cannot be read" if gone else "was changed since it was opened"):
        load(opened)
