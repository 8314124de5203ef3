"""The chain without a process of its own for training: the same bytes, without the seconds in which libraries load.

For tests of what comes before and after; the process itself is what test_launch.py, test_training_processes.py and
those with a real daemon are about.
"""

from collections.abc import Iterable
from pathlib import Path

from dagster import AssetExecutionContext, Definitions, in_process_executor

from definitions import product_definitions
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.families.lora.train import train_candidate
from ml_platform.lineage.object_store import artifact_store
from resources.launcher import Messages, TrainingLauncher
from resources.manifests import ManifestIOManager
from resources.state import StoreResource, home_at


class TrainHere(TrainingLauncher):
    """Trains in this process: the same function and the same bytes, without the seconds of a new process."""

    def launch(self, context: AssetExecutionContext, request: Path) -> Messages:
        """See TrainingLauncher."""
        context.log.info(f"trains what {request.name} asks for")
        home = home_at(self.home_path)
        trained = train_candidate(TrainingRequest.read(request), artifact_store(home), home)
        return [{"candidate_sha256": trained.sha256, "reused": trained.reused}]


def definitions_training_here(folders: Iterable[Path]) -> Definitions:
    """What definitions.py makes of these products, training in this process."""
    resources = {"store": StoreResource(), "io_manager": ManifestIOManager(), "launcher": TrainHere()}
    shared = Definitions(resources=resources, executor=in_process_executor)
    return Definitions.merge(shared, *map(product_definitions, folders))
