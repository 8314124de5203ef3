"""The secret that lets the gateway, and nobody else, talk to the engine of a home."""

import os
import secrets
import tempfile
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.errors import EvidenceError


def token_path(home: Home) -> Path:
    """Where the engine's token lies unless a file is named."""
    return home.keys / "engine_token"


def engine_token(path: Path) -> str:
    """The token in that file, made on first use, 0600; processes that start at once get the same one.

    Raises EvidenceError for a file that others can read, or that is empty.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".engine_token-")  # made 0600
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(name)
        except FileExistsError:
            pass
        finally:
            Path(name).unlink()
    if path.stat().st_mode & 0o077:
        raise EvidenceError(f"{path} can be read by others. Run: chmod 600 {path}, and let a new token be made.")
    token = path.read_text(encoding="ascii").strip()
    if not token:
        raise EvidenceError(f"{path} is empty. Delete it, and start the engine and the gateways again.")
    return token
