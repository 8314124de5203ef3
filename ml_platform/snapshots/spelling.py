"""Spelling: how a cell is written where only text goes, and how a row is called."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any


def spoken(value: Any) -> str:
    """A cell in words: nothing for an empty one, ISO 8601 for a time, 3 for 3.0."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)


def row_name(key: Sequence[Any]) -> str:
    """What a row is called by the cells of its key, joined by `/`: distinct keys give distinct names.

    As spoken, but with the fraction of a second where a time has one. In a key of several columns a text writes its own
    `/` as `%2F` and `%` as `%25`, and one that is empty is `%`, for it is none that is missing.
    """
    return "/".join(_named(cell, alone=len(key) == 1) for cell in key)


def plain(value: Any) -> Any:
    """A cell of a DataFrame as Python's own type; None for NaN, NaT and NA."""
    import pandas as pd

    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value


def _named(cell: Any, *, alone: bool) -> str:
    if isinstance(cell, datetime) and cell.microsecond:
        return cell.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(cell, str) and not alone:
        return cell.replace("%", "%25").replace("/", "%2F") or "%"
    return spoken(cell)
