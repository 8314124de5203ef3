"""Spelling: how a cell is written where only text goes, and how a row is called."""

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
