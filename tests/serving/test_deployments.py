"""Deployments are swapped whole, and only forward."""

import pytest

from ml_platform.serving.deployment import Deployments
from tests.samples.serving import PRODUCT, deploy, make_loaded

ONE, TWO = make_loaded(1), make_loaded(2)


def test_a_swap_replaces_the_whole_deployment_and_returns_the_former() -> None:
    deployments = Deployments()
    assert (deployments.of(PRODUCT), deployments.products()) == (None, ())
    first, second = deploy(1, ONE), deploy(2, TWO)
    assert deployments.swap(first) is None
    held = deployments.of(PRODUCT)
    assert deployments.swap(second) is first
    assert deployments.of(PRODUCT) is second
    assert held is first
    assert list(first.releases) == [ONE.release_id]


def test_an_older_epoch_never_comes_back_and_the_same_one_may_be_completed() -> None:
    deployments = Deployments()
    deployments.swap(deploy(5, ONE))
    with pytest.raises(ValueError, match="serves epoch 5 and 4 is older"):
        deployments.swap(deploy(4, TWO))
    complete = deploy(5, ONE, TWO, canary=TWO)
    deployments.swap(complete)
    assert deployments.of(PRODUCT) is complete


def test_products_do_not_touch_each_other_and_one_that_is_removed_is_gone() -> None:
    deployments = Deployments()
    other = make_loaded(3, product="other")
    deployments.swap(deploy(9, ONE))
    deployments.swap(deploy(1, other))
    assert deployments.products() == (PRODUCT, "other")
    deployments.remove(PRODUCT)
    assert deployments.products() == ("other",)
    deployments.swap(deploy(1, ONE))


def test_what_is_named_and_not_loaded_is_missing() -> None:
    deployment = deploy(1, ONE, canary=TWO, last_good=TWO)
    assert deployment.missing == {TWO.release_id}
