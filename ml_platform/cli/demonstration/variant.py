"""The variant of a product that a demonstration plays: its folder, copied, with the plan's changes merged in."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_platform.cli.demonstration.plan import PLAN, Form
from ml_platform.contracts.base import read_mapping
from ml_platform.errors import InvalidInputError

NAMES = ("gate", "metric", "signal")
"""What tells the members of a list from each other, where they are mappings that are known by name."""
ABSENT = "absent"
WRITTEN = "# Written by `mlp demo` out of {source} and the changes in its {plan}. Edits are lost.\n"


def write_variant(source: Path, form: Form, below: Path) -> Path:
    """The folder of the variant below `below`, made anew; the product in `source` stays as it is.

    Raises InvalidInputError for a change to a file that the product does not have.
    """
    folder = below / form.product
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", PLAN))
    changes = {"product.yaml": {"name": form.product}}
    for name in (*form.changes, *form.edits):
        if not (folder / name).is_file():
            raise InvalidInputError(f"{source / PLAN}: changes name {name}, which is no file of {source.name}.")
    for name in dict.fromkeys((*changes, *form.changes)):
        path = folder / name
        merged = merge(read_mapping(path), {**form.changes.get(name, {}), **changes.get(name, {})})
        path.write_text(WRITTEN.format(source=source.name, plan=PLAN) + _yaml(merged), encoding="utf-8")
    for name, edits in form.edits.items():
        path = folder / name
        path.write_text(edited(path.read_text(encoding="utf-8"), edits, name), encoding="utf-8")
    return folder


def edited(text: str, edits: Mapping[str, str], name: str) -> str:
    """A file's text with each of the edits in it. Raises InvalidInputError for one that finds nothing."""
    for old, new in edits.items():
        if old not in text:
            raise InvalidInputError(f"{PLAN}: {name} has no text {old!r}. Correct it.")
        text = text.replace(old, new)
    return text


def merge(old: Any, new: Any) -> Any:
    """The old value with the new one's parts in it: mappings by key, lists by their members' names, the rest replaced.

    A member of a list that is known by name changes in its place; one that was not there is added, and one that is
    `absent` left out.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
    known = _by_name(old)
    changed = _by_name(new)
    if known and changed:
        members = {**known, **{name: merge(known.get(name), one) for name, one in changed.items()}}
        return [one for one in members.values() if not one.get(ABSENT)]
    return new


def _by_name(values: Any) -> dict[str, Any]:
    """The members of a list by name; empty where it is no list of named mappings."""
    if not isinstance(values, list) or not all(isinstance(one, Mapping) for one in values):
        return {}
    key = next((key for key in NAMES if all(key in one for one in values)), None)
    return {str(one[key]): one for one in values} if key else {}


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)
