"""Asking: which questions go to the candidate and to the reference, and what both said."""

from dataclasses import dataclass

from ml_platform.contracts.product import PromptSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Reporter
from ml_platform.contracts.release import Release
from ml_platform.errors import ArtifactCorruptError
from ml_platform.evaluation.generation import Model, OpenPredictor, candidate_of, generate_answers, time_requests
from ml_platform.evaluation.items import TEST, Item, choose_items, choose_reference_items, sample
from ml_platform.families.lora.prepare import load_examples
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.lineage.contents import find_content

BASE = "base"
"""The name of the reference where no release is in production: the bare base model."""


@dataclass(frozen=True)
class Reference:
    """What a candidate is compared with: `base` for the bare base model, or a release by its id.

    `prompt` is the prompt of that release. With another one it would do worse than it does for users, and whatever it
    is compared with would look better: there is no default.
    """

    name: str
    candidate: Artifact | None = None
    prompt: PromptSpec | None = None

    @classmethod
    def of_release(cls, release: Release, product: Product, store: ArtifactStore) -> "Reference":
        """A release with its weights and its prompt. Raises ArtifactCorruptError where they are not in the store."""
        named, release_id = release.prompt, release.release_id
        kept = find_content(store, PromptSpec, named.content_sha256)
        prompt = product.prompt if kept is None and product.prompt.sha256 == named.content_sha256 else kept
        if prompt is None:
            raise ArtifactCorruptError(
                f"the prompt {named.content_sha256[:12]} (version {named.version}) of release {release_id[:12]}, "
                "which the candidate is to be compared with, is not in the store. Restore it, or put that prompt back "
                "into the product's folder until it is kept again: with another one the comparison proves nothing."
            )
        return cls(release_id, store.open("candidate", release.model.candidate_sha256), prompt)


@dataclass(frozen=True)
class Asked:
    """What was asked of whom, and the artifacts that hold what they said."""

    items: tuple[Item, ...]
    compared: tuple[Item, ...]
    notes: tuple[str, ...]
    answers: Artifact
    reference_answers: Artifact
    latencies: Artifact


def ask(
    product: Product,
    training_set: Artifact,
    candidate: Artifact,
    reference: Reference,
    store: ArtifactStore,
    report: Reporter,
    opener: OpenPredictor,
) -> Asked:
    """Has both models answer. The candidate's latency is taken while it is in memory, before the reference is."""
    spec = product.spec.evaluation
    items, notes = _items(product, training_set)
    compared = choose_reference_items(items, spec.max_reference_examples)
    timed = sample([item for item in items if item.example.kind == "answer"], spec.latency_requests)
    model = Model.of_candidate(candidate, product.prompt)
    other, doubts = _reference_model(product, candidate, reference)
    return Asked(
        items=items,
        compared=compared,
        notes=(*notes, *doubts),
        answers=generate_answers("candidate_answers", model, items, spec.decoding, store, opener, report),
        latencies=time_requests(model, timed, spec.decoding, store, opener, report),
        reference_answers=generate_answers("reference_answers", other, compared, spec.decoding, store, opener, report),
    )


def _items(product: Product, training_set: Artifact) -> tuple[tuple[Item, ...], list[str]]:
    """The items that can be asked, and in words what was left out."""
    spec, limit = product.spec.evaluation, product.guardrails.max_utterance_characters
    sets = {TEST: load_examples(training_set, TEST)}
    sets |= {name: load_examples(training_set, f"golden/{name}") for name in spec.golden_sets}
    notes = []
    for name, examples in sets.items():
        short = [example for example in examples if len(example.utterance) <= limit]
        if len(short) < len(examples):
            notes.append(
                f"{len(examples) - len(short)} of {len(examples)} items of '{name}' are longer than the "
                f"{limit} characters that the guardrails let through; they are not counted."
            )
        if len(short) > spec.max_test_examples:
            notes.append(f"{spec.max_test_examples} of {len(short)} items of '{name}' were drawn by hash.")
        sets[name] = short
    return choose_items(sets.pop(TEST), sets, spec.max_test_examples), notes


def _reference_model(product: Product, candidate: Artifact, reference: Reference) -> tuple[Model, list[str]]:
    """What the candidate is compared with, behind its own prompt; a note says where it learned with another one."""
    prompt = reference.prompt
    if reference.candidate is None or prompt is None:
        made = candidate_of(candidate)
        return Model(made.base_model, made.base_sha256, None, product.prompt), []
    trained_with = str(reference.candidate.manifest.recipe.get("prompt_sha256", prompt.sha256))
    doubt = (
        f"Release {reference.name[:12]} learned with another prompt ({trained_with[:12]}) than the one that it was "
        f"asked with ({prompt.sha256[:12]}); it may do better with its own."
    )
    return Model.of_candidate(reference.candidate, prompt), [doubt] if trained_with != prompt.sha256 else []
