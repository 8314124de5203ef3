"""docs/your-own-product.md keeps its word: its files, copied into a folder, are a product."""

import asyncio
import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import yaml

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product, find_product
from ml_platform.contracts.release import FeaturesPart
from ml_platform.contracts.serving import ServingTime
from ml_platform.errors import ContractError, InvalidInputError, UnknownEntityError
from ml_platform.families.lora.prepare import leakage_of, load_examples, make_training_set
from ml_platform.families.lora.prompt import messages
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.serving.deployment import AdmittedRelease
from ml_platform.serving.facts import KnownFacts
from ml_platform.serving.loaded import LoadedRelease, ReleaseLoader
from ml_platform.snapshots.extract import manifest_of, take_snapshot
from tests.samples.gateway import running_gateway
from tests.samples.releases import make_release

DOCUMENT = Path(__file__).parents[2] / "docs" / "your-own-product.md"
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL))
AS_OF = date(2026, 3, 5)

Make = Callable[..., Product]


@pytest.fixture
def make_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes the document's files, changed by the named variations, and finds the product as people do."""

    def make(*variations: str, changes: dict[str, Any] | None = None) -> Product:
        folder = tmp_path / "elsewhere" / "ticket_router"
        for name, text in BLOCKS.items():
            if "," not in name:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        spec = yaml.safe_load(BLOCKS["product.yaml"])
        for variation in variations:
            merge(spec, yaml.safe_load(BLOCKS[f"product.yaml, {variation}"]))
        merge(spec, changes or {})
        (folder / "product.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder.parent))
        return find_product("ticket_router")

    return make


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[[Product], Artifact]:
    """Takes the snapshot and makes the training set, with features where the product has some."""

    def run(product: Product) -> Artifact:
        store, home = LocalArtifactStore(tmp_path / "store"), Home(tmp_path / "home")
        snapshot = take_snapshot(product, AS_OF, store)
        join = None
        if product.features is not None:
            from ml_platform.features.build import build_features
            from ml_platform.features.join import join_features

            features = build_features(product, snapshot, store)

            def join(rows: Any) -> Any:
                return join_features(product, features, rows, home)

        return make_training_set(product, snapshot, join, store)

    return run


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """Puts keys in, mapping by mapping; an empty mapping replaces what was there."""
    for key, value in changes.items():
        if isinstance(value, dict) and value and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def test_the_documented_files_give_a_training_set(make_product: Make, prepare: Any) -> None:
    product = make_product()
    made = prepare(product)
    assert made.facts["counts"] == {"train": 21, "validation": 3, "test": 6}
    assert leakage_of(made).passed
    newest = load_examples(made, "test")[-1]
    assert newest.utterance.startswith("Return label\n")
    assert newest.answer == {"team": "shipping", "priority": 2}
    assert list(newest.slices) == ["Product Line", "Team"]
    assert "Product Line=Boreal" in messages(product.prompt, newest, with_answer=False)[0]["content"]


def test_braces_quotes_and_every_script_arrive_as_they_were_written(make_product: Make, prepare: Any) -> None:
    made = prepare(make_product())
    texts = [one.utterance for name in ("train", "validation", "test") for one in load_examples(made, name)]
    for written in ('{"error": "timeout", "code": 504}', "Dear {{first_name}}", "déménagé", "李雷"):
        assert any(written in text for text in texts), written


def test_data_without_times_is_split_by_entity(make_product: Make, prepare: Any) -> None:
    made = prepare(make_product("without times"))
    assert sum(made.facts["counts"].values()) == 30
    assert leakage_of(made).passed
    assert all(one.prediction_time is None for one in load_examples(made, "test"))


def test_a_product_may_answer_in_plain_text(make_product: Make, prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError) as refused:
        make_product("plain text")
    told = str(refused.value)
    for said in ("gate 'right_team': 'team_accuracy' is not measured", "metric 'invalid_rate': no answer of this"):
        assert said in told
    promotion, monitor = (yaml.safe_load(BLOCKS[f"{name}_policy.yaml"]) for name in ("promotion", "monitor"))
    for gate in promotion["gates"]:
        if gate.get("metric") in ("json_valid", "team_accuracy"):
            gate["metric"] = "answer_exact"
        if "metrics" in gate:
            gate["metrics"] = ["answer_exact"]
    monitor["metrics"] = [one for one in monitor["metrics"] if one["metric"] != "invalid_rate"]
    monkeypatch.setitem(BLOCKS, "promotion_policy.yaml", yaml.safe_dump(promotion))
    monkeypatch.setitem(BLOCKS, "monitor_policy.yaml", yaml.safe_dump(monitor))
    made = prepare(make_product("plain text"))
    assert {one.answer for one in load_examples(made, "train")} == {"billing", "technical", "shipping"}


LEVELS = "version: 1.0.0\nfield: priority\notherwise: '3'\nlevels: [{level: '1', any: [{fact: FACT, at_least: 9}]}]\n"


@pytest.mark.parametrize(
    ("facts", "fact", "told"),
    [
        (["Product Line"], "tickets_7", "there is no fact 'tickets_7' in the examples: known: Product Line"),
        (["Product Line"], "Product Line", "the fact 'Product Line' is no number, so no rule on it ever holds"),
        (["Product Line", "tickets_7d"], "tickets_7d", ""),
    ],
)
def test_rules_are_on_facts_that_are_there_and_numbers(
    make_product: Make, monkeypatch: pytest.MonkeyPatch, facts: list[str], fact: str, told: str
) -> None:
    monkeypatch.setitem(BLOCKS, "levels.yaml", LEVELS.replace("FACT", fact))
    changes = {"files": {"action_policy": "levels.yaml"}, "examples": {"facts": facts}}
    if not told:
        assert make_product("with features", changes=changes).action_policy is not None
        return
    with pytest.raises(ContractError, match=told):
        make_product("with features", changes=changes)


def test_a_dimension_that_the_examples_do_not_have_is_refused(
    make_product: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = yaml.safe_load(BLOCKS["promotion_policy.yaml"])
    sliced = {"kind": "slices", "metric": "team_accuracy", "at_least": 0.5, "min_n": 5, "min_slices": 1}
    policy["gates"].append(sliced | {"gate": "lines", "claim": "c", "dimensions": ["Product line"]})
    monkeypatch.setitem(BLOCKS, "promotion_policy.yaml", yaml.safe_dump(policy))
    with pytest.raises(ContractError, match=r"'Product line' is no slice of the examples: did you mean 'Product Line'"):
        make_product()


def test_features_join_as_they_were_known(make_product: Make, prepare: Any) -> None:
    made = prepare(make_product("with features"))
    newest = load_examples(made, "test")[-1]
    opened = [one for one in BLOCKS["tickets.csv"].splitlines() if ",Boreal," in one and one[5:18] > "2026-02-25T19"]
    assert newest.facts["tickets_7d"] == len([one for one in opened if not one.startswith("4030")])


OWN_HISTORY = """
service: ticket_facts
views:
  customer_last:
    source: tickets
    entity: [Customer]
    columns: {last_team: Team}
    ttl_hours: null
  customer_now:
    source: tickets
    entity: [Customer]
    every_hours: 0.016666666666666666
    aggregates: {priority_1h: {function: max, column: Priority, window_hours: 1}}
    ttl_hours: 1
"""


def test_a_question_is_no_row_of_its_own_features(
    make_product: Make, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ticket is known when it is opened, to the minute of the grid, too; its own team must not be asked of itself."""
    monkeypatch.setitem(BLOCKS, "features.yaml", OWN_HISTORY)
    made = prepare(make_product("with features", changes={"examples": {"facts": ["last_team", "priority_1h"]}}))
    last: dict[str, str] = {}
    before = {}
    for ticket in csv.DictReader(BLOCKS["tickets.csv"].splitlines()):
        before[ticket["Ticket ID"]] = last.get(ticket["Customer"])
        last[ticket["Customer"]] = ticket["Team"]
    examples = [one for name in ("train", "validation", "test") for one in load_examples(made, name)]
    assert {one.entity: one.facts["last_team"] for one in examples} == before
    assert {one.facts["priority_1h"] for one in examples} == {None}


def test_golden_entities_are_never_trained_on(make_product: Make, prepare: Any) -> None:
    made = prepare(make_product("with a golden set"))
    assert made.facts["golden_counts"] == {"tickets": 1}
    assert made.facts["left_out"] == {"reserved for golden sets": 1}
    everywhere = [one.entity for name in ("train", "validation", "test") for one in load_examples(made, name)]
    assert "4002" not in everywhere
    assert len(everywhere) == 29


def test_the_same_inputs_give_the_same_training_set(make_product: Make, prepare: Any) -> None:
    first, second = prepare(make_product()), prepare(make_product())
    assert second.reused
    assert second.sha256 == first.sha256
    assert prepare(make_product(changes={"training": {"epochs": 5}})).sha256 == first.sha256
    assert prepare(make_product(changes={"training": {"seed": 8}})).sha256 != first.sha256


class Served(NamedTuple):
    """A product that is online at the cutoff of a snapshot, loaded as a gateway loads a release of it."""

    product: Product
    home: Home
    loaded: LoadedRelease

    def facts(self, **metadata: Any) -> KnownFacts:
        return asyncio.run(self.loaded.facts.find(metadata, timeout_seconds=30.0))


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Product], Served]:
    """Publishes what the product's requests need, and loads a release that serves as the product says."""

    def run(product: Product) -> Served:
        from ml_platform.features.build import build_features
        from ml_platform.features.definitions import definitions_sha256
        from ml_platform.features.online import publish_online

        store, home = LocalArtifactStore(tmp_path / "store"), Home(tmp_path / "home")
        snapshot = take_snapshot(product, AS_OF, store)
        features = build_features(product, snapshot, store) if product.features else None
        if features or product.serving.lookups:
            publish_online(product, features, home, manifest_of(snapshot).cutoff, snapshot=snapshot)
        release = make_release(product=product.name)
        if product.features:
            part = FeaturesPart(service=product.features.service, definitions_sha256=definitions_sha256(product))
            release = release.model_copy(update={"features": part})
        admitted = AdmittedRelease(
            release=release,
            release_id=release.release_id,
            serving=product.serving_content,
            prompt=product.prompt,
            guardrails=product.guardrails,
            action_policy=None,
            adapter_name="ticket_router@0",
            adapter_path=tmp_path,
        )
        return Served(product, home, asyncio.run(ReleaseLoader(home)(admitted)))

    return run


def test_without_a_serving_yaml_a_request_brings_the_facts(make_product: Make, serve: Any) -> None:
    served = serve(make_product())
    assert served.product.serving.entity == ("Ticket ID",)
    assert served.product.serving.given == ("Product Line",)
    known = served.facts(**{"Ticket ID": "4031", "Product Line": "Boreal", "session": "x"})
    assert (known.entity, known.facts, known.unknown) == ({"Ticket ID": 4031}, {"Product Line": "Boreal"}, ())
    with pytest.raises(InvalidInputError, match=r"has no 'Product Line'\. Send in metadata: Ticket ID, "):
        served.facts(**{"Ticket ID": "4031"})
    with pytest.raises(InvalidInputError, match="metadata 'Ticket ID' is no integer"):
        served.facts(**{"Ticket ID": "mine", "Product Line": "Boreal"})


def test_a_serving_yaml_that_forgets_a_fact_is_refused(make_product: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release would be judged with it and answer every live question without."""
    monkeypatch.setitem(BLOCKS, "serving.yaml", "version: 1.0.0\nentity: [Ticket ID]\n")
    with pytest.raises(ContractError, match=r"serving\.yaml: nothing brings the fact 'Product Line'.*Add it to give"):
        make_product("with lookups")
    monkeypatch.setitem(BLOCKS, "serving.yaml", "version: 1.0.0\nentity: [Ticket ID]\ngiven: [Product Line]\n")
    assert make_product("with lookups").serving.given == ("Product Line",)
    with pytest.raises(ContractError, match="nothing brings the fact 'tickets_7d'"):
        make_product("with lookups", changes={"examples": {"facts": ["Product Line", "tickets_7d"]}})


def test_what_was_learnt_without_a_fact_is_asked_without_it(make_product: Make, serve: Any) -> None:
    may = {"sources": {"tickets": {"nullable": ["Product Line"]}}}
    served = serve(make_product(changes=may))
    assert served.facts(**{"Ticket ID": "4031"}).facts == {"Product Line": None}
    keyed = make_product("with features", changes=may)
    assert (served.product.serving_content.nullable, keyed.serving_content.nullable) == (("Product Line",), None)


def test_features_of_a_request_are_those_of_training_and_too_old_ones_are_none(make_product: Make, serve: Any) -> None:
    product = make_product("with features")
    asked = {"Ticket ID": 4031, "Product Line": "Boreal"}
    known = serve(product).facts(**asked)
    assert (known.facts, known.unknown) == ({"Product Line": "Boreal", "tickets_7d": None}, ("tickets_7d",))
    then = replace(product, serving=product.serving.model_copy(update={"time": ServingTime.FEATURES}))
    known = serve(then).facts(**asked)
    since = AS_OF - timedelta(days=7)
    opened = [one for one in BLOCKS["tickets.csv"].splitlines() if ",Boreal," in one and one[5:15] >= str(since)]
    assert known.facts == {"Product Line": "Boreal", "tickets_7d": len(opened)}
    assert known.unknown == ()
    assert known.features.keys == {"Product Line": "Boreal"}


def test_what_a_table_holds_is_looked_up(make_product: Make, serve: Any) -> None:
    served = serve(make_product("with lookups"))
    known = served.facts(**{"Ticket ID": "4030"})
    row = next(one for one in BLOCKS["tickets.csv"].splitlines() if one.startswith("4030,"))
    assert known.facts == {"Product Line": row.split(",")[3]}
    assert known.entity == {"Ticket ID": 4030}
    assert served.loaded.admitted.serving.spec.deadline_ms == 5000
    with pytest.raises(UnknownEntityError, match="'ticket' holds no row for the Ticket ID"):
        served.facts(**{"Ticket ID": "9999"})


def test_a_time_is_told_live_as_it_was_learnt(
    make_product: Make, prepare: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"examples": {"facts": ["Opened at"]}}
    learnt = load_examples(prepare(make_product(changes=told)), "train")[0]
    assert learnt.prediction_time is not None
    elsewhere = learnt.prediction_time.astimezone(timezone(timedelta(hours=2))).isoformat()
    brought = serve(make_product(changes=told)).facts(**{"Ticket ID": learnt.entity, "Opened at": elsewhere})
    serving = BLOCKS["serving.yaml"].replace("columns: [Product Line, Customer]", "columns: [Opened at]")
    monkeypatch.setitem(BLOCKS, "serving.yaml", serving)
    looked_up = serve(make_product("with lookups", changes=told)).facts(**{"Ticket ID": learnt.entity})
    assert (brought.facts, looked_up.facts) == (learnt.facts, learnt.facts)


def test_a_feature_takes_no_column_of_the_examples_away(
    make_product: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand wherever the column is named, as the label, too."""
    for name in ("product.yaml", "tickets.csv"):
        monkeypatch.setitem(BLOCKS, name, BLOCKS[name].replace("Team", "team"))
    monkeypatch.setitem(BLOCKS, "features.yaml", OWN_HISTORY.replace("last_team: Team", "team: Subject"))
    product, store = make_product("with features", changes={"examples": {"facts": []}}), LocalArtifactStore(tmp_path)
    with pytest.raises(ContractError, match=r"features\.yaml: source 'tickets'.* names of the features team: nobody"):
        make_training_set(product, take_snapshot(product, AS_OF, store), None, store)


def test_a_feature_is_no_time_at_which_a_question_is_asked(make_product: Make, tmp_path: Path) -> None:
    product = make_product("with features", changes={"examples": {"prediction_time": "tickets_7d"}})
    store = LocalArtifactStore(tmp_path / "store")
    with pytest.raises(ContractError, match=r"examples\.prediction_time: there is no column 'tickets_7d'"):
        make_training_set(product, take_snapshot(product, AS_OF, store), None, store)


def test_a_column_that_no_source_has_is_named(make_product: Make) -> None:
    product = make_product("with lookups")
    wrong = replace(product, serving=product.serving.model_copy(update={"given": ("Colour",)}))
    with pytest.raises(ContractError, match="requests are to bring 'Colour', but no source has such a column"):
        _ = wrong.serving_content


def test_the_documented_key_opens_what_the_page_calls(
    make_product: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_product()
    text = DOCUMENT.read_text("utf-8")
    [granting] = set(re.findall(r"`mlp (access grant [^`]+)`", text))
    calls = re.findall(r"^curl -s localhost:8080(\S+) -H .*? -d '(.*?)'$", text, re.MULTILINE | re.DOTALL)
    assert [path for path, _ in calls] == ["/v1/chat/completions", "/v1/outcomes"]
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "served"))
    assert run([*granting.split(), "--json"]) == 0
    headers = {"Authorization": f"Bearer {json.loads(capsys.readouterr().out)['token']}"}
    with running_gateway(tmp_path / "served") as gateway:
        for path, body in calls:
            answer = httpx2.post(gateway.url + path, json=json.loads(body), headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text


@pytest.mark.long
def test_the_documented_product_is_trained_and_evaluated(make_product: Make, prepare: Any, tmp_path: Path) -> None:
    from ml_platform.evaluation.evaluate import Reference, evaluate_candidate, load_report
    from ml_platform.families.lora.train import TrainingRequest, train_candidate
    from ml_platform.gates.assess import assess_release

    product = make_product("with a golden set")
    made = prepare(product)
    store, home = LocalArtifactStore(tmp_path / "store"), Home(tmp_path / "home")
    request = TrainingRequest(
        product=product.name,
        as_of=AS_OF,
        training_set_sha256=made.sha256,
        training=product.spec.training,
        prompt=product.prompt,
    )
    candidate = train_candidate(request, store, home)
    evaluated = evaluate_candidate(product, made, candidate, Reference("base"), [leakage_of(made)], store, home)
    report = load_report(evaluated)
    assert report.measurement("team_accuracy") is not None
    verdicts = {one.gate: one.verdict for one in assess_release(product.promotion_policy, report)}
    assert verdicts["no_leakage"] == "PASS"
    assert verdicts["right_team"] == "INCONCLUSIVE"
