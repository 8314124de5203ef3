"""What this machine does best, chosen by capability and recorded with the candidate."""

import os
from dataclasses import asdict, dataclass
from typing import Any

from ml_platform.errors import ContractError

MAX_THREADS = 8
"""More threads than this gain nothing on packs of a few thousand tokens."""

LONGEST_PACK_CPU = 1280
"""About 1 GB of activations for a model of 135 M parameters."""

LONGEST_PACK_CUDA = 8192


@dataclass(frozen=True)
class Hardware:
    """How to compute here. Equal values on equal hardware give equal bytes.

    Packs of a step are laid end to end up to `longest_pack` tokens: fewer and larger operations are faster as
    long as memory lasts. `processes` is the number that torchrun started.
    """

    device: str
    dtype: str
    attention: str
    optimizer: str
    threads: int
    longest_pack: int
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        """For recipes and manifests."""
        return asdict(self)

    def pin(self) -> None:
        """Fixes the thread count and the order of floating-point sums of this process."""
        import torch

        torch.set_num_threads(self.threads)
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)


def detect_hardware(threads: int | None = None) -> Hardware:
    """CUDA where there is a device: bf16, fused AdamW, long packs, flash attention if installed.

    Otherwise the CPU in fp32: bf16 is about half as fast there without tile instructions.
    `threads` pins the number of CPU threads; by default it is the number of physical cores that this process may use,
    at most MAX_THREADS. Raises ContractError for a number below 1.
    """
    import torch

    if threads is not None and threads < 1:
        raise ContractError(f"threads is {threads}, expected 1 or more. Leave it out to use the physical cores.")
    pinned = threads or _usable_cores()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        attention = "flash_attention_2" if dtype == "bfloat16" and _has_flash_attention() else "within_examples"
        return Hardware("cuda", dtype, attention, "adamw_torch_fused", pinned, LONGEST_PACK_CUDA, processes)
    return Hardware("cpu", "float32", "within_examples", "adamw_torch", pinned, LONGEST_PACK_CPU, processes)


def _usable_cores() -> int:
    import psutil

    physical = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, MAX_THREADS))


def _has_flash_attention() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())
