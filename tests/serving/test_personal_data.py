"""Personal data is found by its shape, taken out whole, and nothing else is."""

from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.serving.guardrails.personal_data import find_personal_data, passes_luhn, redact

PRODUCT = Path(__file__).parents[2] / "products" / "flight_assistant"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("mail me at ann.lee+trips@mail.example.co.uk please", "mail me at [email] please"),
        ("<bob@example.com>, bob_2@example.io", "<[email]>, [email]"),
        ("call +1 212 555 0142 now", "call [phone] now"),
        ("call (212) 555-0142.", "call [phone]."),
        ("212-555-0142 or 2125550142 12, not 12 2125550142", "[phone] or [phone] 12, not 12 [phone]"),
        ("ring 0049 30 1234567 or +49 (0)30 123 45 67", "ring [phone] or [phone]"),
        ("my number: 07700 900123", "my number: [phone]"),
        ("my card is 4111 1111 1111 1111, exp 12/27", "my card is [card], exp 12/27"),
        ("5500-0000-0000-0004", "[card]"),
        ("Schreib an jörg.müller@bücher.example", "Schreib an [email]"),
        ("378282246310005", "[card]"),
        ("４１１１ １１１１ １１１１ １１１１", "[card]"),
        ("ann\u200b@exa\u200bmple.com", "[email]"),
        ("4111111111111111 a@b.co +12125550142", "[card] [email] [phone]"),
        ("212\u2011555\u20110142, 212\u2013555\u20130142, +49 30\u20101234567", "[phone], [phone], [phone]"),
        ("4111\u20111111\u20111111\u20111111, 4111.1111.1111.1111", "[card], [card]"),
        ("4111 1111  1111 1111 and 3782.822463.10005", "[card] and [card]"),
        ("0.25 of them at 0301234567", "0.25 of them at [phone]"),
        ("4111 1111 1111 1111 12/27 123", "[card] 12/27 123"),
    ],
    ids=lambda text: text.encode("ascii", "replace").decode()[:28],
)
def test_personal_data_is_taken_out_whole(text: str, stored: str) -> None:
    assert redact(text)[0] == stored


@pytest.mark.parametrize(
    "text",
    [
        "UA1545 on 2013-03-01 at 05:15 to IAH",
        "2013-03-01 0515, 03/01/2013 0515 and 01.03.2013 0515",
        "my order 55-1203, booking QJ7F22, gate C91, seat 12A",
        "card 4111 1111 1111 1112 does not exist",
        "1234 5678 9012",
        "1111111111111111",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "Is 336,776 more than 3.14159265358979?",
        "me@home and @handle, price 100@5",
        "p is 0.123456789, then 0.1 0.2 0.3 0.4 0.5 and 0.05 0.10 0.15 0.20",
        "",
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    assert redact(text) == (text, {})


@cache
def questions() -> tuple[str, ...]:
    flight = {"flight": "UA1545", "airport": "Newark", "from": "EWR", "to": "IAH", "departs": "05:15", "day": "1 Mar"}
    loaded = yaml.safe_load((PRODUCT / "phrasings.yaml").read_text(encoding="utf-8"))
    found = [
        text.format_map(flight)
        for name, parts in loaded.items()
        if name != "override_attempt"
        for text in (*parts["train"], *parts["held_out"])
    ]
    return tuple(found)


def test_no_question_of_a_traveller_is_altered() -> None:
    assert [text for text in questions() if redact(text) != (text, {})] == []


@given(
    st.sampled_from("23456"), st.text(alphabet="0123456789", min_size=14, max_size=14), st.sampled_from(["", " ", "-"])
)
def test_every_card_is_found_in_every_usual_spelling(first: str, middle: str, separator: str) -> None:
    body = first + middle
    number = next(body + check for check in "0123456789" if passes_luhn(body + check) or len(set(body + check)) == 1)
    spelled = separator.join(number[at : at + 4] for at in range(0, 16, 4))
    if passes_luhn(number):
        assert redact(f"pay with {spelled}!") == ("pay with [card]!", {"card": 1})


@given(st.from_regex(r"[a-z0-9]([a-z0-9._+-]{0,20}[a-z0-9])?@([a-z0-9]{1,10}\.){1,3}[a-z]{2,6}", fullmatch=True))
def test_every_address_is_found(address: str) -> None:
    stored, counts = redact(f"write to {address}, please")
    assert counts["email"] == 1
    assert address not in stored


@given(st.text(alphabet=st.sampled_from("0123456789 +-().@ab"), max_size=120))
def test_what_is_stored_holds_nothing_more_to_find(text: str) -> None:
    once, counts = redact(text)
    assert redact(once)[1].get("card", 0) == 0
    assert sum(counts.values()) == len(find_personal_data(text))


@given(st.text(max_size=200))
def test_text_without_personal_data_is_not_altered(text: str) -> None:
    stored, counts = redact(text)
    assert counts or stored == text


def test_only_the_kinds_that_the_product_names_are_taken_out() -> None:
    text = "a@b.co 4111111111111111 +12125550142"
    assert redact(text, ["email"]) == ("[email] 4111111111111111 +12125550142", {"email": 1})
    assert redact(text, []) == (text, {})


@pytest.mark.parametrize("piece", ["1 ", "a.", "a@", "1", "(", "+1", "a@a.", "4111 "])
def test_no_text_keeps_it_busy(piece: str) -> None:
    from time import process_time

    started = process_time()
    redact((piece * 65_536)[:65_536])
    assert process_time() - started < 5.0
