"""The table of what was said of answers: the one source that may be empty, for a product begins without any."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.contracts.products import Product
from ml_platform.contracts.source import AnsweredSpec
from ml_platform.snapshots.readers import RawTable

if TYPE_CHECKING:
    from ml_platform.lineage.answered import AnswerHistory


def read_answered(
    product: Product, name: str, spec: AnsweredSpec, history: "AnswerHistory | None", cutoff: datetime
) -> RawTable:
    """What was said of a product's answers and known at the cutoff, in the order of its id.

    Whether it can teach is not judged here, so that a snapshot tells everything that people said. Raises StorageError
    when the store does not answer.
    """
    rows = []
    if history is not None:
        age = timedelta(hours=product.monitor_policy.label_age_hours)
        rows = history.rows(product.name, spec, product.serving.time, age, cutoff)
    columns = {column: [getattr(row, column) for row in rows] for column in spec.columns}
    return RawTable(
        f"source '{name}' (answers of {product.name})",
        "objects",
        columns,
        np.arange(1, len(rows) + 1),
        lambda index: {column: values[index] for column, values in columns.items()},
    )
