"""What a gateway is told when it starts; the same value reaches every worker."""

from typing import Annotated

from pydantic import Field

from ml_platform.contracts.base import Contract

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class GatewaySettings(Contract):
    """The limits and neighbours of a gateway; no secret among them.

    `user_rate` and `user_burst` limit each user id of a product over all workers. `drain_seconds` is how long a
    worker that was told to end finishes what it has begun. `connections` and `in_flight` are of each worker.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    engine_url: str = "http://127.0.0.1:8100"
    judge_url: str | None = None
    traces_url: str | None = None
    body_bytes: Annotated[int, Field(ge=1_024, le=16 << 20)] = 64 << 10
    body_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    head_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    drain_seconds: Annotated[int, Field(ge=1)] = 10
    deadline_ms: Annotated[int, Field(ge=1)] = 10_000
    longest_deadline_ms: Annotated[int, Field(ge=1)] = 120_000
    connections: Annotated[int, Field(ge=1)] = 4_096
    in_flight: Annotated[int, Field(ge=1)] = 512
    user_rate: Annotated[float, Field(gt=0.0, le=1e6)] = 20.0
    user_burst: Annotated[int, Field(ge=1)] = 40
    log_answers: bool = False

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK
