"""Labels are kept once each, for good, and the newest of a labeller counts."""

import threading
from datetime import timedelta

import pytest

from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.provenance import LoggedContract
from ml_platform.errors import BusyError, ContractError, StorageError
from ml_platform.lineage.labels import Kept, LabelStore
from tests.samples.answered import ASKED, CLOCK
from tests.samples.provenance import PRODUCT, response_id_of


def label(answer: str | None = "yes", by: str = "ana", number: int = 1, minutes: int = 0) -> GivenLabel:
    return GivenLabel(
        product=PRODUCT,
        response_id=response_id_of(number),
        labeller=by,
        answer=answer,
        reason=None if answer else "nobody knows",
        labelled_at=CLOCK + timedelta(minutes=minutes),
        known_at=ASKED + timedelta(minutes=minutes),
    )


def test_put_again_it_changes_nothing_and_another_answer_takes_its_place(labels: LabelStore) -> None:
    assert labels.put(label()) is Kept.NEW
    assert labels.put(label(minutes=5)) is Kept.SAME
    assert labels.put(label("no", minutes=6)) is Kept.CHANGED
    assert labels.put(label(minutes=7)) is Kept.CHANGED
    assert labels.put(label(None, minutes=8)) is Kept.CHANGED
    assert [one.answer for one in labels.all(PRODUCT)] == ["yes", "no", "yes", None]
    assert labels.all("other_product") == []


def test_labellers_and_responses_do_not_get_in_each_others_way(labels: LabelStore) -> None:
    for number in range(3):
        for by in ("ana", "ben"):
            assert labels.put(label(by=by, number=number)) is Kept.NEW
    assert len(labels.all(PRODUCT)) == 6


def test_many_who_put_the_same_at_once_put_it_once(url: str) -> None:
    stores, kept = [LabelStore(url) for _ in range(4)], []
    LabelStore(url).close()

    def put(store: LabelStore) -> None:
        for number in range(10):
            for attempt in range(50):
                try:
                    kept.append(store.put(label(number=number)))
                    break
                except BusyError:
                    assert attempt < 49

    threads = [threading.Thread(target=put, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert kept.count(Kept.NEW) == 10
    assert kept.count(Kept.SAME) == 30
    assert len(stores[0].all(PRODUCT)) == 10
    for store in stores:
        store.close()


def test_a_store_that_is_down_says_so() -> None:
    with pytest.raises(StorageError, match="127"):
        LabelStore("postgresql://nobody:secret@127.0.0.1:1/none").all(PRODUCT)


@pytest.mark.parametrize("by", ["", "ana@example.org", "an a", "x" * 64, "-ana"])
def test_a_labeller_is_a_handle_and_no_address(by: str) -> None:
    plain = label().model_dump(mode="json") | {"labeller": by}
    with pytest.raises(ContractError, match="labeller"):
        GivenLabel.parse(plain, where="a label")


def test_a_label_says_either_what_or_why_not() -> None:
    for changes in ({"answer": None}, {"reason": "x"}):
        with pytest.raises(ContractError, match="either an answer or the reason"):
            GivenLabel.parse(label().model_dump(mode="json") | changes, where="a label")


def test_a_label_is_what_was_written(labels: LabelStore) -> None:
    labels.put(label("Zürich ✈ 'quoted' \\ \x00".replace("\x00", "")))
    (found,) = labels.all(PRODUCT)
    assert isinstance(found, LoggedContract)
    assert found.answer == "Zürich ✈ 'quoted' \\ "
