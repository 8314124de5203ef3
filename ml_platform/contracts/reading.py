"""YAML and JSON as plain data, with nothing silently lost: repeated keys and numbers that are none are refused."""

import json
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ml_platform.errors import ContractError


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises ContractError that names the file and line for anything else: no mapping, no UTF-8, a key
    that stands twice (YAML would silently keep the last) or is no text, NaN in JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(f"{path}: there is no such file. Create it, or correct the path.") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}.") from None
    return parse_mapping(text, where=str(path), as_json=path.suffix == ".json")


def parse_mapping(text: str, *, where: str, as_json: bool = False) -> dict[str, Any]:
    """The mapping in a text; see read_mapping. `where` is what errors call its origin."""
    try:
        data = parse_json(text) if as_json else yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ContractError(f"{where}: is nested too deeply to be read.") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ContractError(f"{where}: cannot be parsed: {error}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ContractError(f"{where}: holds {found}, expected a mapping of keys to values.")
    return data


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is no JSON, for a key that stands twice and for NaN, RecursionError for too deep a text.
    """
    return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = min(name for name in found if names.count(name) > 1)
        raise ValueError(f"key '{repeated}' stands there more than once. Keep one.")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number. Write a finite number, or null.")


class _PlainLoader(yaml.SafeLoader):
    """The safe loader, but keys are text and stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See SafeLoader; keys that `<<` merges in may be overridden, as always."""
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise TypeError(f"line {line}: key {key!r} is no text but {type(key).__name__}. Put it in quotes.")
            if key in lines:
                raise ValueError(f"key '{key}' stands in line {lines[key]} and again in line {line}. Keep one.")
            lines[key] = line
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        """See SafeLoader; what only looks like a time stays text, for the contract knows the key to name."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            return node.value


_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.construct_yaml_timestamp)
