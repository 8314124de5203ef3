"""What a request brings is read by the types of the sources, and repeated nowhere."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.serving import ServingContent
from ml_platform.errors import ContractError, InvalidInputError
from ml_platform.serving.brought import read_brought, without_personal_data
from tests.samples.serving import EVALUATION

TYPES = {"Ticket ID": "integer", "Line": "string", "Weight": "number", "Urgent": "boolean", "Opened": "timestamp"}
GOOD: dict[str, Any] = {
    "Ticket ID": "4001", "Line": "Atlas", "Weight": "2.5", "Urgent": "true", "Opened": "2026-02-02T08:15:00Z",
}  # fmt: skip


def content(**changes: Any) -> ServingContent:
    spec = {"version": "1.0.0", "entity": ["Ticket ID"], "given": ["Line", "Weight", "Urgent", "Opened"]}
    plain = {"spec": spec | changes, "evaluation": EVALUATION, "features": None, "types": TYPES}
    return ServingContent.parse(plain, where="a test")


def test_texts_become_what_the_columns_hold_and_plain_values_stay() -> None:
    read = {
        "Ticket ID": 4001, "Line": "Atlas", "Weight": 2.5, "Urgent": True,
        "Opened": datetime(2026, 2, 2, 8, 15, tzinfo=UTC),
    }  # fmt: skip
    assert read_brought(content(), GOOD).row == read
    assert read_brought(content(), GOOD | {"Ticket ID": 4001, "Weight": 2.5, "Urgent": True, "mine": "x"}).row == read
    assert read_brought(content(), GOOD).entity == {"Ticket ID": 4001}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Ticket ID", "4001.5"), ("Ticket ID", True), ("Ticket ID", "9" * 30), ("Ticket ID", " 1"), ("Ticket ID", "１"),
        ("Line", ""), ("Line", " \n"), ("Line", "x" * 513), ("Line", "\ud800"), ("Line", "a\x00b"),
        ("Weight", "nan"), ("Weight", "1e999"), ("Weight", False), ("Weight", "heavy"),
        ("Urgent", "yes"), ("Urgent", 1), ("Opened", "2026-03-02T08:15:00"), ("Opened", "soon"), ("Opened", 7),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_not_repeated(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"metadata '{name}' is no {TYPES[name]}") as caught:
        read_brought(content(), GOOD | {name: value})
    assert len(str(value)) < 4 or str(value) not in str(caught.value)


def test_a_time_of_any_zone_is_read_in_utc_as_tables_tell_it() -> None:
    read = read_brought(content(), GOOD | {"Opened": "2026-02-02T10:15:00+02:00"}).row["Opened"]
    assert read.isoformat() == "2026-02-02T08:15:00+00:00"


@pytest.mark.parametrize("left_out", [{}, {"Line": ""}, {"Line": " "}])
def test_what_may_be_empty_where_it_was_learnt_may_be_left_out(left_out: dict[str, Any]) -> None:
    asked = {name: value for name, value in GOOD.items() if name != "Line"} | left_out
    may = content().model_copy(update={"nullable": ("Line",)})
    assert read_brought(may, asked).row["Line"] is None
    assert read_brought(may, GOOD).row["Line"] == "Atlas"
    with pytest.raises(InvalidInputError, match="Line"):
        read_brought(content(), asked)


def test_what_is_missing_is_named_with_all_that_is_needed() -> None:
    with pytest.raises(InvalidInputError, match=r"has no 'Weight'\. Send in metadata: Ticket ID, Line, Weight"):
        read_brought(content(), {name: value for name, value in GOOD.items() if name != "Weight"})


@given(name=st.sampled_from(sorted(TYPES)), value=st.one_of(st.text(), st.integers(), st.floats(), st.booleans()))
def test_anything_is_read_or_refused_in_words(name: str, value: Any) -> None:
    try:
        read = read_brought(content(), GOOD | {name: value})
    except InvalidInputError:
        return
    assert read.row.keys() == TYPES.keys()


def test_personal_data_leaves_texts_but_not_what_a_table_holds() -> None:
    brought = read_brought(content(), GOOD | {"Line": "write to ann@example.org"})
    clean = without_personal_data(brought, (), ("email",))
    assert (clean.row["Line"], clean.entity) == ("write to [email]", {"Ticket ID": 4001})
    assert without_personal_data(brought, ("Line",), ("email",)) == brought


def test_an_entity_is_a_text_or_a_whole_number() -> None:
    with pytest.raises(ContractError, match="the entity 'Weight' is of type number"):
        content(entity=["Weight"])
