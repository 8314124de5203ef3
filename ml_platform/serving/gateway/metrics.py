"""What the gateway counts for Prometheus; labels have few values, whatever clients send."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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
            return _Labelled(Counter(f"mlp_{name}", what, labels, registry=registry))

        def seconds(name: str, what: str, *labels: str) -> Any:
            return _Labelled(Histogram(f"mlp_{name}", what, labels, registry=registry, buckets=SECONDS))

        def gauge(name: str, what: str, *labels: str, mode: Any = "livesum") -> Any:
            return _Labelled(Gauge(f"mlp_{name}", what, labels, registry=registry, multiprocess_mode=mode))

        arm = ("product", "release", "cohort")
        self._requests = counter("http_requests", "Requests by path and status.", "path", "code")
        self._refused = counter("refused", "Requests that got an error, by its code.", "code")
        self._limited = counter("rate_limited", "Requests that came too often.", "by")
        self._answers = counter("answers", "Answers by what became of them.", *arm, "status")
        self._total = seconds("answer_seconds", "From the question to the recorded answer.", *arm)
        self._first = seconds("first_token_seconds", "To the model's first token.", *arm)
        self._features = seconds("features_seconds", "Reading the features.", "product")
        self._tokens = counter("tokens", "Tokens read and written.", *arm, "direction")
        self._cost = counter("cost_usd", "What answers cost.", *arm)
        self._errors = counter("answer_errors", "What went wrong on the way to answers.", *arm, "kind")
        verdict = ("product", "release", "stage", "guardrail", "verdict")
        self._verdicts = counter("guardrail_verdicts", "What guardrails said.", *verdict)
        self._incomplete = counter("features_incomplete", "Answers without all features.", "product", "release")
        self._feedback = counter("feedback", "Feedback taken.", "product", "kind")
        self._outcomes = counter("outcomes", "Outcomes taken.", "product")
        self._admission = counter("admission_refusals", "Releases that were not let in.", "product")
        self._in_flight = gauge("in_flight", "Requests that are worked on.")
        self._pending = gauge("wal_pending_bytes", "Bytes that wait for the disk.")
        self._unrecorded = gauge("unrecorded_answers", "Answers that left without a record.", mode="sum")
        self._shadow_dropped = gauge("shadow_dropped", "Shadow copies that had no room.", mode="sum")
        self._epoch = gauge("epoch", "The ledger's epoch that serves.", "product", mode="livemin")
        self._breaker = gauge("breaker_open", "1 open, 0.5 trying again.", "product", "release", mode="livemax")

    def requested(self, path: str, code: int) -> None:
        """One more request that ended."""
        self._requests(path, str(code)).inc()

    def refused(self, code: str) -> None:
        """One more error, by its code."""
        self._refused(code).inc()

    def rate_limited(self, by: str) -> None:
        """One more request that came too often, of a key or a user."""
        self._limited(by).inc()

    def in_flight(self, number: int) -> None:
        """How many requests are worked on now."""
        self._in_flight().set(number)

    def answered(self, reply: "Reply") -> None:
        """One more answer, a shadow's too."""
        record = reply.record
        arm = _arm(record)
        self._answers(*arm, reply.status.value).inc()
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
        if record.features is not None and None in record.features.values.values():
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

    def state(
        self,
        *,
        pending_bytes: int,
        unrecorded: int,
        shadow_dropped: int,
        epochs: Iterable[tuple[str, int]],
        breakers: Iterable[tuple[str, str, float]],
    ) -> None:
        """What can be looked up at any time; set once a second."""
        self._pending().set(pending_bytes)
        self._unrecorded().set(unrecorded)
        self._shadow_dropped().set(shadow_dropped)
        for product, epoch in epochs:
            self._epoch(product).set(epoch)
        for product, release, opened in breakers:
            self._breaker(product, release[:12]).set(opened)


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
