"""Retention: everything that a decision used is kept with it, so that anybody can make it again years later."""

import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Decision, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.errors import ArtifactCorruptError, ContractError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import keep_content

KIND = "decision"
DECISION, SEEN = "decision.json", "seen.jsonl.gz"


def keep_decision(
    store: ArtifactStore, decision: Decision, seen: Iterable[Seen], policies: Iterable[MonitorPolicy] = ()
) -> str:
    """Keeps a decision with every answer that it was made on, and the policies that it was made by; returns the digest.

    The answers' order does not matter, and of one that came several times the last counts. Kept again, it is the same.
    Raises StorageError when it cannot be stored: a decision that nobody could check is not to be carried out.
    """
    last = {one.response_id: one for one in seen}
    lines = b"".join(_line(last[name]) for name in sorted(last))
    for policy in policies:
        keep_content(store, policy)

    def build(folder: Path) -> dict[str, Any]:
        (folder / DECISION).write_bytes(decision.canonical_bytes())
        # Without the time of packing, so that the same answers are the same bytes.
        (folder / SEEN).write_bytes(gzip.compress(lines, compresslevel=1, mtime=0))
        return {
            "product": decision.product,
            "action": decision.action.value,
            "release_id": decision.release_id,
            "answers": len(last),
        }

    return store.make(KIND, {"decision_sha256": decision.sha256, "seen_sha256": bytes_sha256(lines)}, build).sha256


def load_kept(store: ArtifactStore, sha256: str) -> tuple[Decision, tuple[Seen, ...]]:
    """A decision that was kept, and the answers that it was made on, by their names.

    Raises ArtifactCorruptError when it is missing or is not what was kept.
    """
    kept = store.open(KIND, sha256)
    try:
        decision = Decision.parse(json.loads(kept.file(DECISION).read_bytes()), where=str(kept.file(DECISION)))
        seen = tuple(_seen(kept.file(SEEN)))
    except (ContractError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ArtifactCorruptError(
            f"{kept.path}: is no kept decision of this version of the code ({type(error).__name__}: {error}). Read it "
            "with the version that wrote it."
        ) from None
    return decision, seen


def _line(one: Seen) -> bytes:
    """An answer as a line; `json` takes twice as long, and what stops waits for up to 50,000 of them."""
    plain = {
        "response_id": one.response_id,
        "release_id": one.release_id,
        "cohort": one.cohort.value,
        "epoch": one.epoch,
        "exposure": one.exposure,
        "at": one.at,
        "answered_at": one.answered_at,
        "user": one.user,
        "signals": {signal.value: value for signal, value in one.signals.items()},
        "mature": one.mature,
        "labelled": one.labelled,
    }
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _seen(path: Path) -> Iterator[Seen]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            plain = json.loads(line)
            yield Seen(
                **plain
                | {
                    "cohort": Cohort(plain["cohort"]),
                    "at": datetime.fromisoformat(plain["at"]),
                    "answered_at": datetime.fromisoformat(plain["answered_at"]),
                    "signals": {Signal(name): value for name, value in plain["signals"].items()},
                }
            )
