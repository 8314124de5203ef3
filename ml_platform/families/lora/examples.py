"""Examples: rows of a snapshot become questions with facts and answers, by a hook or by templates."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.product import ExamplesSpec, TextField
from ml_platform.contracts.products import Product
from ml_platform.errors import ContractError, MlPlatformError, SourceDataError
from ml_platform.families.lora.templates import Template, nearest_hint
from ml_platform.lineage.artifacts import Artifact
from ml_platform.snapshots.extract import load_table, manifest_of
from ml_platform.snapshots.spelling import plain, row_name, spoken

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Drawn", "ExamplesContext", "Join", "draw_examples", "feature_names", "plain"]

Join = Callable[["pd.DataFrame"], "pd.DataFrame"]
"""Rows of entity columns and `event_timestamp` in, the same rows with the features known at that moment out."""


@dataclass(frozen=True)
class ExamplesContext:
    """What a product's examples are made of; the hook is called as `build(context) -> list[Example]`."""

    product: Product
    snapshot: Artifact
    max_examples: int
    seed: int
    join_features: Join | None
    aside: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def as_of(self) -> date:
        """The day of the snapshot."""
        return manifest_of(self.snapshot).as_of

    @property
    def cutoff(self) -> datetime:
        """The moment up to which the snapshot sees, UTC."""
        return manifest_of(self.snapshot).cutoff

    def table(self, name: str) -> "pd.DataFrame":
        """A table of the snapshot: only what was known at the cutoff."""
        return load_table(self.snapshot, name)

    def join(self, entities: "pd.DataFrame") -> "pd.DataFrame":
        """The rows of `entities` with every feature as known at their `event_timestamp`, in the same order.

        Raises ContractError when the product declares no features.
        """
        if self.join_features is None:
            raise ContractError(
                f"{self.product.name}: the examples ask for features, but product.yaml names none. "
                "Add files.features, or make the examples from tables alone."
            )
        return self.join_features(entities)

    def taught(self) -> list[Example]:
        """Questions that were really asked, with the answers that users and labellers said would have been right.

        Their slices are empty. A hook that wants them returns them beside its own; of what it leaves out, `set_aside`
        keeps the reason.
        """
        from ml_platform.families.lora.taught import taught_examples

        return taught_examples(self)

    def set_aside(self, said_id: str, reason: str) -> None:
        """Takes out what somebody said, or the example with that id, and keeps why."""
        self.aside[said_id] = reason

    def order(self, name: str) -> str:
        """Where a hash with the seed puts a name: a fair draw that no order of rows can change."""
        return hashlib.sha256(f"{self.seed}\n{name}".encode()).hexdigest()


@dataclass(frozen=True)
class Drawn:
    """Examples, and how many rows gave none, by reason."""

    examples: list[Example]
    left_out: Counter[str]


def draw_examples(context: ExamplesContext) -> Drawn:
    """The product's examples by its hook or its templates, at most `max_examples` of them from templates.

    Raises ContractError for templates and facts that name no column, SourceDataError for a failing hook.
    """
    spec = context.product.spec.examples
    if spec.hook:
        return Drawn(_by_hook(context, spec.hook), Counter())
    drawn = _RowReader(context, spec).draw()
    return Drawn([*drawn.examples, *context.taught()], drawn.left_out)


def _by_hook(context: ExamplesContext, reference: str) -> list[Example]:
    try:
        made = list(context.product.hook(reference)(context))
    except MlPlatformError:
        raise
    except Exception as error:
        raise SourceDataError(
            f"hook {reference} of {context.product.name} raised {type(error).__name__}: {error}. "
            "Correct the hook or its input."
        ) from error
    strange = next((one for one in made if not isinstance(one, Example)), None)
    if strange is not None:
        raise SourceDataError(
            f"hook {reference} of {context.product.name} returned a {type(strange).__name__}, expected only Examples."
        )
    return made


