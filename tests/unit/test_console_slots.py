"""What the console's view of the ledger tells of the slots."""

from datetime import timedelta
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.lineage.ledger import Ledger
from ml_platform.serving.gateway.console.slots import read_ledger
from tests.samples.followed import World, epoch_of


def test_production_that_came_back_serves_since_it_came_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    world, ledger = World(home, home.ledger_url), Ledger(home.ledger_url)
    first, second = world.serve(1), world.serve(2)
    promoted = read_ledger(ledger, world.product).slots[SlotName.PRODUCTION]
    assert promoted.release_id == second
    later = world.now + timedelta(hours=7)
    epoch_of(world.controller.roll_back(world.product, "it harms", later, "ops"))
    back = read_ledger(ledger, world.product).slots[SlotName.PRODUCTION]
    assert (back.release_id, back.since) == (first, later)
