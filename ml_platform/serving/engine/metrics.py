"""What the engine tells Prometheus, in a registry of its own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class EngineMetrics:
    """Counters and gauges of one engine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("mlp_engine_requests", "Generations by outcome.", ["outcome"], registry=self.registry)
        self.errors = Counter("mlp_engine_errors", "Refused requests by status.", ["status"], registry=self.registry)
        self.prompt_tokens = Counter("mlp_engine_prompt_tokens", "Tokens that were read.", registry=self.registry)
        self.tokens = Counter("mlp_engine_generated_tokens", "Tokens that were generated.", registry=self.registry)
        self.failed_passes = Counter("mlp_engine_failed_passes", "Passes that failed.", registry=self.registry)
        self.queue = Gauge("mlp_engine_queue_length", "Requests that wait for a row.", registry=self.registry)
        self.rows = Gauge("mlp_engine_busy_rows", "Requests that are being answered.", registry=self.registry)
        self.adapters = Gauge("mlp_engine_adapters", "Adapters that are loaded.", registry=self.registry)
        self.batch = Histogram("mlp_engine_batch_rows", "Rows of a pass.", buckets=ROWS, registry=self.registry)
        self.seconds = Histogram(
            "mlp_engine_request_seconds", "From request to answer.", buckets=SECONDS, registry=self.registry
        )
        self.first_token = Histogram(
            "mlp_engine_first_token_seconds", "From request to first token.", buckets=SECONDS, registry=self.registry
        )
        self.loading = Histogram(
            "mlp_engine_adapter_load_seconds", "Loading an adapter.", buckets=SECONDS, registry=self.registry
        )

    def watch(self, load: Callable[[], tuple[int, int]]) -> None:
        """Asks how many wait and how many rows are busy whenever somebody looks."""
        self.queue.set_function(lambda: load()[0])
        self.rows.set_function(lambda: load()[1])

    def took(self, tokens: int) -> None:
        """One pass through the model."""
        self.tokens.inc(tokens)
        self.batch.observe(tokens)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
