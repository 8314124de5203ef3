"""MLflow's aliases follow the slots; one that was moved by hand is told apart and put back."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.policy import SlotName

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

LOG = logging.getLogger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}")

UNPROVEN = (ReleaseState.REGISTERED, ReleaseState.HELD)
"""States of releases to which the mirror never sets an alias, whatever a tag says."""

EMPTY = "none"
"""What the registered model's tag says of an alias that was last seen unset."""


@dataclass(frozen=True)
class Mirrored:
    """What mirroring changed, in sentences; `warning` says what it could not do."""

    changes: tuple[str, ...] = ()
    warning: str = ""


@dataclass(frozen=True)
class AliasEdit:
    """An alias that points elsewhere than where it was last put: somebody moved it by hand.

    `found` is its version now, `found_release` the release of that version, None for no version or no release.
    MLflow keeps no account of who moves aliases: `edited_by` is its tag `mlflow.user`, or `unknown`.
    """

    alias: SlotName
    found: str | None
    found_release: str | None
    edited_by: str


def log_edit(edit: AliasEdit) -> None:
    """The least that is done about an edit: a line in the log."""
    LOG.warning(
        "ALERT: the alias %s was moved by hand in MLflow, to version %s; it is put back.", edit.alias, edit.found
    )


def mirror_aliases(
    client: "MlflowClient",
    product: str,
    known: Mapping[str, str],
    state: DeploymentState,
    report: Callable[[AliasEdit], None],
) -> Mirrored:
    """Sets each alias to the version of the release in its slot; `known` has versions by release id.

    An alias that is neither that nor what the mirror last set it to was moved by hand, and so was one on a version
    that is no proven release: `report` is told before it is put back.
    """
    if not known:
        return Mirrored(warning=f"MLflow knows no release of {product} yet.") if state.slots else Mirrored()
    model = client.get_registered_model(product)
    aliases = {name: str(version) for name, version in model.aliases.items()}
    proven = {known[one] for one, said in state.releases.items() if one in known and said not in UNPROVEN}
    changes: list[str] = []
    missing: list[str] = []
    for slot in SlotName:
        release_id, found, last = state.slots.get(slot), aliases.get(slot), _last_put(model, slot)
        version = known.get(release_id) if release_id else None
        if release_id and version is None:
            missing.append(f"Release {release_id[:12]} in slot {slot} is not registered in MLflow.")
        if found != version:
            if found != last or (found is not None and found not in proven):
                report(_edit(client, model, slot, found))
            changes.append(_put(client, product, slot, version, found))
        if last != version:
            client.set_registered_model_tag(product, f"mirrored_{slot}", version or EMPTY)
    return Mirrored(tuple(changes), " ".join(missing))


def _put(client: "MlflowClient", product: str, slot: SlotName, version: str | None, found: str | None) -> str:
    if version is None:
        client.delete_registered_model_alias(product, slot)
        return f"{slot} is empty (was version {found})"
    client.set_registered_model_alias(product, slot, version)
    return f"{slot} is version {version} (was {found or 'unset'})"


def _edit(client: "MlflowClient", model: "RegisteredModel", slot: SlotName, found: str | None) -> AliasEdit:
    said = client.get_model_version(model.name, found).tags.get("release_id", "") if found else ""
    release_id = said if SHA256.fullmatch(said) else None
    return AliasEdit(slot, found, release_id, str(model.tags.get("mlflow.user") or "unknown")[:200])


def _last_put(model: "RegisteredModel", slot: SlotName) -> str | None:
    """The version to which the mirror last set an alias, None where it was unset or never set."""
    said = str(model.tags.get(f"mirrored_{slot}", EMPTY))
    return None if said == EMPTY else said
