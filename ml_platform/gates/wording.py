"""Words for reasons: a person must see from the sentence alone what was found and what was required."""

from collections.abc import Mapping


def number(value: float | None, *, signed: bool = False) -> str:
    """A number for people: four significant digits, `none` for None."""
    if value is None:
        return "none"
    return format(value, "+.4g" if signed else ".4g")


def sentence(words: str, n: int) -> str:
    """The words with the number of items behind them."""
    return f"{words} (n = {n:,})."


def too_few(metric: str, n: int, min_n: int) -> str:
    """That a metric was measured on too little."""
    return f"{metric} was measured on {n:,} item(s), {min_n:,} are required."


def slice_name(slice_: Mapping[str, str]) -> str:
    """`origin = JFK`."""
    return ", ".join(f"{dimension} = {value}" for dimension, value in slice_.items()) or "all items"
