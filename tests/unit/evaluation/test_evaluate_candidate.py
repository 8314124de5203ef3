"""A whole evaluation: what is asked, measured, compared, kept and found again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.example import Example
from ml_platform.contracts.product import PromptSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.release import VersionedPart
from ml_platform.errors import ArtifactCorruptError, ContractError
from ml_platform.evaluation.evaluate import Reference, load_report
from ml_platform.evaluation.items import choose_items, choose_reference_items
from ml_platform.lineage.contents import keep_content
from tests.samples.releases import make_release

Make = Callable[..., Any]


def answers(number: int) -> str:
    return f'{{"intent":"delay_risk","risk":"{"high" if number % 3 == 0 else "low"}","reply":"UA{number} is at risk."}}'


def golden_of(example: Make) -> dict[str, list[Example]]:
    return {kind + end: [example(n, kind) for n in range(12)] for kind, end in (("attack", "s"), ("benign", ""))}


def test_a_perfect_candidate_is_measured_on_every_metric_with_its_uncertainty(
    bench: Any, shop: Product, example: Make
) -> None:
    report = load_report(bench.evaluate(shop, [example(n) for n in range(30)], golden_of(example)))
    for metric in ("json_valid", "intent_accuracy", "risk_accuracy", "all_labels_correct", "grounded"):
        found = report.measurement(metric)
        assert found is not None
        assert (found.value, found.n, found.high) == (1.0, 30, 1.0)
        assert found.low == pytest.approx(0.05 ** (1 / 30))
    late = report.measurement("late_recall")
    assert late is not None
    assert (late.value, late.n) == (1.0, 5)
    for metric in ("attack_refused", "benign_answered"):
        refused = report.measurement(metric)
        assert refused is not None
        assert (refused.value, refused.n) == (1.0, 12)
    cost = report.measurement("cost_per_request_usd")
    assert cost is not None
    assert cost.value == pytest.approx((4 * 0.05 + 5 * 0.2) / 1e6)


def test_what_no_item_can_tell_is_none_and_said_in_a_note(bench: Any, shop: Product, example: Make) -> None:
    report = load_report(bench.evaluate(shop, [example(n) for n in range(30)], {"attacks": [], "benign": []}))
    declined = report.measurement("out_of_scope_refused")
    assert declined is not None
    assert (declined.value, declined.low, declined.high, declined.n) == (None, None, None, 0)
    assert "Out of scope declined" in " ".join(report.notes)


def test_the_candidate_is_compared_on_the_same_items_only(bench: Any, shop: Product, example: Make) -> None:
    def worse(one: Example) -> str:
        number = one.example_id.split("-")[1]
        return "no idea" if one.kind == "answer" and number.endswith(("1", "2")) else answers(int(number))

    report = load_report(bench.evaluate(shop, [example(n) for n in range(30)], golden_of(example), worse))
    compared = next(one for one in report.comparisons if one.metric == "json_valid" and not one.slice)
    assert compared.n == 30
    assert compared.candidate == pytest.approx(0.8)
    assert compared.difference == pytest.approx(-0.2)
    assert compared.p_value == pytest.approx(2 * 0.5**6)
    assert compared.low is not None
    assert compared.low < -0.2 < (compared.high or 0) < 0
    assert compared.detectable is not None
    assert {tuple(one.slice.items()) for one in report.comparisons if one.slice} == {
        (("origin", "EWR"),),
        (("origin", "JFK"),),
    }


def test_losses_that_share_an_entity_prove_less_than_as_many_apart(bench: Any, shop: Product, example: Make) -> None:
    def worse(one: Example) -> str:
        return "no idea" if one.entity.endswith("lost") else answers(int(one.example_id.split("-")[1]))

    def together(number: int) -> Any:
        return example(number, entity=f"UA{number // 10}{'lost' if number % 10 in (1, 2) else ''}")

    report = load_report(bench.evaluate(shop, [together(n) for n in range(30)], golden_of(example), worse))
    compared = next(one for one in report.comparisons if one.metric == "json_valid" and not one.slice)
    assert compared.difference == pytest.approx(-0.2)
    assert compared.p_value is not None
    assert compared.p_value > 0.2


def test_the_same_evaluation_again_asks_no_model_and_gives_the_same_artifact(
    bench: Any, shop: Product, example: Make
) -> None:
    test, golden = [example(n) for n in range(20)], golden_of(example)
    first = bench.evaluate(shop, test, golden)
    asked = list(bench.calls)
    second = bench.evaluate(shop, test, golden)
    assert asked == ["generate", "time_requests", "generate"]
    assert bench.calls == asked
    assert second.reused
    assert second.sha256 == first.sha256


def test_a_candidate_that_applies_the_same_weights_otherwise_is_asked_anew(
    bench: Any, shop: Product, example: Make
) -> None:
    test, golden = [example(n) for n in range(20)], golden_of(example)
    bench.evaluate(shop, test, golden)
    honest = bench.candidate("aaaa")

    def planted(folder: Path) -> dict[str, Any]:
        shutil.copytree(honest.path / "adapter", folder / "adapter")
        (folder / "adapter" / "adapter_config.json").write_text('{"lora_alpha": 800}')
        return dict(honest.facts)

    bench.store.make("candidate", honest.manifest.recipe, planted, lambda _: False)
    bench.calls.clear()
    bench.evaluate(shop, test, golden)
    assert bench.calls == ["generate", "time_requests"]


def test_the_reference_answers_once_for_all_candidates(bench: Any, shop: Product, example: Make) -> None:
    test, release = [example(n) for n in range(20)], bench.candidate("bbbb")
    first = bench.evaluate(shop, test, golden_of(example), against=Reference("f" * 64, release, shop.prompt))
    report = load_report(first)
    assert report.reference == "f" * 64
    assert report.inputs["reference_candidate"] == release.sha256
    bench.calls.clear()
    other = shop.promotion_policy.model_copy(update={"confidence": 0.9})
    changed = Product(**{**vars(shop), "promotion_policy": other})
    again = bench.evaluate(changed, test, golden_of(example), against=Reference("f" * 64, release, shop.prompt))
    assert bench.calls == []
    assert again.sha256 != first.sha256


def test_reports_are_byte_identical_in_another_home(bench: Any, shop: Product, example: Make, tmp_path: Any) -> None:
    elsewhere = type(bench)(type(bench.home)(tmp_path / "elsewhere"))
    test, golden = [example(n) for n in range(20)], golden_of(example)
    assert bench.evaluate(shop, test, golden).sha256 == elsewhere.evaluate(shop, test, golden).sha256


def test_checks_of_the_chain_stand_in_the_report(bench: Any, shop: Product, example: Make) -> None:
    check = CheckResult(check="no_leakage", passed=False, examined=9, problems=("flight 7 <b>leaks</b>",))
    artifact = bench.evaluate(shop, [example(1)], golden_of(example), checks=[check])
    assert load_report(artifact).check("no_leakage") == check
    assert "flight 7 &lt;b&gt;leaks&lt;/b&gt;" in artifact.file("report.html").read_text()


def test_progress_names_each_stage_and_ends_at_one(bench: Any, shop: Product, example: Make) -> None:
    bench.evaluate(shop, [example(n) for n in range(5)], golden_of(example))
    last = {one.stage: one.share for one in bench.progress}
    assert last == {"evaluate candidate": 1.0, "latency": 1.0, "evaluate reference": 1.0}


def test_questions_longer_than_the_guardrails_allow_are_left_out_and_said_so(
    bench: Any, shop: Product, example: Make
) -> None:
    golden = {"attacks": [example(1, "attack", utterance="x" * 501), example(2, "attack")], "benign": []}
    report = load_report(bench.evaluate(shop, [example(n) for n in range(5)], golden))
    found = report.measurement("attack_refused")
    assert found is not None
    assert found.n == 1
    assert any("1 of 2 items of 'attacks' are longer than the 500 characters" in note for note in report.notes)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_text_product_without_anything_else_is_evaluated(
    bench: Any, plain_shop: Product, example: Make, count: int
) -> None:
    test = [example(n, facts={}, slices={}, outcome={}, answer=str(n)) for n in range(count)]
    artifact = bench.evaluate(plain_shop, test, reference=lambda _: "")
    report = load_report(artifact)
    exact = report.measurement("answer_exact")
    assert exact is not None
    assert (exact.value, exact.n) == ((1.0, count) if count else (None, 0))
    assert {one.metric for one in report.measurements} >= {"answer_exact", "tokens_in", "cost_per_request_usd"}
    assert not any(one.metric in ("json_valid", "grounded", "attack_refused") for one in report.measurements)
    if count:
        assert exact.low is not None
        assert exact.low < 0.7
    else:
        assert bench.calls == []
        assert "Nothing could be measured" in artifact.file("report.html").read_text()


def test_a_json_product_with_numbers_as_labels_and_no_text_is_evaluated(
    bench: Any, product_of: Make, example: Make
) -> None:
    product = product_of({"answer_format": "json", "fields": {"stars": {"kind": "label"}}})
    test = [example(n, facts={}, slices={}, outcome={}, answer={"stars": n % 5}) for n in range(12)]
    report = load_report(bench.evaluate(product, test, candidate=lambda _: json.dumps({"stars": 3})))
    found = report.measurement("stars_accuracy")
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(2 / 12), 12)


def test_a_candidate_that_is_never_right_has_no_cost_per_correct_answer(
    bench: Any, plain_shop: Product, example: Make
) -> None:
    report = load_report(bench.evaluate(plain_shop, [example(n, answer="x") for n in range(5)], candidate=lambda _: ""))
    found = report.measurement("cost_per_correct_answer_usd")
    assert found is not None
    assert (found.value, found.n) == (None, 5)


@pytest.mark.parametrize("name", ["base", "f" * 64])
@pytest.mark.parametrize("given", ["the other's", "only a candidate", "only a prompt"])
def test_a_reference_must_be_the_base_or_a_release_with_its_candidate_and_its_prompt(
    bench: Any, shop: Product, example: Make, name: str, given: str
) -> None:
    both = given == "the other's" and name == "base"
    candidate = bench.candidate("bbbb") if both or given == "only a candidate" else None
    wrong = Reference(name, candidate, shop.prompt if both or given == "only a prompt" else None)
    with pytest.raises(ContractError, match="a release needs its own ones"):
        bench.evaluate(shop, [example(1)], golden_of(example), against=wrong)


def test_items_are_a_fair_draw_that_ignores_the_order_of_the_file(example: Make) -> None:
    test = [example(n) for n in range(200)]
    chosen = choose_items(test, {}, 50)
    assert len(chosen) == 50
    assert {item.key for item in chosen} == {item.key for item in choose_items(test[::-1], {}, 50)}
    assert len({item.key for item in choose_items(test + test, {}, 1000)}) == 200
    halves = [int(item.example.example_id.split("-")[1]) < 100 for item in chosen]
    assert 15 <= sum(halves) <= 35


def test_the_reference_answers_only_questions_of_users_that_the_candidate_answered_too(example: Make) -> None:
    items = choose_items([example(n) for n in range(20)], golden_of(example), 100)
    both = choose_reference_items(items, 15)
    assert len(both) == 15
    assert {item.example.kind for item in both} == {"answer"}
    assert {item.key for item in both} <= {item.key for item in items}


def test_a_reference_that_learned_with_another_prompt_is_asked_with_its_own_or_a_note_says_so(
    bench: Any, shop: Product, example: Make
) -> None:
    release = bench.candidate("bbbb", prompt_sha256="0" * 64)
    against = Reference("f" * 64, release, shop.prompt)
    report = load_report(bench.evaluate(shop, [example(1)], golden_of(example), against=against))
    assert any("learned with another prompt (000000000000)" in note for note in report.notes)
    own = bench.candidate("bbbb", prompt_sha256=shop.prompt.sha256)
    against = Reference("f" * 64, own, shop.prompt)
    same = load_report(bench.evaluate(shop, [example(1)], golden_of(example), against=against))
    assert not any("another prompt" in note for note in same.notes)


@pytest.mark.parametrize("damage", ["deleted", "damaged"])
def test_a_release_whose_prompt_was_lost_is_no_reference_for_with_another_prompt_it_would_look_worse(
    bench: Any, shop: Product, damage: str
) -> None:
    weights, own = bench.candidate("bbbb"), PromptSpec(version="0.9.0", system="{facts}\nAnswer as you learned it.")
    made = make_release(product="shop")
    model = made.model.model_copy(update={"candidate_sha256": weights.sha256})
    named = VersionedPart(version=own.version, content_sha256=own.sha256)
    release = made.model_copy(update={"model": model, "prompt": named})
    keep_content(bench.store, own)
    found = Reference.of_release(release, shop, bench.store)
    assert found == Reference(release.release_id, bench.store.open("candidate", weights.sha256), own)

    [file] = (bench.home.artifacts / "prompt").rglob("content.json")
    file.write_text("{}") if damage == "damaged" else shutil.rmtree(file.parent)
    with pytest.raises(ArtifactCorruptError, match=r"prompt .* \(version 0\.9\.0\) of release .* not in the store"):
        Reference.of_release(release, shop, bench.store)
    back = Product(**{**vars(shop), "prompt": own})
    assert Reference.of_release(release, back, bench.store).prompt == own
