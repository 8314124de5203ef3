"""The composition root: every product folder becomes a chain of assets, two jobs, a schedule and two sensors.

Products are the folders below `products/` beside this file and those that ML_PLATFORM_PRODUCTS names. A folder
that cannot be read becomes one asset that shows its error, so that one team's typing error does
not take away the chains of the others. Loading reads YAML and nothing else. Nothing imports this file.
"""

import logging
import warnings
from collections.abc import Iterable
from pathlib import Path

from dagster import Definitions, PreviewWarning, in_process_executor

from assets.broken_product import broken_product_asset
from assets.candidate import adapter_verifies_check, candidate_asset
from assets.chain import Chain
from assets.continuous_training import continuous_training_job, weekly_schedule
from assets.drift_report import drift_report_asset
from assets.eval_report import eval_report_asset, gates_pass_check
from assets.live_window import live_window_asset
from assets.monitoring import monitoring_job
from assets.online_features import online_features_asset
from assets.quality_report import quality_report_asset
from assets.release import canary_asset, release_assets
from assets.snapshot import schema_valid_check, snapshot_asset
from assets.training_set import no_leakage_check, training_set_asset
from ml_platform.contracts.products import load_product, product_folders
from ml_platform.errors import ContractError
from resources.launcher import launcher_from_environment
from resources.manifests import ManifestIOManager
from resources.runs import store_of_a_run
from resources.state import PROJECT, as_it_stands
from sensors.continuous_training import retrain_sensor
from sensors.reports import reports_sensor


def product_definitions(folder: Path) -> Definitions:
    """The chain, job and schedule of the product in a folder, or the error that it cannot be read."""
    try:
        return chain_definitions(Chain(load_product(folder)))
    except ContractError as error:
        logging.getLogger(__name__).warning("Product %s has no chain. %s", folder.name, error)
        return Definitions(assets=[broken_product_asset(folder, error)])
    except Exception as error:
        # Whatever a folder holds that nobody thought of must not take the other products' chains away.
        logging.getLogger(__name__).exception("Product %s has no chain.", folder.name)
        return Definitions(assets=[broken_product_asset(folder, error)])


def chain_definitions(chain: Chain) -> Definitions:
    """The assets, checks, jobs, schedule and sensors of one product."""
    job, watching = continuous_training_job(chain), monitoring_job(chain)
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster 1.13; without them no check could say which day it judged.
        warnings.simplefilter("ignore", PreviewWarning)
        checks = [
            schema_valid_check(chain),
            no_leakage_check(chain),
            adapter_verifies_check(chain),
            gates_pass_check(chain),
        ]
    return Definitions(
        assets=[
            snapshot_asset(chain),
            training_set_asset(chain),
            candidate_asset(chain),
            eval_report_asset(chain),
            release_assets(chain),
            canary_asset(chain),
            online_features_asset(chain),
            drift_report_asset(chain),
            live_window_asset(chain),
            quality_report_asset(chain),
        ],
        asset_checks=checks,
        jobs=[job, watching],
        schedules=[weekly_schedule(chain, job)],
        sensors=[retrain_sensor(chain.product, job), reports_sensor(chain.product, watching)],
    )


def platform_definitions(folders: Iterable[Path]) -> Definitions:
    """The definitions of the products in these folders with the resources they share; steps run in one process."""
    shared = Definitions(
        resources={
            "store": store_of_a_run(),
            "io_manager": as_it_stands(ManifestIOManager()),
            "launcher": as_it_stands(launcher_from_environment()),
        },
        executor=in_process_executor,
    )
    return Definitions.merge(shared, *map(product_definitions, folders))


defs = platform_definitions(product_folders(PROJECT / "products").values())
