"""Declared examples: rows of one source become questions with facts and answers, by the templates of product.yaml."""

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.evaluation_spec import LabelField, TextField
from ml_platform.contracts.example import Example, FactValue
from ml_platform.contracts.product import ExamplesSpec
from ml_platform.contracts.serving import LONGEST_BROUGHT
from ml_platform.errors import ContractError
from ml_platform.families.lora.examples import BEYOND_MAXIMUM, Drawn, ExamplesContext
from ml_platform.families.lora.templates import Template, nearest_hint
from ml_platform.snapshots.spelling import plain, row_name, spoken

if TYPE_CHECKING:
    import pandas as pd

JUST_BEFORE = timedelta(microseconds=1)
"""Sources tell times to the microsecond."""


def declared_examples(context: ExamplesContext) -> Drawn:
    """The examples of a product without a hook, at most `max_examples`.

    Raises ContractError for templates and facts that name no column, and for a label that the question shows.
    """
    return _RowReader(context, context.product.spec.examples).draw()


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
        self.features = product.features.feature_names if product.features else ()
        own = tuple(product.spec.sources[source].columns)
        if taken := sorted(set(own) & set(self.features)):
            raise ContractError(
                f"{product.folder / (product.spec.files.features or 'features.yaml')}: source '{source}', of which "
                f"examples are made, has columns with the names of the features {', '.join(taken)}: nobody could tell "
                "which is meant. Rename the features."
            )
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
        self.brought = [one for one in (*product.serving.entity, *product.serving.given) if one in own]
        self.utterance = self._template("utterance", spec.utterance or "")
        self.answer = self._answer_templates(spec.answer or "")
        self._require_untold()

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
                left_out[BEYOND_MAXIMUM] = len(rows) - len(examples) - left_out.total()
                break
            reason = self._reason_against(row)
            if reason:
                left_out[reason] += 1
            else:
                examples.append(self._example(name, row))
        return Drawn(examples, left_out)

    def _require_untold(self) -> None:
        """Refuses a label that the question shows already: every answer would be copied, and every gate would pass."""
        fields = self.context.product.spec.evaluation.fields
        for name, template in self.answer.items():
            judged_whole = isinstance(fields.get(name), LabelField) or (not fields and len(template.parts) == 1)
            if judged_whole and template.is_told_by(self.utterance, self.spec.facts):
                key = f"{self.where}.answer.{name}".rstrip(".")
                raise ContractError(
                    f"{key}: the question already shows '{', '.join(template.columns)}', so there is nothing to learn. "
                    "Take it out of facts and utterance."
                )

    def _joined(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The table with its features as known when each row was asked, where the templates use any.

        That is just before the row's prediction time: asking is what makes the row, and who asks live has none yet.
        A row that becomes known at that very moment, with the answer in it, must not be among its own features.
        """
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
        joined = self.context.join(asked[entity].assign(event_timestamp=asked[time] - JUST_BEFORE))
        return asked.assign(**{name: joined[name].to_numpy() for name in self.features})

    def _reason_against(self, row: Mapping[str, Any]) -> str:
        if not self.utterance.text(row).strip():
            return "empty utterance"
        if self.spec.entity is not None and not spoken(row[self.spec.entity]).strip():
            return f"empty {self.spec.entity}"
        for column in self.brought:
            if isinstance(row[column], str) and len(row[column]) > LONGEST_BROUGHT:
                return f"{column} longer than the {LONGEST_BROUGHT} characters that a request may bring"
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


def _fact(value: Any) -> FactValue:
    return value if value is None or isinstance(value, str | int | float | bool) else spoken(value)
