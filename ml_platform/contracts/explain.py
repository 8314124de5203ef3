"""Why plain data does not fit a contract, in words for the person who wrote it."""

import difflib
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

LONGEST_INPUT = 80
NAMES_OF_ITEMS = ("gate", "level", "fact", "name", "metric")
"""Keys by which people know an item of a list better than by its number."""


def explain(model: type[BaseModel], error: ValidationError, data: Any, where: str) -> str:
    """One line a problem: the origin, the key, what was found, what was expected, the nearest known name."""
    return "\n".join(f"{where}: {_sentence(model, problem, data)}" for problem in error.errors(include_url=False))


def _sentence(model: type[BaseModel], problem: ErrorDetails, data: Any) -> str:
    place = _Place(model, data)
    for part in problem["loc"]:
        place = place.inside(part)
    kind, context = problem["type"], problem.get("ctx", {})
    at = f"key '{place.key}'" if place.key else "the whole"
    if kind == "extra_forbidden":
        return f"unknown key '{place.key}': {nearest_name(str(problem['loc'][-1]), place.siblings, 'known keys')}"
    if kind == "missing":
        return f"{at} is missing and has no default. Add it."
    if kind == "union_tag_not_found":
        return f"{at} has no '{place.discriminator}'. Add one of: {', '.join(place.tags)}."
    if kind == "union_tag_invalid":
        nearest = nearest_name(str(context.get("tag")), place.tags, "expected one of")
        return f"key '{place.key}.{place.discriminator}': unknown value '{context.get('tag')}': {nearest}"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".").replace("Input should be", "expected")
    if isinstance(problem["input"], str) and place.choices:
        nearest = nearest_name(problem["input"], place.choices, "expected one of")
        return f"{at}: unknown value '{problem['input']}': {nearest}"
    if kind == "value_error" or isinstance(problem["input"], dict | list):
        return f"{at}: {message}." if place.key else f"{message}."
    hint = " Put it in quotes." if kind == "string_type" else ""
    return f"{at}: {message}, found {_shortened(problem['input'])}.{hint}"


def nearest_name(found: str, known: Sequence[str], introduction: str = "known") -> str:
    """The end of a message about an unknown name: the known one that looks most like it, or all of them."""
    nearest = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f"did you mean '{nearest[0]}'?" if nearest else f"{introduction}: {', '.join(known) or 'none'}."


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_INPUT else f"{text[:LONGEST_INPUT]}..."


class _Place:
    """A place in data and in the model at once: pydantic's locations hold union tags that are no keys."""

    def __init__(self, shape: Any, data: Any, key: str = "", siblings: tuple[str, ...] = ()) -> None:
        self.shape, self.discriminator = _plain(shape)
        self.data, self.key, self.siblings = data, key, siblings

    @property
    def members(self) -> tuple[Any, ...]:
        """The alternatives of a union without None, or the shape alone."""
        if get_origin(self.shape) in (Union, types.UnionType):
            return tuple(member for member in get_args(self.shape) if member is not type(None))
        return (self.shape,)

    @property
    def tags(self) -> tuple[str, ...]:
        """The values of the discriminator among the alternatives."""
        if self.discriminator is None:
            return ()
        return tuple(str(tag) for member in self.members for tag in _literals(member, self.discriminator))

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal or an enumeration, empty for any other shape."""
        return tuple(choice for member in self.members for choice in _choices(member))

    def inside(self, part: int | str) -> "_Place":
        """The place that one part of a location leads to; the same place for a tag."""
        if self.discriminator is not None:
            member = next((m for m in self.members if part in _literals(m, self.discriminator)), self.shape)
            return _Place(member, self.data, self.key, self.siblings)
        if len(self.members) > 1:
            return _Place(next((m for m in self.members if _label(m) == part), Any), self.data, self.key)
        shape = self.members[0]
        if isinstance(shape, type) and issubclass(shape, BaseModel):
            fields = shape.model_fields
            child = _declared(fields[part]) if part in fields else Any
            return _Place(child, _item(self.data, part), self._key(part), tuple(sorted(fields)))
        arguments = get_args(shape)
        is_mapping = get_origin(shape) is dict and part != "[key]"
        child = arguments[1] if is_mapping else arguments[0] if arguments else Any
        return _Place(child, _item(self.data, part), self._key(part))

    def _key(self, part: int | str) -> str:
        if part == "[key]":
            return self.key
        if isinstance(part, int):
            item = _item(self.data, part)
            names = [item[key] for key in NAMES_OF_ITEMS if key in item] if isinstance(item, dict) else []
            return f"{self.key}[{part}]" + (f" ({names[0]})" if names else "")
        return f"{self.key}.{part}" if self.key else part


def _plain(shape: Any) -> tuple[Any, str | None]:
    """A shape without its annotations, and the key that tells its alternatives apart."""
    discriminator = None
    while get_origin(shape) is Annotated:
        shape, *notes = get_args(shape)
        for note in notes:
            if isinstance(note, FieldInfo) and isinstance(note.discriminator, str):
                discriminator = note.discriminator
    return shape, discriminator


def _declared(field: FieldInfo) -> Any:
    return Annotated[field.annotation, field] if field.discriminator else field.annotation


def _literals(member: Any, discriminator: str) -> tuple[Any, ...]:
    return get_args(member.model_fields[discriminator].annotation)


def _choices(member: Any) -> Iterator[str]:
    shape, _ = _plain(member)
    if get_origin(shape) is Literal:
        yield from (str(choice) for choice in get_args(shape))
    elif isinstance(shape, type) and hasattr(shape, "__members__"):
        yield from (str(choice.value) for choice in shape.__members__.values())


def _label(member: Any) -> str:
    return getattr(member, "__name__", str(member))


def _item(data: Any, part: int | str) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
        return data[part]
    return None
