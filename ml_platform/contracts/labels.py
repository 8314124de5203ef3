"""How labels are spelled: contracts list texts, answers hold what JSON has, so that 1 is "1" and true is "true"."""

from collections.abc import Iterable


def label_text(label: object) -> str:
    """A label as contracts list it and people read it: true and false as JSON writes them."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def is_among(label: object, listed: Iterable[str]) -> bool:
    """Whether a label is one of those that a contract lists; Python's own `True` and `False` may stand there too.

    What is no label, such as the None of a missing field, is among none.
    """
    return isinstance(label, str | int | float) and not {label_text(label), str(label)}.isdisjoint(listed)
