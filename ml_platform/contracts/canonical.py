"""One byte string for one value, and the digest that names it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

CHUNK_BYTES = 1 << 20


def canonical_bytes(value: Any) -> bytes:
    """The only byte string that stands for `value`: JSON with sorted keys, no spaces, UTF-8, no NaN.

    Contracts are dumped in JSON mode first, so that dates and enums have one spelling.
    Raises ValueError for NaN, infinity and half surrogates, TypeError for values that JSON does not know and
    for keys that are no text: JSON would write 1 and "1" alike, and two values would share a digest.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    _require_text_keys(plain)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _require_text_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is {type(key).__name__}, canonical JSON has text keys only.")
            _require_text_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_text_keys(inner)


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def bytes_sha256(data: bytes) -> str:
    """SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, read in pieces of 1 MiB."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            sha.update(piece)
    return sha.hexdigest()


def sources_sha256(paths: Iterable[Path], root: Path) -> str:
    """One digest for source files: their names below `root` and their bytes, in sorted order.

    Folders stand for the `.py` files below them. Line ends are those of the files.
    """
    files: set[Path] = set()
    for path in paths:
        files.update(path.rglob("*.py") if path.is_dir() else [path])
    return digest({path.relative_to(root).as_posix(): file_sha256(path) for path in sorted(files)})
