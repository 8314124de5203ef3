"""Mirroring: MLflow's aliases follow the slots, and every edit by hand becomes an alert in the ledger."""

from datetime import datetime

from ml_platform.contracts.events import AliasRestored
from ml_platform.registry.aliases import AliasEdit, Mirrored, log_edit
from ml_platform.registry.mlflow_registry import MlflowRegistry
from ml_platform.release.controller import Controller


def mirror_slots(controller: Controller, registry: MlflowRegistry, product: str, now: datetime, actor: str) -> Mirrored:
    """Puts every alias to what its slot holds. An alias that was moved by hand is recorded first, once an edit.

    MLflow being down is a warning in what comes back. Raises what the ledger raises.
    """

    def report(edit: AliasEdit) -> None:
        log_edit(edit)
        with controller.ledger.write(product, now, actor) as transaction:
            said = AliasRestored(
                alias=edit.alias,
                found=edit.found,
                found_release=edit.found_release,
                expected=transaction.replay.slots.get(edit.alias),
                edited_by=edit.edited_by,
            )
            transaction.append(said)

    return registry.mirror(product, lambda: controller.state(product), report)
