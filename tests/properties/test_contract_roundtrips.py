"""Whatever the values: what is written is read back the same, and the same value has the same bytes."""

import json
from datetime import timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.contracts.base import Contract
from ml_platform.contracts.canonical import canonical_bytes, digest
from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Comparison, Evidence, GateResult, Measurement, Producer
from ml_platform.contracts.example import Example
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.progress import Progress
from ml_platform.contracts.release import (
    CodePart,
    DataPart,
    EnvironmentPart,
    FeaturesPart,
    ModelPart,
    Release,
    VersionedPart,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
sha256 = st.text("0123456789abcdef", min_size=64, max_size=64)
name = st.from_regex(r"\A[a-z][a-z0-9_]{0,20}\Z")
version = st.from_regex(r"\A[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\Z")
share = st.floats(0.001, 1.0)

# Offsets of whole minutes: ISO 8601 has no others, and so has JSON none.
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moment = st.datetimes(timezones=offsets)
of = st.builds

measurement = of(
    Measurement,
    metric=name,
    value=st.none() | finite,
    n=st.integers(0, 10**9),
    low=st.none() | finite,
    high=st.none() | finite,
    unit=text,
    slice=st.dictionaries(text, text, max_size=2),
)
comparison = of(
    Comparison,
    metric=name,
    **dict.fromkeys(("candidate", "reference", "difference", "low", "high", "detectable"), st.none() | finite),
    n=st.integers(0, 10**9),
)
gate_result = of(
    GateResult,
    gate=name,
    claim=text,
    reason=text,
    measurements=st.lists(measurement, max_size=3).map(tuple),
    comparisons=st.lists(comparison, max_size=2).map(tuple),
)
example = of(
    Example,
    example_id=text,
    entity=text,
    prediction_time=st.none() | moment,
    utterance=text,
    facts=st.dictionaries(text, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text, max_size=4),
    answer=text | st.dictionaries(text, plain, max_size=3),
    slices=st.dictionaries(text, text, max_size=2),
    outcome=st.dictionaries(text, st.none() | st.booleans() | finite | text, max_size=2),
)
gate = st.one_of(
    st.fixed_dictionaries({"kind": st.just("check"), "check": name}),
    st.fixed_dictionaries({"kind": st.just("threshold"), "metric": name, "at_least": finite, "min_n": st.integers(1)}),
    st.fixed_dictionaries({"kind": st.just("budget"), "metric": name, "at_most": finite, "min_n": st.integers(1)}),
)
REQUIRED = ("schema_valid", "no_leakage", "not_worse_than_production", "cost_within_budget", "latency_within_budget")


@st.composite
def policies(draw: st.DrawFn) -> PromotionPolicy:
    further = [f"more_{number}" for number in range(draw(st.integers(0, 3)))]
    gates = [{**draw(gate), "gate": found, "claim": draw(text)} for found in (*REQUIRED, *further)]
    steps = sorted(set(draw(st.lists(share, min_size=1, max_size=4))))
    data = {
        "version": draw(version),
        "confidence": draw(st.floats(0.6, 0.99)),
        "evidence_valid_days": draw(st.floats(0.1, 1000)),
        "gates": draw(st.permutations(gates)),
        "canary": {"steps": steps, "min_minutes_per_step": draw(st.floats(0.1, 1000))},
        "quarantine": {"first_hours": draw(st.floats(0.1, 1000)), "for_good_after": draw(st.integers(1, 9))},
    }
    return PromotionPolicy.parse(data, where="a drawn policy")


producer = of(Producer, component=text, version=text, source_sha256=sha256)
evidence = of(
    Evidence,
    product=name,
    release_id=sha256,
    result=gate_result,
    policy_sha256=sha256,
    inputs=st.dictionaries(text, text, max_size=3),
    producer=producer,
    measured_at=moment,
    expires_at=moment,
)
state = of(
    DeploymentState,
    product=name,
    epoch=st.integers(0, 10**9),
    sequence=st.integers(0, 10**9),
    head_sha256=sha256,
    slots=st.dictionaries(st.sampled_from(SlotName), sha256),
    exposure=st.floats(0, 1),
    releases=st.dictionaries(sha256, st.sampled_from(ReleaseState), max_size=3),
)
part = of(VersionedPart, version=version, content_sha256=sha256)
release = of(
    Release,
    product=name,
    data=of(DataPart, as_of=st.dates(), snapshot_sha256=sha256, training_set_sha256=sha256),
    features=st.none() | of(FeaturesPart, service=text, definitions_sha256=sha256),
    model=of(
        ModelPart,
        family=name,
        base_model=text,
        base_sha256=sha256,
        candidate_sha256=sha256,
        adapter_sha256=sha256,
        training=st.dictionaries(text, plain, max_size=3),
        seed=st.integers(0, 2**31),
    ),
    prompt=part,
    guardrails=part,
    action_policy=st.none() | part,
    promotion_policy=part,
    monitor_policy=part,
    upstream_releases=st.lists(sha256, max_size=2).map(tuple),
    code=of(CodePart, version=text, source_sha256=sha256, git_commit=st.none() | text),
    environment=of(EnvironmentPart, python=text, accelerator=text, packages=st.dictionaries(text, text, max_size=2)),
)
contracts = st.one_of(measurement, comparison, gate_result, example, policies(), evidence, state, release)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(contracts)
def test_a_contract_that_is_written_is_read_back_the_same(value: Contract) -> None:
    written = value.canonical_bytes()
    again = type(value).parse(json.loads(written), where="its own bytes")
    assert again == value
    assert again.canonical_bytes() == written
    assert again.sha256 == value.sha256


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(contracts)
def test_a_contract_reads_its_own_dump_whatever_the_types_in_it(value: Contract) -> None:
    assert type(value).parse(value.model_dump(), where="its own dump").canonical_bytes() == value.canonical_bytes()


def reordered(value: Any, draw: st.DataObject) -> Any:
    if isinstance(value, dict):
        keys = draw.draw(st.permutations(sorted(value)))
        return {key: reordered(value[key], draw) for key in keys}
    return [reordered(inner, draw) for inner in value] if isinstance(value, list) else value


@given(plain, st.data())
def test_the_bytes_do_not_depend_on_the_order_of_keys(value: Any, draw: st.DataObject) -> None:
    assert canonical_bytes(reordered(value, draw)) == canonical_bytes(value)


@given(plain, plain)
def test_two_values_share_a_digest_only_when_they_share_their_bytes(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (canonical_bytes(one) == canonical_bytes(other))


@given(plain)
def test_canonical_bytes_are_read_back_to_the_same_bytes(value: Any) -> None:
    assert canonical_bytes(json.loads(canonical_bytes(value))) == canonical_bytes(value)


@given(
    st.from_regex(r"\A[A-Za-z][A-Za-z_-]{0,10}( [a-z]{1,8})?\Z"),
    st.floats(0, 1),
    st.from_regex(r"\A([A-Za-z0-9,/.][A-Za-z0-9,/. ]{0,20}[A-Za-z0-9])?\Z"),
    st.none() | st.floats(0, 1e5),
)
def test_progress_is_understood_as_it_was_told(stage: str, part: float, detail: str, left: float | None) -> None:
    told = Progress(stage, part, detail, left)
    understood = Progress.parse(told.sentence())
    assert understood is not None
    assert understood.sentence() == told.sentence()
    assert (understood.stage, understood.detail) == (stage, detail)
    assert abs(understood.share - part) < 0.0101
    assert (understood.seconds_left is None) == (left is None)
