"""Databases: what all of our stores say when one does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from ml_platform.errors import BusyError, StorageError


def shown(url: str | URL) -> str:
    """The URL without its password; of one that cannot be read nothing is shown, for nobody knows where it stands."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "at a URL that cannot be read"


@contextmanager
def explained(store: str, consequence: str) -> Iterator[None]:
    """Raises BusyError where another process holds a lock for long, StorageError for all else that a database raises.

    `store` names the store and its place, without a password; `consequence` is a sentence for people.
    """
    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig):
            raise BusyError(f"{store}: another process has been writing for long. Try again.") from error
        raise StorageError(f"{store}: {error.orig}. {consequence}") from error
    except DBAPIError as error:
        raise StorageError(f"{store}: {error.orig}. {consequence}") from error
    except OSError as error:
        raise StorageError(f"{store}: {error}. {consequence}") from error
