"""Planting: a release with the weights of a good one and something bad in the rest of its tuple, opened as a canary.

It carries the good one's verdicts, signed with this home's own key, as if its evaluation had seen nothing wrong:
that is what the fault is about. Outside a demonstration nobody but the chain signs verdicts.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.cli.demonstration.plan import Fault
from ml_platform.cli.demonstration.variant import edited
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.serving import ServingContent
from ml_platform.errors import InvalidInputError, RefusedError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import find_content, keep_content
from ml_platform.lineage.keys import signing_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller

ACTOR = "demo: the planted fault"


@dataclass(frozen=True)
class Planted:
    """The bad release, and which parts of the tuple it changes."""

    release: Release
    parts: tuple[str, ...]


def controller_of(home: Home) -> Controller:
    """The one door of the home's ledger, with the home's keys."""
    from ml_platform.release.assemble import gate_producer

    return Controller(Ledger(home.ledger_url), trusted_keys(home), gate_producer(), trusted_operators(home))


def plant(home: Home, store: ArtifactStore, good: Release, fault: Fault) -> Planted:
    """Registers the good release with the fault in it, and what its evaluation is said to have found.

    Raises InvalidInputError for a fault that changes nothing, RefusedError where a verdict does not let it through.
    """
    release, parts = spoilt(store, good, fault)
    door, now = controller_of(home), datetime.now(UTC)
    replay = door.ledger.replay(good.product)
    policy = replay.policies[good.promotion_policy.content_sha256]
    door.register_release(release, policy, now, ACTOR)
    found = verdicts_of(door, good, now)
    # What it is compared with is what serves: with the same weights, on the same questions, nothing differs.
    inputs = {**found[1], "reference": good.release_id}
    said = door.record_verdicts(release, found[0], inputs, signing_key(home), now, ACTOR)
    if not said.eligible:
        raise RefusedError(f"the planted release is held: {', '.join(said.reasons)}. The good one is not eligible now.")
    return Planted(release, parts)


def verdicts_of(door: Controller, release: Release, now: datetime) -> tuple[list[Any], dict[str, str]]:
    """What the gates found of a release, and on what."""
    from ml_platform.lineage.verification import assess_evidence

    policy = door.ledger.replay(release.product).policies[release.promotion_policy.content_sha256]
    envelopes = door.ledger.envelopes(release.product, release.release_id)
    evidence = assess_evidence(envelopes, door.trusted, policy, release, now).evidence
    return [one.result for one in evidence.values()], dict(next(iter(evidence.values())).inputs)


def spoilt(store: ArtifactStore, good: Release, fault: Fault) -> tuple[Release, tuple[str, ...]]:
    """The good release with other parts, which are kept in the store; and their names."""
    changed: dict[str, VersionedPart] = {}
    if fault.system is not None or fault.padding_times:
        prompt = _found(store, PromptSpec, good.prompt)
        system = f"{fault.padding}\n" * fault.padding_times + (prompt.system if fault.system is None else fault.system)
        changed["prompt"] = _kept(store, prompt.model_copy(update={"system": system, "version": _next(prompt.version)}))
    if fault.guardrails:
        rules = _found(store, GuardrailSpec, good.guardrails)
        other = {**rules.model_dump(mode="json"), **fault.guardrails, "version": _next(rules.version)}
        changed["guardrails"] = _kept(store, GuardrailSpec.parse(other, where="demo.yaml: guardrails"))
    if fault.sources and good.serving is not None:
        changed["serving"] = _kept(store, _spoilt_sources(_found(store, ServingContent, good.serving), fault))
    if not changed:
        raise InvalidInputError(f"the fault '{fault.title}' changes nothing of the release. Correct demo.yaml.")
    return good.model_copy(update=changed), tuple(changed)


def _spoilt_sources(content: ServingContent, fault: Fault) -> ServingContent:
    sources = dict(content.sources)
    for name, edits in fault.sources.items():
        sources[name] = edited(sources.get(name, ""), edits, name)
    spec = content.spec.model_copy(update={"version": _next(content.spec.version)})
    return content.model_copy(update={"sources": sources, "spec": spec})


def _found(store: ArtifactStore, contract: type[Any], part: VersionedPart) -> Any:
    found = find_content(store, contract, part.content_sha256)
    if found is None:
        raise InvalidInputError(f"the store does not hold {contract.__name__} {part.content_sha256[:12]}. Run it anew.")
    return found


def _kept(store: ArtifactStore, content: Any) -> VersionedPart:
    keep_content(store, content)
    version = content.spec.version if isinstance(content, ServingContent) else content.version
    return VersionedPart(version=version, content_sha256=content.sha256)


def _next(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"
