"""What is seen of live traffic against the policy: what each metric shows, and which hard limits broke; pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from scipy.special import bdtrc

from ml_platform.contracts.monitor_policy import HardLimit, MeanMetric, Metric, MonitorPolicy, RateMetric, Signal
from ml_platform.contracts.monitoring import Breach, MetricReading, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.assessing.compared import Comparison
from ml_platform.release.assessing.means import mean_against, mean_alone
from ml_platform.release.assessing.percentiles import quantile_against, quantile_alone
from ml_platform.release.assessing.shares import rate_against, rate_alone
from ml_platform.release.assessing.verdicts import Levels

ARMS = (Cohort.PRODUCTION, Cohort.CANARY)
SHARED_BY_CHANCE = 0.001


def assess_against(metric: Metric, compared: Comparison, policy: MonitorPolicy) -> MetricReading:
    """What one metric shows of the canary against production."""
    levels = Levels.of(policy)
    if isinstance(metric, RateMetric):
        return rate_against(metric, compared, levels)
    if isinstance(metric, MeanMetric):
        return mean_against(metric, compared, levels)
    return quantile_against(metric, compared, levels)


def assess_alone(metric: Metric, production: Comparison, policy: MonitorPolicy) -> MetricReading:
    """What one metric shows of production alone against `at_most`: FAIL where it is proven to be above."""
    levels = Levels.of(policy)
    if isinstance(metric, RateMetric):
        return rate_alone(metric, production, levels)
    if isinstance(metric, MeanMetric):
        return mean_alone(metric, production, levels)
    return quantile_alone(metric, production, levels)


def assess_breaches(seen: Sequence[Seen], policy: MonitorPolicy, release_id: str, now: datetime) -> tuple[Breach, ...]:
    """The hard limits that a release broke by `now`, in our own time; each response counts once, shadows never."""
    recent = Recent(policy)
    recent.add(seen)
    return recent.breaches(release_id, now)


def common_causes(seen: Sequence[Seen], policy: MonitorPolicy, now: datetime) -> dict[Signal, str]:
    """What is bad in both arms at `now`, which then is not the canary's fault: a sentence for each such signal."""
    recent = Recent(policy)
    recent.add(seen)
    return recent.common_causes(now)


class Recent:
    """Answers of the last minutes, as long as the longest window of the policy's hard limits needs them."""

    def __init__(self, policy: MonitorPolicy) -> None:
        self._policy = policy
        self._keep = timedelta(seconds=max((one.window_seconds for one in policy.hard_limits), default=0.0))
        self._seen: dict[str, Seen] = {}

    def add(self, seen: Iterable[Seen]) -> None:
        """Takes answers in; the same one again replaces what was known of it."""
        self._seen.update((one.response_id, one) for one in seen if one.cohort in ARMS)

    def __len__(self) -> int:
        return len(self._seen)

    def breaches(self, release_id: str, now: datetime) -> tuple[Breach, ...]:
        """The hard limits that a release broke by `now`."""
        self._forget(now)
        mine = [one for one in self._seen.values() if one.release_id == release_id]
        found = []
        for limit in self._policy.hard_limits:
            bad, answers = _bad_of(mine, limit, now)
            if broken(limit, bad, answers):
                found.append(
                    Breach(
                        release_id=release_id,
                        signal=limit.signal,
                        bad=bad,
                        answers=answers,
                        at_most=limit.at_most,
                        window_seconds=limit.window_seconds,
                    )
                )
        return tuple(found)

    def common_causes(self, now: datetime) -> dict[Signal, str]:
        """What is bad in both arms at `now`, by a hard limit or by the most that a metric allows any release."""
        self._forget(now)
        found: dict[Signal, str] = {}
        for limit in (*self._policy.hard_limits, *_softer(self._policy)):
            counts = {
                arm: _bad_of([one for one in self._seen.values() if one.cohort is arm], limit, now) for arm in ARMS
            }
            if suffer_together(limit, counts[Cohort.PRODUCTION], counts[Cohort.CANARY]):
                told = " and ".join(f"{bad} of {answers} in {arm}" for arm, (bad, answers) in counts.items())
                within = f"Within {limit.window_seconds:g} s"
                said = f"{within} {limit.signal} is bad in both arms, {told}: the cause is shared."
                found.setdefault(limit.signal, said)
        return found

    def _forget(self, now: datetime) -> None:
        old = [key for key, one in self._seen.items() if now - one.answered_at > self._keep]
        for key in old:
            del self._seen[key]


def _bad_of(seen: Iterable[Seen], limit: HardLimit, now: datetime) -> tuple[int, int]:
    """To how many users something bad happened within the window, and of how many it could be told; each counts once.

    Else one user who asks what must fail could have any release taken back. A clock may run ahead by a window.
    """
    window, users = timedelta(seconds=limit.window_seconds), dict[str, bool]()
    for one in seen:
        if limit.signal in one.signals and abs(now - one.answered_at) <= window:
            # A value that is neither 0 nor 1, nor a number at all, is nothing good.
            users[one.user] = users.get(one.user, False) or one.signals[limit.signal] != 0.0
    return sum(users.values()), len(users)


def broken(limit: HardLimit, bad: int, answers: int) -> bool:
    """Whether so many bad answers of so many break a limit."""
    return answers >= limit.min_count and bad > limit.at_most * answers


def suffer_together(limit: HardLimit, production: tuple[int, int], canary: tuple[int, int]) -> bool:
    """Whether both arms suffer, each given by its bad answers and all: both broke the limit, or one did by chance.

    At the edge of a shared outage one arm happens to be above the limit and the other below. So it is shared, too,
    where the other has enough answers and more than a quarter of the limit's share of bad ones, and as many in the
    worse arm would come about by chance in more than 1 of 1,000 cases: a bad answer falls into it by its share of all.
    """
    arms = (production, canary)
    fell = [broken(limit, *arm) for arm in arms]
    if not any(fell) or not all(answers >= limit.min_count for _, answers in arms):
        return False
    if all(fell):
        return True
    if any(bad <= limit.at_most * answers / 4.0 for bad, answers in arms):
        return False
    bad, answers = arms[fell.index(True)]
    chance = bdtrc(bad - 1, sum(bad for bad, _ in arms), answers / sum(answers for _, answers in arms))
    return bool(chance > SHARED_BY_CHANCE)


def _softer(policy: MonitorPolicy) -> list[HardLimit]:
    """For rates that show at once, `at_most` within the windows of the hard limits."""
    if not policy.hard_limits:
        return []
    widest = max(policy.hard_limits, key=lambda one: (one.window_seconds, one.min_count))
    return [
        widest.model_copy(update={"signal": metric.signal, "at_most": metric.at_most})
        for metric in policy.metrics
        if isinstance(metric, RateMetric) and not metric.signal.labelled and metric.signal is not Signal.DISLIKED
    ]
