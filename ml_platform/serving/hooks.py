"""Hooks of releases: Python functions that come with a release's content, and never from a folder of products.

Two releases may hold two versions of one file: each is a module of its own, named by the digest of its text.
"""

import hashlib
import linecache
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ml_platform.errors import ContractError

PREFIX = "ml_platform_hook"


def load_hook(reference: str, sources: Mapping[str, str], release_id: str) -> Callable[..., Any]:
    """The function that `file.py:function` names in the sources of a release.

    The file is run from memory, once a digest; it sees the libraries that are installed and no other file of the
    product. Raises ContractError that names the release when there is no such file or function, or it fails.
    """
    file, _, function = reference.partition(":")
    where = f"release {release_id[:12]}: hook '{reference}'"
    if file not in sources:
        raise ContractError(f"{where}: its content holds no file {file}. Release again with the file in the folder.")
    module = _module(file, sources[file], where)
    found = getattr(module, function, None)
    if not callable(found):
        raise ContractError(f"{where}: {file} has no function '{function}'. Correct serving.yaml and release again.")
    return found  # type: ignore[no-any-return]


def _module(file: str, source: str, where: str) -> ModuleType:
    """The module of a text, registered as dataclasses need it; the same text is the same module."""
    name = f"{PREFIX}_{hashlib.sha256(chr(10).join((file, source)).encode()).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    path = f"<{name}>/{file}"
    module = ModuleType(name)
    module.__file__ = path
    # What a traceback shows of it: there is no file to read the lines from.
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))  # noqa: S102 - code that the release's digest names
    except BaseException as error:
        del sys.modules[name]
        linecache.cache.pop(path, None)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise ContractError(f"{where}: {file} cannot be imported here: {type(error).__name__}: {error}") from error
    return module
