"""What the gateway counts for Prometheus; labels have few values, whatever clients send."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.monitoring.signals import has_failed
from ml_platform.serving.gateway.replying import features_incomplete

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ml_platform.contracts.provenance import ProvenanceRecord
    from ml_platform.serving.question import Reply

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NOBODY = "none"


class GatewayMetrics:
    """The counters of one worker; `mlp_*` names as in deploy/.

    With PROMETHEUS_MULTIPROC_DIR set before this process began, the page holds the sums over all workers.
    """

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def counter(name: str, what: str, *labels: str) -> Any:
            return _Labelled(Counter(name, what, labels, registry=registry))

        def seconds(name: str, what: str, *labels: str) -> Any:
            return _Labelled(Histogram(name, what, labels, registry=registry, buckets=SECONDS))

        def gauge(name: str, what: str, *labels: str, mode: Any = "livesum") -> Any:
            return _Labelled(Gauge(name, what, labels, registry=registry, multiprocess_mode=mode))

        arm = ("product", "release", "cohort")
        self._requests = counter("mlp_http_requests_total", "Requests by path and status.", "path", "code")
        self._refused = counter("mlp_refused_total", "Requests that got an error, by its code.", "code")
        self._limited = counter("mlp_rate_limited_total", "Requests that came too often.", "by")
        self._answers = counter("mlp_answers_total", "Answers by what became of them.", *arm, "status")
        failed = "Answers that the assigned release failed to give, whoever gave one."
        self._failed = counter("mlp_answers_failed_total", failed, *arm)
        self._total = seconds("mlp_answer_seconds", "From the question to the recorded answer.", *arm)
        self._first = seconds("mlp_first_token_seconds", "To the model's first token.", *arm)
        self._features = seconds("mlp_features_seconds", "Reading the features.", "product")
        self._tokens = counter("mlp_tokens_total", "Tokens read and written.", *arm, "direction")
        self._cost = counter("mlp_cost_usd_total", "What answers cost.", *arm)
        self._errors = counter("mlp_answer_errors_total", "What went wrong on the way to answers.", *arm, "kind")
        verdict = ("product", "release", "stage", "guardrail", "verdict")
        self._verdicts = counter("mlp_guardrail_verdicts_total", "What guardrails said.", *verdict)
        self._incomplete = counter(
            "mlp_features_incomplete_total", "Answers without all features.", "product", "release"
        )
        self._feedback = counter("mlp_feedback_total", "Feedback taken.", "product", "kind")
        self._outcomes = counter("mlp_outcomes_total", "Outcomes taken.", "product")
        self._admission = counter("mlp_admission_refusals_total", "Releases that were not let in.", "product")
        self._in_flight = gauge("mlp_in_flight", "Requests that are worked on.")
        self._pending = gauge("mlp_wal_pending_bytes", "Bytes in the log and not in the store.", mode="mostrecent")
        self._unrecorded = _Growing(counter("mlp_unrecorded_answers_total", "Answers that left without a record."))
        self._dropped = _Growing(counter("mlp_shadow_dropped_total", "Shadow copies that had no room."))
        self._engine = gauge("mlp_engine_up", "Whether the engine answers.", mode="livemin")
        self._exposure = gauge("mlp_exposure", "The canary's share of users.", "product", mode="livemin")
        self._ledger_age = gauge("mlp_ledger_age_seconds", "Since the last look at the ledger.", mode="livemax")
        found = "When a new publication of features was found, in seconds since 1970."
        self._published = gauge("mlp_features_published_seconds", found, "product", mode="livemin")
        self._epoch = gauge("mlp_epoch", "The ledger's epoch that serves.", "product", mode="livemin")
        self._breakers_shown: frozenset[tuple[str, str]] = frozenset()
        self._breaker = gauge("mlp_breaker_open", "1 open, 0.5 trying again.", "product", "release", mode="livemax")

    def requested(self, path: str, code: int) -> None:
        """One more request that ended."""
        self._requests(path, str(code)).inc()

    def refused(self, code: str) -> None:
        """One more error, by its code."""
        self._refused(code).inc()

    def rate_limited(self, by: str) -> None:
        """One more request that came too often, of a key or a user."""
        self._limited(by).inc()

    def answered(self, reply: "Reply") -> None:
        """One more answer, a shadow's too."""
        record = reply.record
        arm = _arm(record)
        self._answers(*arm, reply.status.value).inc()
        # By 0, too: a series that begins with its first failure hides that one from `rate`.
        self._failed(*arm).inc(has_failed(record))
        self._total(*arm).observe(record.timings.total_ms / 1e3)
        if record.timings.first_token_ms is not None:
            self._first(*arm).observe(record.timings.first_token_ms / 1e3)
        if record.timings.features_ms is not None:
            self._features(record.product).observe(record.timings.features_ms / 1e3)
        if record.input_tokens:
            self._tokens(*arm, "in").inc(record.input_tokens)
            self._tokens(*arm, "out").inc(record.output_tokens)
            self._cost(*arm).inc(record.cost_usd)
        for error in record.errors:
            self._errors(*arm, error.kind).inc()
        for said in record.verdicts:
            self._verdicts(*arm[:2], said.stage.value, said.guardrail, said.verdict.value).inc()
        if features_incomplete(reply):
            self._incomplete(*arm[:2]).inc()

    def said(self, product: str, kind: str | None) -> None:
        """One more piece of feedback of a kind, or, with None, one more outcome."""
        if kind is None:
            self._outcomes(product).inc()
        else:
            self._feedback(product, kind).inc()

    def admission_refused(self, product: str) -> None:
        """One more release that was not let in."""
        self._admission(product).inc()

    def pending(self, size: int) -> None:
        """How many bytes of the log are not in the store yet."""
        self._pending().set(size)

    def state(self, state: "WorkerState") -> None:
        """What can be looked up at any time."""
        self._unrecorded.is_now(state.unrecorded)
        self._dropped.is_now(state.shadow_dropped)
        self._in_flight().set(state.in_flight)
        self._engine().set(state.engine_up)
        if state.ledger_age_seconds is not None:
            self._ledger_age().set(state.ledger_age_seconds)
        for product, epoch, exposure in state.tables:
            self._epoch(product).set(epoch)
            self._exposure(product).set(exposure)
            self._admission(product).inc(0)  # there from the start: `increase` does not see a series' first value
        self._state_of_breakers({(product, release[:12]): opened for product, release, opened in state.breakers})
        for product, moment in state.published:
            self._published(product).set(moment)

    def _state_of_breakers(self, opened: Mapping[tuple[str, str], float]) -> None:
        """A release that serves no more has no open breaker: without a figure of its own, the last one would stay."""
        for product, release in self._breakers_shown - opened.keys():
            self._breaker(product, release).set(0.0)
        for (product, release), how_far in opened.items():
            self._breaker(product, release).set(how_far)
        self._breakers_shown = frozenset(opened)


@dataclass(frozen=True)
class WorkerState:
    """What a worker is like at one moment: `tables` are product, epoch and exposure, `breakers` product, release and
    how open; `published` product and when its newest features were found. Counts only grow.
    """

    in_flight: int
    unrecorded: int
    shadow_dropped: int
    engine_up: bool
    ledger_age_seconds: float | None
    tables: tuple[tuple[str, int, float], ...]
    breakers: tuple[tuple[str, str, float], ...]
    published: tuple[tuple[str, float], ...] = ()


class _Growing:
    """A counter of what somebody else counts."""

    def __init__(self, counter: "_Labelled") -> None:
        self._counter, self._was = counter, 0

    def is_now(self, number: int) -> None:
        self._counter().inc(number - self._was)
        self._was = number


class _Labelled:
    """A metric whose children are found without the lock and the checks of `labels`."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels) if labels else self._metric
        return child


def _arm(record: "ProvenanceRecord") -> tuple[str, str, str]:
    return record.product, (record.release_id or NOBODY)[:12], record.cohort.value


def metrics_page(registry: "CollectorRegistry", *, many_processes: bool) -> bytes:
    """The page for Prometheus: of this process, or of all workers together."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if many_processes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
