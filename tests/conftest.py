"""What every test finds in its environment: quiet libraries, no network, and no state of the developer's own."""

import os
import signal
from collections.abc import Iterator

# Before Feast, which would have it keep figures in files that stay open and are complained of below pytest's summary.
import prometheus_client  # noqa: F401
import pytest
from hypothesis import settings

from ml_platform.cli.environment import prepare_environment


def heed_signals() -> None:
    """Whoever starts the tests in the background has Ctrl-C ignored, and children inherit what is ignored: they would
    never end when a test ends them."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


heed_signals()
# Before any test module is imported: torch reads OMP_WAIT_POLICY when it is loaded.
prepare_environment()
os.environ.setdefault("MPLBACKEND", "Agg")

# A busy machine must not fail a property; no test is about speed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FOREIGN = ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS")
OURS, ASKED_FOR = "ML_PLATFORM_", "ML_PLATFORM_VLLM_"
"""Variables of a developer's shell let tests read or write what is not theirs; a vLLM server is named on purpose."""

for variable in [*os.environ]:
    if variable in FOREIGN or (variable.startswith(OURS) and not variable.startswith(ASKED_FOR)):
        del os.environ[variable]


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A home away from the checkout for tests that name none; it is created only by what writes to it."""
    os.environ["ML_PLATFORM_HOME"] = str(tmp_path_factory.getbasetemp() / "nobodys-home")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str | None]:
    """A PostgreSQL for all tests of this process, None where none is installed; `make_database` makes each its own."""
    from tests.samples.postgres import running_postgres

    with running_postgres() as url:
        yield url


@pytest.fixture(autouse=True)
def heeded_signals() -> None:
    """No test leaves a signal ignored for those that follow."""
    heed_signals()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the mark `early` come first: at the end one process would work through them while the other waits."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)
