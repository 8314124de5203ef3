"""The code that this process runs, as it was when the process loaded it."""

from pathlib import Path

import ml_platform
from ml_platform.contracts.canonical import sources_sha256
from ml_platform.errors import IntegrityError

_PACKAGE = Path(ml_platform.__file__).parent


def library_sha256() -> str:
    """The digest of the library's sources as they lie on the disk now."""
    return sources_sha256([_PACKAGE], _PACKAGE)


LOADED = library_sha256()


def require_code_as_loaded() -> None:
    """Raises IntegrityError where the sources on the disk are others than when this process began.

    Recipes and evidence name the sources on the disk. A backfill of hours would sign what old modules in its memory
    make as the work of the code that was pulled since, and every later run would find it again as such.
    """
    if library_sha256() != LOADED:
        raise IntegrityError(
            f"the sources below {_PACKAGE} changed after this process had loaded them: what it makes would be signed "
            "as the work of code that never ran. Run again (in the UI, reload the code location first): what was made "
            "before is found again."
        )
