"""One candidate from one or several processes: all train, the first one publishes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_platform.errors import StorageError
from ml_platform.lineage.artifacts import Artifact, ArtifactStore, Build


def train_together(
    store: ArtifactStore, kind: str, recipe: Mapping[str, Any], build: Build, train: Callable[[], object]
) -> Artifact:
    """`store.make`, in a way that under torchrun all processes train or none does.

    The first process asks the store; only when it has to build does it tell the others to `train` along.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return store.make(kind, recipe, build)
    join_processes()
    if int(os.environ["RANK"]) == 0:

        def build_with_others(folder: Path) -> Mapping[str, Any]:
            from_first("train")
            return build(folder)

        artifact = store.make(kind, recipe, build_with_others)
        if artifact.reused:
            from_first("reuse")
        from_first("published")
        return artifact
    if from_first(None) == "train":
        train()
    from_first(None)
    found = store.find(kind, recipe)
    if found is None:
        raise StorageError(
            f"process {os.environ['RANK']} does not see the {kind} that process 0 published. "
            "All processes need the same artifact store: share the folder, or name an object store."
        )
    return found


def join_processes() -> None:
    """Connects the processes that torchrun started, once; over gloo without CUDA."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def leave_processes() -> None:
    """Ends what `join_processes` began. Without it gloo's threads are still running when the interpreter ends, which
    now and then aborts a process whose work is done."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def from_first(value: Any) -> Any:
    """What the first process passes, in every process; `value` itself when there is only one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def is_first_process() -> bool:
    """Whether this is the process that reports and publishes."""
    return int(os.environ.get("RANK", "0")) == 0
