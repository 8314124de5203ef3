"""Skew: what serving read and logged, replayed against the point-in-time join that training learns from."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import FeaturesRead, ProvenanceRecord, Scalar
from ml_platform.contracts.source import ColumnType
from ml_platform.features.definitions import EVENT_TIME, checked_features, entity_types
from ml_platform.features.join import join_features
from ml_platform.features.lookups import finite
from ml_platform.lineage.artifacts import Artifact

if TYPE_CHECKING:
    import pandas as pd

RELATIVE_TOLERANCE = 1e-9
EXAMPLES = 3
READINGS_A_JOIN = 20_000

Computable = Callable[[ProvenanceRecord], "Source | str"]
"""Finds what a record's features are to be compared with, or says why nothing can be."""


@dataclass(frozen=True)
class Source:
    """The product by the definitions of a release, and the features that were online."""

    product: Product
    features: Artifact


@dataclass(frozen=True)
class Divergence:
    """One value that serving logged and that the join does not give."""

    response_id: str
    keys: Mapping[str, int | str]
    logged: Scalar | None
    joined: Scalar | None
    event_at: datetime | None
    read_at: datetime
    published_at: datetime | None


@dataclass
class FeatureSkew:
    """How often a feature was compared, and how often it was not what the join gives.

    `outdated` values are right for their publication, but by the time of reading something newer was known: the
    publication was late. They are no mismatches.
    """

    n: int = 0
    mismatches: int = 0
    outdated: int = 0
    examples: list[Divergence] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The share of values that do not match; 0 where nothing was compared."""
        return self.mismatches / self.n if self.n else 0.0


@dataclass
class SkewReport:
    """What a replay found. `not_compared` counts the records that could not be, by the reason."""

    product: str
    records: int = 0
    compared: int = 0
    not_compared: Counter[str] = field(default_factory=Counter)
    features: dict[str, FeatureSkew] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many values were compared."""
        return sum(one.n for one in self.features.values())

    @property
    def rate(self) -> float | None:
        """The share of all values that do not match; None where nothing was compared, which is no good news."""
        return sum(one.mismatches for one in self.features.values()) / self.n if self.n else None


@dataclass(frozen=True)
class _Logged:
    response_id: str
    read: FeaturesRead


def replay_features(product: str, records: Iterable[ProvenanceRecord], source_of: Computable, home: Home) -> SkewReport:
    """Compares every logged feature value with the join of the same entity, as of the moment at which it was read.

    The join sees nothing that became known later. Text, integers and truth values must be equal, numbers to
    RELATIVE_TOLERANCE. Memory holds READINGS_A_JOIN records at a time. Records without features are passed over.
    """
    report = SkewReport(product)
    waiting: dict[tuple[str, str], tuple[Source, list[_Logged]]] = {}
    for record in records:
        report.records += 1
        if record.features is None:
            report.not_compared["no features were read"] += 1
            continue
        source = source_of(record)
        if isinstance(source, str):
            report.not_compared[source] += 1
            continue
        name = (record.features.definitions_sha256, source.features.sha256)
        _, logged = waiting.setdefault(name, (source, []))
        logged.append(_Logged(record.response_id, record.features))
        if len(logged) == READINGS_A_JOIN:
            _compare(report, *waiting.pop(name), home)
    for source, logged in waiting.values():
        _compare(report, source, logged, home)
    report.features = dict(sorted(report.features.items()))
    return report


def _compare(report: SkewReport, source: Source, logged: Sequence[_Logged], home: Home) -> None:
    """Joins as of the reading; for what differs also as of the publication, which tells late from wrong."""
    spec = checked_features(source.product)
    joined = list(_joined(source, logged, [one.read.read_at for one in logged], home))
    differing = [
        number
        for number, (one, row) in enumerate(zip(logged, joined, strict=True))
        if any(_differs(one.read, name, row[name]) for name in spec.feature_names)
    ]
    moments = [logged[number].read.published_at or logged[number].read.read_at for number in differing]
    published = _joined(source, [logged[number] for number in differing], moments, home)
    as_published = dict(zip(differing, published, strict=True))
    report.compared += len(logged)
    for number, (one, row) in enumerate(zip(logged, joined, strict=True)):
        for name in spec.feature_names:
            _count(report.features.setdefault(name, FeatureSkew()), one, name, row, as_published.get(number), spec)


def _count(
    skew: FeatureSkew,
    logged: _Logged,
    name: str,
    joined: Mapping[str, Scalar | None],
    published: Mapping[str, Scalar | None] | None,
    spec: FeatureSpec,
) -> None:
    read = logged.read
    skew.n += 1
    if not _differs(read, name, joined[name]):
        return
    if published is not None and _is_outdated(read, name, published[name], _ttl(spec, name)):
        skew.outdated += 1
        return
    skew.mismatches += 1
    if len(skew.examples) < EXAMPLES:
        skew.examples.append(
            Divergence(
                response_id=logged.response_id,
                keys=read.keys,
                logged=read.values.get(name),
                joined=joined[name],
                event_at=read.event_at.get(name),
                read_at=read.read_at,
                published_at=read.published_at,
            )
        )


def _differs(read: FeaturesRead, name: str, joined: Scalar | None) -> bool:
    """Whether serving logged another value, none at all, or one of an event that lay ahead."""
    event = read.event_at.get(name)
    return (
        name not in read.values or not same_value(read.values[name], joined) or (event or read.read_at) > read.read_at
    )


def _is_outdated(read: FeaturesRead, name: str, published: Scalar | None, ttl: timedelta | None) -> bool:
    """Whether the value is what a right reader reads from the publication: what it held, unless too old by then."""
    event = read.event_at.get(name)
    if read.published_at is None or (event is not None and event > read.published_at):
        return False
    fresh = event is None or ttl is None or read.read_at - event <= ttl
    return same_value(read.values.get(name), published if fresh else None)


def same_value(logged: Scalar | None, joined: Scalar | None) -> bool:
    """Whether two values are the same: exactly, and numbers with a fraction up to RELATIVE_TOLERANCE."""
    if logged is None or joined is None or isinstance(logged, bool | str) or isinstance(joined, bool | str):
        return type(logged) is type(joined) and logged == joined
    if isinstance(logged, int) and isinstance(joined, int):
        return logged == joined
    return math.isclose(logged, joined, rel_tol=RELATIVE_TOLERANCE)


def _ttl(spec: FeatureSpec, name: str) -> timedelta | None:
    (hours,) = (view.ttl_hours for view in spec.views.values() if name in view.feature_names)
    return None if hours is None else timedelta(hours=hours)


def _joined(
    source: Source, logged: Sequence[_Logged], moments: Sequence[datetime], home: Home
) -> Iterator[dict[str, Scalar | None]]:
    """For each reading the features of its entity as they were known at its moment, as plain values."""
    if not logged:
        return
    joined = join_features(source.product, source.features, _asked(source.product, logged, moments), home)
    columns = {name: joined[name].astype(object) for name in checked_features(source.product).feature_names}
    plain = {name: column.where(column.notna(), None).tolist() for name, column in columns.items()}
    for number in range(len(logged)):
        yield {name: finite(values[number]) for name, values in plain.items()}


def _asked(product: Product, logged: Sequence[_Logged], moments: Sequence[datetime]) -> "pd.DataFrame":
    import pandas as pd

    columns = {
        name: pd.Series(
            [one.read.keys.get(name) for one in logged], dtype="Int64" if kind is ColumnType.INTEGER else "object"
        )
        for name, kind in entity_types(product).items()
    }
    return pd.DataFrame({**columns, EVENT_TIME: pd.to_datetime(list(moments), utc=True)})
