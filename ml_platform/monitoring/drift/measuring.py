"""One column on its two sides: what is filled, what is missing, and how far they are apart; pure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.evaluation.drawing import shortened
from ml_platform.monitoring.drift.distances import (
    Blocks,
    Found,
    Integers,
    Numbers,
    effective_rows,
    kolmogorov_smirnov,
    population_stability,
    resemblance_of_categories,
    resemblance_of_numbers,
    wasserstein,
)

if TYPE_CHECKING:
    import pandas as pd

NAMES_FROM = 50
"""Text with more distinct values than this, and than half of its rows, names rows."""
RARE = 0.01
"""Categories with a smaller share on both sides count as one."""
NEW_SHOWN, LONGEST_NAME = 5, 80
SETTLED = 1e-9
"""Smaller than any alpha after correction for as many columns as anybody has."""


@dataclass(frozen=True)
class Side:
    """The drawn rows of one column on one side: numbers or labels, with a mask of what is missing or not finite.

    `known` are all labels of the whole column, also of rows that were not drawn, and `labelled` is how many of its rows
    have one; none for numbers.
    """

    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_]
    block: Integers | None
    numeric: bool
    known: frozenset[str] = frozenset()
    labelled: int = 0

    @property
    def rows(self) -> int:
        """Rows that were drawn."""
        return len(self.values)

    @property
    def filled(self) -> int:
        """Rows that hold something."""
        return int((~self.missing).sum())

    @property
    def filled_values(self) -> npt.NDArray[Any]:
        """What they hold."""
        return self.values[~self.missing]

    @property
    def names_rows(self) -> bool:
        """Whether its text names rows and says nothing of their kind; however many of them were drawn."""
        return len(self.known) > max(NAMES_FROM, self.labelled / 2)

    @property
    def filled_block(self) -> Integers | None:
        """The blocks of the rows that hold something."""
        return None if self.block is None else self.block[~self.missing]


def side_of(column: "pd.Series", drawn: Integers, block: Integers | None, *, numeric: bool) -> Side:
    """A column as numbers or as labels; what cannot be read as a number is missing."""
    here = column.iloc[drawn]
    blocks = None if block is None else block[drawn]
    if numeric:
        numbers = numbers_of(here)
        return Side(numbers, ~np.isfinite(numbers), blocks, numeric=True)
    missing = here.isna().to_numpy(dtype=bool)
    labels = here.astype("object").astype(str).to_numpy(dtype=object)
    whole = column.dropna()
    known = frozenset(str(value) for value in whole.unique())
    return Side(labels, missing, blocks, numeric=False, known=known, labelled=len(whole))


def numbers_of(column: "pd.Series") -> Numbers:
    """A column as numbers, NaN where it is empty or holds what is none: its type may have changed since."""
    import pandas as pd

    plain = column if pd.api.types.is_numeric_dtype(column) else pd.to_numeric(column, errors="coerce")
    numbers: Numbers = plain.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def is_numeric(reference: "pd.Series", current: "pd.Series") -> bool:
    """Whether a column holds numbers, as the reference has it; as the current rows do where that is empty."""
    import pandas as pd

    decides = reference if reference.notna().any() else current
    return bool(pd.api.types.is_numeric_dtype(decides)) and not bool(pd.api.types.is_bool_dtype(decides))


def measure_missing(reference: Side, current: Side) -> Found | None:
    """How the share of empty cells moved; None where no cell is empty on either side."""
    codes = [side.missing.astype(np.int64) for side in (reference, current)]
    if not any(code.any() for code in codes):
        return None
    return _stability(codes[0], codes[1], 2, Blocks(reference.block, current.block))


def measure_number(reference: Side, current: Side, policy: DriftPolicy) -> tuple[dict[str, Found], dict[str, Any]]:
    """Both distances of a number, and what to show of it."""
    left, right = reference.filled_values, current.filled_values
    blocks = Blocks(reference.filled_block, current.filled_block)
    resemblance = max(
        resemblance_of_numbers(left, blocks.of_reference), resemblance_of_numbers(right, blocks.of_current)
    )
    n = effective_rows(len(left), resemblance, blocks.of_reference)
    m = effective_rows(len(right), resemblance, blocks.of_current)
    rows = n * m / (n + m)
    apart = kolmogorov_smirnov(left, right, rows)
    # Where that is beyond all doubt, the simulation behind the other's p-value would change nothing.
    settled = apart.effect >= policy.ks and apart.p_value <= SETTLED
    moved = wasserstein(left, right, rows, np.inf if settled else policy.wasserstein)
    return {"ks": apart, "wasserstein": moved}, {"reference_value": _summary(left), "current_value": _summary(right)}


def measure_category(reference: Side, current: Side) -> tuple[dict[str, Found], dict[str, Any]]:
    """PSI of a column of categories, and what to show of it; nothing found where both sides hold one and the same."""
    left, right = (_labels(side) for side in (reference, current))
    names, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    blocks = Blocks(reference.filled_block, current.filled_block)
    shown: dict[str, Any] = {"reference_value": _commonest(left), "current_value": _commonest(right)}
    if not reference.numeric:
        new = np.fromiter((label not in reference.known for label in right), bool, len(right))
        if new.any():
            fresh, counts = np.unique(right[new], return_counts=True)
            first = fresh[np.argsort(-counts, kind="stable")][:NEW_SHOWN]
            shown |= {
                "new_values": tuple(shortened(str(one), LONGEST_NAME) for one in first),
                "new_share": float(new.mean()),
            }
    if len(names) < 2:
        return {}, shown
    pooled, kinds = _without_rare(codes, len(left), len(names))
    return {"psi": _stability(pooled[: len(left)], pooled[len(left) :], kinds, blocks)}, shown


def _labels(side: Side) -> npt.NDArray[Any]:
    """What a column holds as text; of objects, for numpy's own text gives every cell the room of the longest."""
    return side.filled_values.astype(str).astype(object) if side.numeric else side.filled_values


def _stability(reference: Integers, current: Integers, categories: int, blocks: Blocks) -> Found:
    resemblance = max(
        resemblance_of_categories(reference, categories, blocks.of_reference),
        resemblance_of_categories(current, categories, blocks.of_current),
    )
    n = effective_rows(len(reference), resemblance, blocks.of_reference)
    m = effective_rows(len(current), resemblance, blocks.of_current)
    left, right = (np.bincount(codes, minlength=categories) for codes in (reference, current))
    return population_stability(left, right, n * m / (n + m), 1.0 / n + 1.0 / m)


def _without_rare(codes: Integers, size: int, names: int) -> tuple[Integers, int]:
    """The codes with all rare categories as one, and how many there are now."""
    left = np.bincount(codes[:size], minlength=names) / max(1, size)
    right = np.bincount(codes[size:], minlength=names) / max(1, len(codes) - size)
    rare = (left < RARE) & (right < RARE)
    if rare.sum() < 2:
        return codes, names
    place = np.where(rare, 0, np.cumsum(~rare))
    _, pooled = np.unique(place[codes], return_inverse=True)
    return pooled, int(pooled.max()) + 1


def _summary(numbers: Numbers) -> str:
    low, middle, high = np.quantile(numbers, [0.1, 0.5, 0.9])
    mean = float((numbers / len(numbers)).sum())
    return f"median {middle:.4g}, mean {mean:.4g}, 80 % within {low:.4g} to {high:.4g}"


def _commonest(labels: npt.NDArray[Any]) -> str:
    names, counts = np.unique(labels, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:4]
    return ", ".join(
        f"{shortened(str(names[place]), LONGEST_NAME)} {counts[place] / len(labels):.0%}" for place in first
    )
