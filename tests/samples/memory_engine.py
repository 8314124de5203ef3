"""An engine in memory, for where it is beside the point what it answers."""

import asyncio
from pathlib import Path

from ml_platform.errors import AdapterMissingError, DeadlineError, EngineError
from ml_platform.serving.engine_client import Generated

BASE = "tiny-base"


class MemoryEngine:
    """The engine's protocol in memory: it holds adapters by name, and can be down, slow or forget."""

    def __init__(self) -> None:
        self.held: dict[str, Path] = {}
        self.loads: list[str] = []
        self.down = self.hangs = False
        self.probes = 0
        self.refuses: set[str] = set()
        self.silent: set[str] = set()
        self.keeps: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, name: str, path: Path, **_: float) -> None:
        """Holds it, once the gate is open."""
        self._require_up()
        self.loads.append(name)
        await self.gate.wait()
        if name in self.refuses:
            raise EngineError(f"{name} does not fit the base model.")
        assert (path / "adapter_model.safetensors").is_file()
        self.held[name] = path

    async def unload(self, name: str, **_: float) -> None:
        """Forgets one, unless it keeps what it has."""
        self._require_up()
        if name in self.keeps:
            raise DeadlineError(f"{name} was not unloaded in time.")
        if self.held.pop(name, None) is None:
            raise AdapterMissingError(f"there is no {name}.")

    async def models(self, **_: float) -> tuple[str, ...]:
        """The base model and what is held."""
        self._require_up()
        return (BASE, *self.held)

    async def generate(self, model: str, *_: object, **__: object) -> Generated:
        """One token."""
        self._require_up()
        if model not in self.held:
            raise AdapterMissingError(f"there is no {model}.")
        if model in self.silent:
            raise EngineError(f"{model} failed.")
        return Generated("yes", 3, 1, 1.0, 0.0, True)

    async def healthy(self, **_: float) -> bool:
        """Whether it is up, and no thread in it hangs."""
        self.probes += 1
        return not (self.down or self.hangs)

    async def close(self) -> None:
        """Nothing to close."""

    def restart(self) -> None:
        """Forgets everything, as a process does that starts again."""
        self.held.clear()

    def _require_up(self) -> None:
        if self.down:
            raise EngineError("the engine is not there.")
