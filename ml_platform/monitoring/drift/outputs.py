"""Outputs: whether a release still answers as it did before the window."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.drift import DriftPart
from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField
from ml_platform.contracts.labels import label_text
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.monitoring.drift.columns import Table
from ml_platform.monitoring.drift.distances import Blocks
from ml_platform.monitoring.drift.prompts import blocks_of

if TYPE_CHECKING:
    import pandas as pd

PART = DriftPart.OUTPUTS
UNREADABLE = "(unreadable)"
_ALWAYS = ("input_tokens", "output_tokens", "characters", "errors")


def output_table(
    earlier: Sequence[ProvenanceRecord], now: Sequence[ProvenanceRecord], evaluation: EvaluationSpec
) -> Table:
    """Answers of one release before the window against its answers in it: labels, lengths, errors.

    Training sets are balanced so that every kind of answer is learnt; what a release says of real questions is
    therefore compared with what it said before, and not with what it learnt from. Answers of one user hang together.
    """
    labels = tuple(name for name, field in evaluation.fields.items() if isinstance(field, LabelField))
    sides = [_frame(records, labels) for records in (earlier, now)]
    users = [blocks_of([one.user_sha256 or one.response_id for one in records]) for records in (earlier, now)]
    return Table("answers", sides[0], sides[1], Blocks(users[0], users[1]), (*labels, *_ALWAYS))


def _frame(records: Sequence[ProvenanceRecord], labels: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for record in records:
        fields = _fields(record.answer) if labels else {}
        row: dict[str, Any] = {name: _label(fields, name) for name in labels}
        row |= {"input_tokens": record.input_tokens, "output_tokens": record.output_tokens}
        row |= {"characters": len(record.answer), "errors": "yes" if record.errors else "no"}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*labels, *_ALWAYS])


def _label(fields: dict[str, Any] | None, name: str) -> str:
    value = None if fields is None else fields.get(name)
    return label_text(value) if isinstance(value, str | int | float) else UNREADABLE


def _fields(answer: str) -> dict[str, Any] | None:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
