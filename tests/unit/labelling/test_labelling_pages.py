"""The pages on labelling keep their word."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from ml_platform.contracts.home import Home
from ml_platform.contracts.products import find_product
from ml_platform.contracts.source import ANSWERED_COLUMNS
from ml_platform.families.lora.prepare import leakage_of, load_examples, make_training_set
from ml_platform.lineage.answered import AnswerHistory
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring import labelling
from ml_platform.snapshots.extract import take_snapshot
from tests.samples.answered import fill
from tests.samples.provenance import make_outcome, make_record, response_id_of

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "labelling.md").read_text(encoding="utf-8")
OWN = (DOCS / "your-own-product.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', OWN, re.MULTILINE | re.DOTALL))


def test_every_column_is_explained_and_every_weight_is_the_real_one() -> None:
    table = PAGE.partition("| column | holds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))) == set(
        ANSWERED_COLUMNS
    )
    weights = {float(found) for found in re.findall(r"\| ([\d.]+)(?: each)? \|$", PAGE, re.MULTILINE)}
    named = (name for name in dir(labelling) if name.isupper() and isinstance(getattr(labelling, name), float))
    assert weights == {getattr(labelling, name) for name in named if name != "NEAR"}
    assert f"within {labelling.NEAR:.0%}".replace("%", " %") in PAGE


def test_a_product_of_ones_own_learns_from_an_outcome_without_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "products" / "ticket_router"
    folder.mkdir(parents=True)
    for name, text in BLOCKS.items():
        if "," not in name and "/" not in name:
            (folder / name).write_text(text, encoding="utf-8")
    spec = yaml.safe_load(BLOCKS["product.yaml"])
    spec["sources"] |= yaml.safe_load(BLOCKS["product.yaml, taught by people"])["sources"]
    (folder / "product.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder.parent))
    product, home = find_product("ticket_router"), Home(tmp_path / "home")
    store = LocalArtifactStore(tmp_path / "artifacts")
    sent = json.loads(re.findall(r"/v1/outcomes .*?-d '(.*?)'", OWN, re.DOTALL)[0])
    asked = datetime(2026, 3, 3, 9, tzinfo=UTC)
    answers = ProvenanceStore(home.provenance_url)
    fill(
        answers,
        make_record(
            1,
            product="ticket_router",
            answered_at=asked,
            entity={"Ticket ID": 4031},
            utterance="Return label\nHow do I send it back?",
            facts={"Product Line": "Boreal"},
            features=None,
        ),
        make_outcome(1, product="ticket_router", **{**sent, "received_at": asked, "occurred_at": asked}),
    )
    answers.close()
    mature = (asked + timedelta(hours=product.monitor_policy.label_age_hours)).date()
    learnt = {}
    for day in (mature - timedelta(days=1), mature):
        with AnswerHistory.at(home) as history:
            snapshot = take_snapshot(product, day, store, history=history)
        made = make_training_set(product, snapshot, None, store)
        assert leakage_of(made).problems == ()
        learnt[day] = [one for one in load_examples(made, "train") if one.origin]
    before, (example,) = learnt.values()
    assert before == []
    assert (example.example_id.split("/")[1], example.entity) == (response_id_of(1), "4031")
    assert example.answer == {"team": "shipping", "priority": 2}
    assert mature == date(2026, 3, 6)
