"""The adapters that an engine holds, by immutable names; all of it in the event loop but reading files."""

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import SourceDataError
from ml_platform.serving.adapter_names import adapter_name, digest_in_name
from ml_platform.serving.engine.metrics import EngineMetrics
from ml_platform.serving.engine.protocol import ProtocolError

if TYPE_CHECKING:
    from ml_platform.families.lora.adapter_weights import AdapterWeights
    from ml_platform.families.lora.base_model import BaseModel
    from ml_platform.families.lora.decoder import Decoder
    from ml_platform.serving.engine.scheduler import Scheduler

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/:-]{0,199}")


@dataclass(eq=False)
class Held:
    """An adapter, how many generations use it, and whether it may go when the last of them ends."""

    name: str
    path: str
    weights: "AdapterWeights"
    uses: int = 0
    retired: bool = False


class Shelf:
    """Loads beside the running model: the thread of the model sees a new stack of adapters as one pointer."""

    def __init__(self, base: "BaseModel", decoder: "Decoder", scheduler: "Scheduler", metrics: EngineMetrics) -> None:
        self._base, self._decoder, self._scheduler, self._metrics = base, decoder, scheduler, metrics
        self._held: dict[str, Held] = {}
        self._stacked: list[Held] = []
        self._changing = asyncio.Lock()

    @property
    def held(self) -> tuple[Held, ...]:
        """What can be asked for."""
        return tuple(self._held.values())

    def use(self, name: str) -> Held | None:
        """The adapter of a name for one generation, to be given back with `release`; None for the bare base model.

        Raises ProtocolError 404.
        """
        if name == self._base.name:
            return None
        held = self._held.get(name)
        if held is None:
            raise ProtocolError(404, f"The model `{name[:200]}` does not exist.", "NotFoundError", "model")
        held.uses += 1
        return held

    def release(self, held: Held | None) -> None:
        """Ends one use; the last one of an unloaded adapter lets go of its memory at the next change of the stack."""
        if held is not None:
            held.uses -= 1

    async def load(self, name: str, path: str) -> None:
        """Reads and verifies an adapter, and makes it available; again with the same bytes is a success.

        Raises ProtocolError 400, which leaves everything as it was.
        """
        if not NAME.fullmatch(name) or name == self._base.name:
            raise ProtocolError(400, f"lora_name {name[:200]!r} cannot be the name of an adapter.", param="lora_name")
        async with self._changing:
            started = time.monotonic()
            weights = await asyncio.to_thread(self._read, name, path)
            known = self._held.get(name)
            if known is not None:
                if known.weights.files != weights.files:
                    raise ProtocolError(
                        400,
                        f"The lora adapter '{name}' is another one: this name is in use for other bytes.",
                        param="lora_name",
                    )
                return
            held = Held(name, path, weights)
            await self._restack([*self._stacked, held])
            self._held[name] = held
            self._metrics.adapters.set(len(self._held))
            self._metrics.loading.observe(time.monotonic() - started)

    async def unload(self, name: str) -> None:
        """Takes an adapter away from new requests at once; those that use it are finished. Raises ProtocolError 404."""
        async with self._changing:
            held = self._held.pop(name, None)
            if held is None:
                raise ProtocolError(404, f"The lora adapter '{name[:200]}' cannot be found.", "NotFoundError")
            held.retired = True
            self._metrics.adapters.set(len(self._held))
            await self._restack(self._stacked)

    async def _restack(self, wanted: list[Held]) -> None:
        from ml_platform.families.lora.side_by_side import AdapterStack

        kept = [held for held in wanted if not held.retired or held.uses]
        stack = await asyncio.to_thread(AdapterStack, [held.weights for held in kept])
        self._stacked, self._scheduler.stack = kept, stack

    def _read(self, name: str, path: str) -> "AdapterWeights":
        from ml_platform.families.lora.adapter_weights import read_adapter

        try:
            weights = read_adapter(Path(path), self._base, self._decoder.model)
        except (SourceDataError, OSError, ValueError) as error:
            raise ProtocolError(400, f"The lora adapter '{name}' was not loaded: {error}", param="lora_path") from None
        expected = adapter_name(name.rpartition("@")[0], weights.files)
        if digest_in_name(name) and name != expected:
            raise ProtocolError(
                400,
                f"The lora adapter '{name}' was not loaded: its files have the digest {digest_in_name(expected)}, "
                "which is not the one in its name. Fetch the adapter again.",
                param="lora_path",
            )
        return weights
