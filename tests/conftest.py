"""What every test finds in its environment: quiet libraries, no network, and no state of the developer's own."""

import os

# Before Feast, which would have it keep figures in files that stay open and are complained of below pytest's summary.
import prometheus_client  # noqa: F401
import pytest
from hypothesis import settings

from ml_platform.cli.environment import prepare_environment

# Before any test module is imported: torch reads OMP_WAIT_POLICY when it is loaded.
prepare_environment()
os.environ.setdefault("MPLBACKEND", "Agg")

# A busy machine must not fail a property; no test is about speed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FOREIGN = (
    "DAGSTER_HOME",
    "ML_PLATFORM_ARTIFACT_URL",
    "ML_PLATFORM_CHECKOUT",
    "ML_PLATFORM_HOME",
    "ML_PLATFORM_LEDGER_URL",
    "ML_PLATFORM_PRODUCTS",
    "ML_PLATFORM_PROVENANCE_URL",
    "ML_PLATFORM_SIGNING_KEY",
    "ML_PLATFORM_SIGNING_KEY_FILE",
    "ML_PLATFORM_TRUSTED_KEYS",
    "MLFLOW_TRACKING_URI",
)
"""Variables of a developer's shell that would let tests read or write what is not theirs."""

for variable in FOREIGN:
    os.environ.pop(variable, None)


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A home away from the checkout for tests that name none; it is created only by what writes to it."""
    os.environ["ML_PLATFORM_HOME"] = str(tmp_path_factory.getbasetemp() / "nobodys-home")
