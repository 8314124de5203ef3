"""Hooks come from the release, side by side with other versions of themselves."""

import dataclasses
import sys
import traceback
from pathlib import Path

import pytest

from ml_platform.contracts.products import load_product
from ml_platform.errors import ContractError
from ml_platform.serving.hooks import PREFIX, load_hook

RELEASE = "ab" * 32
FLIGHTS = Path(__file__).parents[2] / "products" / "flight_assistant"


def test_two_releases_hold_two_versions_of_one_file() -> None:
    text = "SAID = %d\ndef facts(row):\n    return {'said': SAID}\n"
    one, two = (load_hook("facts.py:facts", {"facts.py": text % number}, RELEASE) for number in (1, 2))
    assert (one({}), two({}), one({})) == ({"said": 1}, {"said": 2}, {"said": 1})


def test_the_same_text_is_loaded_once() -> None:
    text = "def facts(row):\n    return {}\n"
    assert load_hook("a.py:facts", {"a.py": text}, RELEASE) is load_hook("a.py:facts", {"a.py": text}, "cd" * 32)


def test_a_hook_may_hold_dataclasses_and_its_errors_show_its_lines() -> None:
    text = (
        "from dataclasses import dataclass\n\n@dataclass\nclass Plan:\n    gate: 'str'\n\n"
        "def facts(row):\n    plan = Plan(row['gate'])  # the gate\n    return {'gate': plan.gate}\n"
    )
    facts = load_hook("below/facts.py:facts", {"below/facts.py": text}, RELEASE)
    assert facts({"gate": "B7"}) == {"gate": "B7"}
    with pytest.raises(KeyError) as caught:
        facts({})
    assert "# the gate" in "".join(traceback.format_exception(caught.value))
    assert dataclasses.is_dataclass(sys.modules[facts.__module__].Plan)


@pytest.mark.parametrize(
    ("reference", "text", "said"),
    [
        ("other.py:facts", "", "holds no file other.py"),
        ("facts.py:facts", "facts = 3\n", "has no function 'facts'"),
        ("facts.py:facts", "def facts(row:\n", "cannot be imported here: SyntaxError"),
        ("facts.py:facts", "import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("facts.py:facts", "raise SystemExit(3)\n", "SystemExit: 3"),
        ("facts.py:facts", "1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_hook_that_does_not_load_names_its_release(reference: str, text: str, said: str) -> None:
    before = {name for name in sys.modules if name.startswith(PREFIX)}
    with pytest.raises(ContractError, match=said) as caught:
        load_hook(reference, {"facts.py": text}, RELEASE)
    assert str(caught.value).startswith("release abababababab: hook ")
    if "no function" not in said:
        assert {name for name in sys.modules if name.startswith(PREFIX)} == before


def test_the_facts_of_flight_assistant_need_no_library_and_no_folder() -> None:
    content = load_product(FLIGHTS).serving_content
    source = content.sources["facts.py"]
    assert "import pandas" not in source
    facts = load_hook(content.spec.facts or "", {"facts.py": source}, RELEASE)
    row = dict.fromkeys(content.features.feature_names if content.features else ())
    plan = {"carrier": "UA", "flight_number": 7, "origin": "EWR", "dest": "IAH"}
    shown = facts({**row, **plan, "scheduled_departure_local": "2013-04-01T05:15"})
    assert shown == {"flight": "UA7", "from": "EWR", "to": "IAH", "departs": "05:15", "day": "1 Apr"}
