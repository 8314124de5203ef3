"""What was seen of a rollout, or of production since its promotion, and what each metric of the policy shows of it."""

from collections.abc import Iterable
from datetime import datetime

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import MetricReading, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.assess import assess_against, assess_alone
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.strata import Stratum


class Tally:
    """What was seen since an epoch: of a rollout for `readings`, of production since its promotion for `alone`.

    Compared are arms as assigned, among users who were assigned at random: with an exposure between 0 and 1, and known
    by name. Who did not say who they are always get production; shadows and operators count nowhere. `since_epoch` is
    the epoch at which the canary was opened, or of the last move without one: what is older does not count. Nor, for
    `alone`, what is older than `alone_since`, the epoch at which production began to serve: it may have been rolled
    back beside a canary that stays open, and who serves now answers for nothing that the release before it said. Nor
    what was given before `judged_since`, a moment of ours.
    """

    def __init__(self, since_epoch: int = 0, alone_since: int = 0, judged_since: datetime | None = None) -> None:
        self.since_epoch, self._alone_since, self._judged_since = since_epoch, alone_since, judged_since
        self._compared = Comparison()
        self._alone = Comparison()

    def add(self, seen: Iterable[Seen]) -> None:
        """Folds answers in, in any order; the same answer may come again, with more known of it."""
        for one in seen:
            if one.epoch < self.since_epoch or one.cohort not in (Cohort.PRODUCTION, Cohort.CANARY):
                continue
            canary = one.cohort is Cohort.CANARY
            if 0.0 < one.exposure < 1.0 and one.user != one.response_id:
                self._compared.add(one, Stratum(canary, one.exposure))
            if not canary:
                self._add_alone(one)

    def judge_anew(self, since: datetime, held: Iterable[Seen]) -> None:
        """For `alone` only what was given from a moment of ours on counts from now on, of what came before `held`."""
        self._judged_since, self._alone = since, Comparison()
        for one in held:
            if one.cohort is Cohort.PRODUCTION and one.epoch >= self.since_epoch:
                self._add_alone(one)

    def _add_alone(self, one: Seen) -> None:
        counts = self._judged_since is None or one.answered_at >= self._judged_since
        if counts and one.epoch >= self._alone_since:
            self._alone.add(one, Stratum(canary=False, exposure=0.0))

    def users(self, cohort: Cohort) -> int:
        """How many users, assigned at random, were first seen in an arm."""
        return self._compared.users_in(cohort is Cohort.CANARY)

    def readings(self, policy: MonitorPolicy) -> tuple[MetricReading, ...]:
        """What each metric of the policy shows of the canary against production, in the policy's order."""
        return tuple(assess_against(metric, self._compared, policy) for metric in policy.metrics)

    def alone(self, policy: MonitorPolicy) -> tuple[MetricReading, ...]:
        """What each metric shows of production by itself, against the most that no release may exceed."""
        return tuple(assess_alone(metric, self._alone, policy) for metric in policy.metrics)