class _RowReader:
    """Makes examples from one source as product.yaml says; each row gives one example or a reason why not."""

    def __init__(self, context: ExamplesContext, spec: ExamplesSpec) -> None:
        self.context, self.spec = context, spec
        product, source = context.product, spec.source or ""
        self.where = f"{product.folder / 'product.yaml'}: examples"
        if source not in product.spec.sources:
            raise ContractError(
                f"{self.where}.source: there is no source '{source}': {nearest_hint(source, [*product.spec.sources])}"
            )
        self.features = feature_names(product.features) if product.features else ()
        own = tuple(product.spec.sources[source].columns)
        self.columns = (*own, *self.features)
        for key, named, known in (
            ("entity", spec.entity, self.columns),
            ("prediction_time", spec.prediction_time, own),
            *(("facts", name, self.columns) for name in spec.facts),
            *(("slices", name, self.columns) for name in spec.slices),
        ):
            if named is not None and named not in known:
                hint = nearest_hint(named, known)
                raise ContractError(f"{self.where}.{key}: there is no column '{named}': {hint}")
        self.utterance = self._template("utterance", spec.utterance or "")
        self.answer = self._answer_templates(spec.answer or "")

    def draw(self) -> Drawn:
        """Rows in the order of a hash until enough of them gave an example."""
        key = self.context.product.spec.sources[self.spec.source or ""].key
        rows = [
            {str(name): plain(value) for name, value in row.items()}
            for row in self._joined(self.context.table(self.spec.source or "")).to_dict("records")
        ]
        named = sorted(
            ((row_name([row[column] for column in key]), row) for row in rows),
            key=lambda pair: self.context.order(pair[0]),
        )
        examples: list[Example] = []
        left_out: Counter[str] = Counter()
        for name, row in named:
            if len(examples) == self.context.max_examples:
                left_out["beyond max_examples"] = len(rows) - len(examples) - left_out.total()
                break
            reason = self._reason_against(row)
            if reason:
                left_out[reason] += 1
            else:
                examples.append(self._example(name, row))
        return Drawn(examples, left_out)

    def _joined(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The table with its features as known at each row's prediction time, where the templates use any."""
        templates = (*self.utterance.columns, *(name for one in self.answer.values() for name in one.columns))
        if not set(self.features) & {*templates, *self.spec.facts, *self.spec.slices}:
            return frame
        time, features = self.spec.prediction_time, self.context.product.features
        if time is None or features is None:
            raise ContractError(
                f"{self.where}: features need a prediction_time, the column that tells when the question is asked."
            )
        entity = sorted({column for view in features.views.values() for column in view.entity})
        missing = [column for column in entity if column not in frame.columns]
        if missing:
            raise ContractError(
                f"{self.where}: the features are about {', '.join(entity)}, but source '{self.spec.source}' has no "
                f"column {', '.join(missing)}. Add it to the source, or name the entity of the view as the source does."
            )
        asked = frame[frame[time].notna()].reset_index(drop=True)
        joined = self.context.join(asked[entity].assign(event_timestamp=asked[time]))
        return asked.assign(**{name: joined[name].to_numpy() for name in self.features})

    def _reason_against(self, row: Mapping[str, Any]) -> str:
        if not self.utterance.text(row).strip():
            return "empty utterance"
        if self.spec.entity is not None and not spoken(row[self.spec.entity]).strip():
            return f"empty {self.spec.entity}"
        for name, template in self.answer.items():
            if not template.text(row).strip():
                return f"empty answer {name}".strip()
        time = self.spec.prediction_time
        if time is not None and row[time] is None:
            return f"empty {time}"
        if time is not None and row[time] >= self.context.cutoff:
            return f"{time} after the cutoff"
        return ""

    def _example(self, name: str, row: Mapping[str, Any]) -> Example:
        facts = {column: _fact(row[column]) for column in self.spec.facts}
        return Example(
            example_id=f"{self.spec.source}/{name}",
            entity=spoken(row[self.spec.entity or ""]),
            prediction_time=row[self.spec.prediction_time] if self.spec.prediction_time else None,
            utterance=self.utterance.text(row),
            facts=facts,
            answer=self._answer(row, facts),
            slices={column: spoken(row[column]) or "none" for column in self.spec.slices},
        )

    def _answer(self, row: Mapping[str, Any], facts: Mapping[str, FactValue]) -> dict[str, Any] | str:
        if isinstance(self.spec.answer, str):
            return self.answer[""].text(row)
        fields, policy = self.context.product.spec.evaluation.fields, self.context.product.action_policy
        found = {
            name: template.text(row) if isinstance(fields.get(name), TextField) else template.value(row)
            for name, template in self.answer.items()
        }
        if policy is not None and policy.field in fields and policy.field not in found:
            found[policy.field] = policy.level(dict(facts))
        return found

    def _answer_templates(self, answer: Mapping[str, str] | str) -> dict[str, Template]:
        fields = {"": answer} if isinstance(answer, str) else answer
        return {name: self._template(f"answer.{name}".rstrip("."), text) for name, text in fields.items()}

    def _template(self, key: str, text: str) -> Template:
        return Template.parse(text, self.columns, f"{self.where}.{key}")


def feature_names(features: FeatureSpec) -> tuple[str, ...]:
    """Every feature of a product, in the order of features.yaml."""
    return tuple(name for view in features.views.values() for name in (*view.aggregates, *view.columns))


def _fact(value: Any) -> FactValue:
    return value if value is None or isinstance(value, str | int | float | bool) else spoken(value)
