"""The ledger's bell: on PostgreSQL every append rings it, so that nobody has to look to know."""

from ml_platform.errors import StorageError
from ml_platform.lineage.databases import read_url, shown
from ml_platform.lineage.ledger_schema import BELL


def rings(url: str) -> bool:
    """Whether a ledger at this URL has a bell; SQLite has none."""
    return read_url(url, "ledger").get_backend_name() == "postgresql"


class Bell:
    """Listens on a connection of its own; StorageError when it breaks. Who listens may still miss what rang before."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._name = f"ledger {shown(url)}"
        conninfo = read_url(url, "ledger").set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            self._connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)
            self._connection.execute(f"LISTEN {BELL}")
        except psycopg.Error as error:
            raise StorageError(f"{self._name}: cannot be listened to: {error}") from error

    def wait(self, seconds: float) -> bool:
        """Whether it rang within so many seconds."""
        import psycopg

        try:
            return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error as error:
            raise StorageError(f"{self._name}: the connection that listened broke: {error}") from error

    def close(self) -> None:
        """Stops listening."""
        self._connection.close()
