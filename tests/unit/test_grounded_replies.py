"""What a reply may say: numbers, times and codes that stand in the facts or in the question."""

import pytest

from ml_platform.evaluation.groundedness import is_grounded, mentions, ungrounded

FACTS = {
    "flight": "UA1545",
    "carrier": "B6",
    "flight_number": 725,
    "origin": "EWR",
    "dest": "IAH",
    "scheduled": "2013-03-31T05:15:00",
    "departs": "17:30",
    "mean_delay_min": -5,
    "late_rate_30d": 0.23,
    "airport_late": 40,
    "wind_mph": 12.7,
    "seats": 1234,
    "unknown": None,
    "cancelled": False,
}
QUESTION = "will my flight to boston on gate c91 with ba 178 be late?"


@pytest.mark.parametrize(
    "reply",
    [
        "UA1545 leaves at 05:15.",
        "UA 1545 leaves at 5:15 am",
        "Leaves at 5:15 a.m. from EWR to IAH",
        "It departs at 5:30 pm.",
        "Flight 1545 is fine.",
        "B6 725 and B6725 are the same.",
        "It left 5 minutes early.",
        "The mean is -5 min, that is −5 or five minutes early",
        "It is late – 40 minutes:\n- 40 of them at EWR\n– 12.7 mph",
        "23% are late, that is 23 percent or 0.23 of them",
        "twenty-three percent",
        "40 %",
        "forty of them",
        "1,234 seats, 1234.0 in all",
        "in the last 30 days, thirty",
        "on the 31st of March 2013",
        "Wind of 12.7 mph (12.70mph).",
        "OK, this one is one of those; no one knows.",
        "BA178 and gate C91 are in the question.",
        "All is well.",
        "YES, it is NOT late.",
        "Hmm...40 of them",
        "12.7 m², ﬁve minutes early, ４０ or ⁴⁰ of them",
    ],
)
def test_what_stands_in_the_facts_or_the_question_is_grounded(reply: str) -> None:
    assert ungrounded(reply, FACTS, QUESTION) == ()
    assert is_grounded(reply, FACTS, QUESTION)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("It leaves at 5:15 pm.", "17:15"),
        ("5 am", "05:00"),
        ("UA 725 is late.", "UA725"),
        ("DL1545", "DL1545"),
        ("to JFK", "JFK"),
        ("KEWR", "KEWR"),
        ("A320", "A320"),
        ("+5 or 6 minutes", "6"),
        ("24 %", "24 %"),
        ("230 %", "230 %"),
        ("13 mph", "13"),
        ("12.8", "12.8"),
        ("1,235 seats", "1235"),
        ("on the 21st", "21"),
        ("twelve minutes", "12"),
        ("one minute", "1"),
        ("twenty-two", "22"),
        ("-40", "-40"),
        ("between 10-15 minutes", "10"),
        ("5:75", "75"),
        ("on 2013-04-01", "4"),
        ("$99", "99"),
        (".5", "0.5"),
        ("Hmm...45 minutes", "45"),
        ("...about.45", "0.45"),
        ("two hundred minutes", "200"),
        ("a hundred minutes", "100"),
        ("forty thousand", "40000"),
        ("40 million", "40000000"),
        ("40k seats", "40000"),
        ("$40bn", "40000000000"),
        ("40M", "40000000"),
        ("40½ minutes", "40.5"),
        ("⁴⁵ minutes", "45"),
        ("④ minutes", "4"),
    ],
)
def test_what_stands_nowhere_is_named(reply: str, said: str) -> None:
    assert said in ungrounded(reply, FACTS, QUESTION)
    assert not is_grounded(reply, FACTS, QUESTION)


@pytest.mark.parametrize("reply", ["", " \n"])
def test_a_missing_reply_is_not_grounded(reply: str) -> None:
    assert not is_grounded(reply, FACTS, QUESTION)


def test_identifiers_of_any_length_and_case_are_compared_whole() -> None:
    known = {"parcel": "1Z999AA10123456784", "order": "ord77b12", "note": "see P-1023"}
    assert is_grounded("Parcel 1Z999AA10123456784 of order ORD77B12, see P-1023.", known, "")
    for wrong in ("1Z999AA10123456780", "ord77b13", "P-1024", "1Z999AA1"):
        assert not is_grounded(f"It is {wrong}.", known, ""), wrong


def test_large_numbers_are_grounded_however_they_are_spelled() -> None:
    known = {"passengers": 5_000_000, "seats": 200, "cost": 1500.0, "revenue_million": 7.5, "share": 0.5}
    reply = "5 million, five million or 5M passengers, two hundred seats, $1.5k of 7.5 million, ½ of them"
    assert ungrounded(reply, known, "") == ()
    assert ungrounded("2 hundred thousand, 5 thousand", known, "") == ("200000", "5000")


def test_without_facts_only_the_question_grounds() -> None:
    assert is_grounded("You asked about 7.", {}, "what of 7?")
    assert not is_grounded("You asked about 8.", {}, "what of 7?")


def test_times_with_zones_and_seconds_are_times_and_no_codes() -> None:
    found = mentions("2013-03-31T05:15:00Z, 05:15:00.250+02:00 and 23:59")
    assert found.times == {315, 1439}
    assert not found.codes
    assert found.numbers == {2013, 3, 31}


@pytest.mark.parametrize(
    "text",
    [
        "9" * 10_000,
        "1,000" * 3_000,
        "A1 " * 5_000,
        "12:" * 5_000,
        "-" * 20_000,
        "9" * 20_000 + "½",
        "5 million " * 5_000,
    ],
)
def test_long_and_hostile_replies_are_read_in_linear_time(text: str) -> None:
    assert not is_grounded(text, {}, "") or "1" not in text
