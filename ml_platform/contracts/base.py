"""What every contract has in common: frozen, closed to unknown keys, and read with a helpful error."""

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from ml_platform.contracts.canonical import canonical_bytes, digest
from ml_platform.contracts.explain import explain
from ml_platform.contracts.reading import read_mapping
from ml_platform.errors import ContractError

__all__ = [
    "Column",
    "Contract",
    "Finite",
    "GrowingContract",
    "Name",
    "SemanticVersion",
    "Sha256",
    "Share",
    "read_mapping",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Column = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
"""The name of a source's column, whatever people called it."""
SemanticVersion = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Contract(BaseModel):
    """A frozen value that crosses a file, a process or a network; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def canonical_bytes(self) -> bytes:
        """The bytes that are hashed, signed and stored."""
        return canonical_bytes(self)

    @property
    def sha256(self) -> str:
        """The digest that names this value."""
        return digest(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The value in a YAML or JSON file.

        Raises ContractError that names the file, the key, what was expected and the nearest known key.
        """
        return cls.parse(read_mapping(path), where=str(path))

    @classmethod
    def parse(cls, data: Any, *, where: str) -> Self:
        """The value of plain data, as strict as JSON: a truth value or a text is no number, 1.0 no integer.

        `where` is what errors call the origin of the data. Raises ContractError like `read`.
        """
        try:
            text = json.dumps(data, default=_spelled)
        except (TypeError, ValueError, RecursionError) as error:
            raise ContractError(f"{where}: holds what JSON cannot express: {error}.") from None
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise ContractError(explain(cls, error, data, where)) from None


class GrowingContract(Contract):
    """A value that is kept for years under its digest, and got fields since: what is older keeps its bytes.

    `came_later` names the fields that stand in the canonical JSON only where they hold something.
    """

    came_later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = write(self)
        return {name: value for name, value in plain.items() if value is not None or name not in self.came_later}


def _spelled(value: Any) -> Any:
    """The JSON spelling of what YAML and our own dumps hold beyond JSON: dates, times and contracts."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} of type {type(value).__name__}")
