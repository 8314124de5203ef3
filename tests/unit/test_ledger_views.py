"""Views of a ledger: cheap heads, and a view that stays what it is while others write."""

import threading
from pathlib import Path

import pytest

from ml_platform.lineage.keys import SigningKey
from ml_platform.release.controller import Controller
from tests.samples.releases import NOW, PRODUCT, make_controller, make_policy, make_release, pin

KEY = SigningKey.generate()


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = make_controller(tmp_path, KEY)
    pin(made)
    return made


def test_a_view_does_not_change_when_another_thread_writes(controller: Controller) -> None:
    with controller.ledger.read(PRODUCT) as view:
        before = view.state
        writer = threading.Thread(target=controller.register_release, args=(make_release(), make_policy(), NOW, "run"))
        writer.start()
        writer.join()
        assert view.state == before
    assert controller.state(PRODUCT).sequence == before.sequence + 1
    with controller.ledger.read(PRODUCT) as view:
        assert view.state == controller.state(PRODUCT)


def test_heads_name_the_last_event_of_every_product(controller: Controller) -> None:
    assert controller.ledger.heads() == {PRODUCT: controller.state(PRODUCT).head_sha256}
    other = make_release(product="another")
    controller.register_release(other, make_policy(), NOW, "run")
    heads = controller.ledger.heads()
    assert heads == {name: controller.state(name).head_sha256 for name in ("another", PRODUCT)}


def test_the_last_good_release_and_the_rollout_follow_from_the_moves(controller: Controller) -> None:
    from ml_platform.contracts.events import ReleaseEligible
    from ml_platform.contracts.slot_moves import CanaryOpened, ReleasePromoted, ReleaseRolledBack

    names = []
    for seed in (1, 2, 3):
        release, policy = make_release(seed=seed), make_policy()
        controller.register_release(release, policy, NOW, "run")
        name = release.release_id
        names.append(name)
        with controller.ledger.write(PRODUCT, NOW, "run") as transaction:
            transaction.append(ReleaseEligible(release_id=name, policy_sha256=policy.sha256, expires_at=NOW))
            opened = transaction.append(CanaryOpened(release_id=name, step=1, exposure=0.05))
            assert transaction.state.rollout == f"{name}#{opened.sequence}"
            transaction.append(ReleasePromoted(release_id=name))
        assert controller.state(PRODUCT).rollout == ""
    assert controller.state(PRODUCT).last_good == names[1]
    with controller.ledger.write(PRODUCT, NOW, "run") as transaction:
        transaction.append(ReleaseRolledBack(release_id=names[2], to=names[1], reason="r"))
    assert controller.state(PRODUCT).last_good == names[0]
