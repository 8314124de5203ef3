"""Traces for OpenTelemetry: one a request, made from its record once the answer is there, so that nobody waits for it.

They show, and may be lost under pressure; the record proves. No text of a question or an answer is in them.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.guardrails import Stage
from ml_platform.serving.question import Reply

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

PATH = "/v1/traces"
SERVICE = "ml_platform.gateway"
HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"
MLFLOW_EXPERIMENT = {"x-mlflow-experiment-id": "0"}
"""MLflow takes no trace without it; other collectors do not mind. OTEL_EXPORTER_OTLP_HEADERS says another."""

NANOSECONDS = 1_000_000


class Spans:
    """Sends a trace of each answer to an OTLP/HTTP collector, in the background."""

    def __init__(self, url: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        endpoint = url if url.endswith(PATH) else url.rstrip("/") + PATH
        headers = None if os.environ.get(HEADERS_VARIABLE) else MLFLOW_EXPERIMENT
        self._provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, headers=headers)))
        self._tracer: Tracer = self._provider.get_tracer(SERVICE)

    def replied(self, reply: Reply) -> None:
        """Makes the trace of an answer: the request, and below it guardrails, features and engine one after the other.

        A record knows how long each took, and not when it began: they are laid out in the order in which they happen.
        """
        from opentelemetry import trace

        record, times = reply.record, reply.record.timings
        start = int((record.answered_at - timedelta(milliseconds=times.total_ms)).timestamp() * 1e9)
        end = start + int(times.total_ms * NANOSECONDS)
        root = self._tracer.start_span("answer", start_time=start, attributes=_attributes(reply))
        if record.errors:
            root.set_status(trace.StatusCode.ERROR, ", ".join(error.kind for error in record.errors))
        below = trace.set_span_in_context(root)
        before, after = (_took(reply, stage) for stage in Stage)
        features = times.features_ms or 0.0
        engine = max(0.0, times.total_ms - before - features - after) if record.output_tokens else 0.0
        at = start
        for name, took in (
            ("guardrails of the question", before),
            ("features", features),
            ("engine", engine),
            ("guardrails of the answer", after),
        ):
            if took:
                until = min(end, at + int(took * NANOSECONDS))
                span = self._tracer.start_span(name, below, start_time=at, attributes=_more(name, reply))
                span.end(until)
                at = until
        root.end(end)

    def close(self) -> None:
        """Sends what waits; blocks for a while when the collector does not answer."""
        self._provider.shutdown()


def _took(reply: Reply, stage: Stage) -> float:
    return sum(one.latency_ms for one in reply.record.verdicts if one.stage is stage)


def _attributes(reply: Reply) -> dict[str, Any]:
    record = reply.record
    found: dict[str, Any] = {
        "response_id": record.response_id,
        "product": record.product,
        "release_id": record.release_id,
        "epoch": record.epoch,
        "cohort": record.cohort.value,
        "status": reply.status.value,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "cost_usd": record.cost_usd,
        "blocked_by": [f"{one.stage.value}.{one.guardrail}" for one in record.verdicts if one.verdict != "PASS"],
    }
    return {name: value for name, value in found.items() if value is not None}


def _more(name: str, reply: Reply) -> dict[str, Any]:
    record = reply.record
    if name == "engine":
        return {"adapter": record.adapter or "", "queue_ms": record.timings.queue_ms or 0.0}
    if name == "features" and record.features is not None:
        return {"service": record.features.service, "definitions_sha256": record.features.definitions_sha256}
    return {}
