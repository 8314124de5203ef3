"""The four parts of a drift report, each compared by itself: what cannot be read is an ERROR of its part alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ml_platform.contracts.drift import ColumnDrift, DriftPart, GoldenHealth, PartDrift
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.release import Release
from ml_platform.errors import IntegrityError, SourceDataError
from ml_platform.families.lora.prepare import load_examples
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.monitoring.drift.columns import Table, compare_slices, compare_table, corrected
from ml_platform.monitoring.drift.judging import judge_part
from ml_platform.monitoring.drift.live import Traffic
from ml_platform.monitoring.drift.outputs import output_table
from ml_platform.monitoring.drift.prompts import Prompts, blocks_of, compare_prompts
from ml_platform.monitoring.drift.tables import Window, feature_tables, source_tables
from ml_platform.monitoring.golden import golden_health

LEARNT_FROM = ("train", "validation")


@dataclass(frozen=True)
class ComparedPart:
    """One part: its verdict, its columns, the slices that moved, the tables that were compared, and golden sets."""

    part: PartDrift
    columns: tuple[ColumnDrift, ...] = ()
    slices: tuple[ColumnDrift, ...] = ()
    tables: tuple[Table, ...] = ()
    golden: tuple[GoldenHealth, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything that parts are compared with: the release's data, the day's, live traffic, and the policy."""

    product: Product
    release: Release
    learnt: Artifact
    current: Artifact
    window: Window
    traffic: Traffic
    policy: DriftPolicy
    store: ArtifactStore
    seed: int
    makers: dict[DriftPart, Callable[[], ComparedPart]] = field(init=False)

    def __post_init__(self) -> None:
        makers = {DriftPart.FEATURES: self._features, DriftPart.TABLES: self._tables}
        if self.product.features is None:
            del makers[DriftPart.FEATURES]
        if self.product.serving is not None:
            makers |= {DriftPart.PROMPTS: self._prompts, DriftPart.OUTPUTS: self._outputs}
        object.__setattr__(self, "makers", makers)

    def compare(self, part: DriftPart) -> ComparedPart:
        """One part. Data that is gone or damaged makes it an ERROR, which proves nothing."""
        try:
            return self.makers[part]()
        except (IntegrityError, SourceDataError) as error:
            return ComparedPart(PartDrift(part=part, verdict=Verdict.ERROR, reason=f"could not be compared: {error}"))

    def _features(self) -> ComparedPart:
        tables = feature_tables(self.product, self.learnt, self.current, self.window, self.store)
        return self._compared(DriftPart.FEATURES, tables)

    def _tables(self) -> ComparedPart:
        return self._compared(DriftPart.TABLES, source_tables(self.product, self.learnt, self.current, self.window))

    def _asked(self) -> tuple[ProvenanceRecord, ...]:
        """What was asked in the window. Raises IntegrityError where the store cannot be believed."""
        if self.traffic.damaged:
            raise IntegrityError(self.traffic.damaged)
        return self.traffic.window

    def _outputs(self) -> ComparedPart:
        mine = [one for one in self._asked() if one.release_id == self.release.release_id]
        table = output_table(self.traffic.earlier, mine, self.product.spec.evaluation)
        return self._compared(DriftPart.OUTPUTS, [table])

    def _prompts(self) -> ComparedPart:
        """Also what golden sets cover of the questions: they are the same vectors."""
        made = self.store.open("training_set", self.release.data.training_set_sha256)
        examples = [one for name in LEARNT_FROM for one in load_examples(made, name)]
        wordings = blocks_of([one.phrasing_id or one.example_id for one in examples])
        asked = self._asked()
        users = blocks_of([one.user_sha256 or one.response_id for one in asked])
        learnt = Prompts(tuple(one.utterance for one in examples), wordings)
        live = Prompts(tuple(one.utterance for one in asked), users)
        found = compare_prompts(learnt, live, self.policy, self.store, self.seed)
        golden = golden_health(self.product, made, self.window.until, found.vectors, self.store)
        return ComparedPart(judge_part(DriftPart.PROMPTS, found.columns, self.policy), found.columns, golden=golden)

    def _compared(self, part: DriftPart, tables: Sequence[Table]) -> ComparedPart:
        policy, seed = self.policy, self.seed
        columns = corrected([one for table in tables for one in compare_table(part, table, policy, seed)], policy)
        slices = corrected([one for table in tables for one in compare_slices(part, table, policy, seed)], policy)
        return ComparedPart(judge_part(part, columns, policy), tuple(columns), tuple(slices), tuple(tables))
