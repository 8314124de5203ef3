"""What this process and its children find in their environment, and where the Dagster layer lies."""

import os
import sys
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError

QUIET = {
    # Spinning OpenMP threads cost 10 to 30 times on a busy machine.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Nothing looks for a network, nothing phones home; Dagster's switch is in its dagster.yaml.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare_environment() -> None:
    """Sets what is not set: passive OpenMP threads, no network, no telemetry."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def find_checkout() -> Path:
    """The folder of definitions.py and launch.py: ML_PLATFORM_CHECKOUT, else the working directory.

    Raises InvalidInputError: the wheel holds the library and this command, the Dagster layer is a checkout.
    """
    from ml_platform.contracts.products import CHECKOUT

    named = os.environ.get(CHECKOUT)
    folder = Path(named or ".").resolve()
    missing = [file for file in ("definitions.py", "launch.py") if not (folder / file).is_file()]
    if missing:
        origin = f"{CHECKOUT} names {folder}, which" if named else f"the working directory {folder}"
        raise InvalidInputError(
            f"{origin} has no {' and no '.join(missing)}. Runs go through Dagster, whose layer is a checkout of "
            f"ml_platform: change into one, or name it in {CHECKOUT}."
        )
    return folder


def child_environment(home: Home) -> dict[str, str]:
    """The environment of processes that work on this home, wherever they run; its paths are absolute."""
    from ml_platform.contracts.products import CHECKOUT
    from ml_platform.contracts.products import VARIABLE as PRODUCTS

    folders = [part for part in os.environ.get(PRODUCTS, "").split(os.pathsep) if part]
    named = os.environ.get(CHECKOUT)
    return {
        **os.environ,
        **({CHECKOUT: str(Path(named).resolve())} if named else {}),
        "ML_PLATFORM_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        PRODUCTS: os.pathsep.join(str(Path(part).resolve()) for part in folders),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
