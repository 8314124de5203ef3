"""A product of parcels whose past can be played: people ask where theirs is, and a day later it came."""

from pathlib import Path

import yaml

from benchmarks.tiny_product import write_tiny_product

HOOK = """
from datetime import timedelta
from ml_platform.serving.replay.traffic import Asked, Happened

def traffic(context):
    for row in context.table("parcels").to_dict("records"):
        name, at = row["parcel_id"], row["asked_at"].to_pydatetime()
        yield Asked(at, name, context.user(name), f"Where is {name}?", {"parcel_id": name})
        yield Happened(at + timedelta(hours=30), f"{name}/came", {"parcel_id": name}, {"state": row["state"]})
"""


def write_replayed_product(root: Path, name: str = "parcel_desk") -> Path:
    """The product's folder below `root`, with its data, its serving.yaml and its hook."""
    folder = write_tiny_product(root, name)
    plain = yaml.safe_load((folder / "product.yaml").read_text(encoding="utf-8"))
    plain["files"]["serving"] = "serving.yaml"
    plain["examples"]["facts"] = []
    (folder / "product.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    serving = {"version": "1.0.0", "entity": ["parcel_id"], "replay": "replay.py:traffic"}
    (folder / "serving.yaml").write_text(yaml.safe_dump(serving), encoding="utf-8")
    (folder / "replay.py").write_text(HOOK, encoding="utf-8")
    return folder
