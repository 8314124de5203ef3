"""A controller at work, as people see it: a rollout that goes on a step, does harm, is aborted, and tells why."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ml_platform.cli.app import app
from ml_platform.serving.gateway.console.incidents import newest_incidents, read_incident
from tests.samples.console import running_console
from tests.samples.rollouts import Rollout, make_rollout

PRODUCT = "assistant"
HOSTILE = "<script>alert(1)</script>"


def words(page: str) -> str:
    inside = re.sub(r"<(script|style)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", inside).split())


def mlp(world: Rollout, *said: str) -> str:
    told = {"ML_PLATFORM_HOME": str(world.home.root), "COLUMNS": "240"}
    done = CliRunner().invoke(app, [*said], catch_exceptions=False, env=told)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_rollout_is_followed_from_its_first_users_to_its_post_mortem(tmp_path: Path) -> None:
    world = make_rollout(tmp_path)
    second = world.controller.state(PRODUCT).slots["canary"]  # type: ignore[index]
    loop = world.loop()
    with running_console(world) as console:
        for _ in range(3):
            world.answer(30)
            world.pass_minutes(5)
            world.look(loop)
        read = words(console.page())
        assert "Canary against production" in read
        assert "It waits for: the cool-down" in read or "It waits for: the step" in read
        assert f"Release {second[:12]} against production" in read
        said = mlp(world, "status", PRODUCT)
        assert "the controller says hold" in said
        assert "error_rate" in said

        for _ in range(12):
            world.answer(30, canary_errors=0.8)
            world.pass_minutes(1)
            if world.look(loop).canary is None:
                break
        told = json.loads(mlp(world, "status", PRODUCT, "--json"))["products"][0]["controller"]
        assert told["look"]["decision"]["action"] == "abort"
        assert "canary " + second[:12] in mlp(world, "status", PRODUCT), "the readings are still those of the canary"
        world.answer(30)
        world.look(loop)
        with console.client() as client:
            page = until_it_says(client, "The last rollout, as it was measured")
            read = words(page)
            assert "Production, watched" in read
            assert "was aborted: " in read
            [link] = re.findall(r'href="(/console/incidents/[^"]+)"', page)
            incident = client.get(link)
        assert incident.status_code == 200
        read = words(incident.text)
        assert f"canary {second[:12]} did harm" in read
        assert "Which signal" in read
        assert "Time to detection" in read


def until_it_says(client: Any, said: str) -> str:
    end = time.monotonic() + 60
    while True:
        page = str(client.get(f"/console/products/{PRODUCT}").text)
        if said in page and "/console/incidents/" in page and ">FAIL<" in page:
            return page
        assert time.monotonic() < end, words(page)
        time.sleep(0.2)


def test_status_tells_of_looks_that_cannot_be_read_and_shows_the_ledger_all_the_same(tmp_path: Path) -> None:
    world = make_rollout(tmp_path)
    (tmp_path / "monitoring.sqlite").write_text("no database")
    said = mlp(world, "status", PRODUCT)
    assert "what the controller saw cannot be read" in said
    assert "at 20 %" in said
    assert json.loads(mlp(world, "status", "--json"))["products"][0]["controller"]["problem"]


def test_status_tells_of_a_freeze_and_of_a_controller_that_is_not_there(tmp_path: Path) -> None:
    world = make_rollout(tmp_path)
    assert "the controller says" not in mlp(world, "status", PRODUCT)
    look = world.look()
    world.looks.put(look.model_copy(update={"looked_at": look.looked_at.replace(year=2020)}))
    world.controller.freeze(PRODUCT, "a person said so", world.now, "ops")
    said = mlp(world, "status")
    assert "FROZEN: a person said so" in said
    assert "No controller looks at this product" in said
    assert json.loads(mlp(world, "status", PRODUCT, "--json"))["products"][0]["frozen"] == "a person said so"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    below = tmp_path / "incidents" / PRODUCT
    below.mkdir(parents=True)
    for number in range(12):
        (below / f"{number:06d}-abort.md").write_text(f"# {PRODUCT}: number {number} {HOSTILE}\n\n- `a` **b** c\n")
    (below / "notes.md").write_text("# not ours")
    return below.parent


def test_the_newest_post_mortems_are_listed_by_their_titles(folder: Path) -> None:
    found = newest_incidents(folder, PRODUCT)
    assert [one.name for one in found] == [f"{number:06d}-abort" for number in range(11, 3, -1)]
    assert found[0].title == f"number 11 {HOSTILE}"
    assert newest_incidents(folder, "another") == ()


def test_a_post_mortem_is_read_as_headings_lists_tables_and_text(folder: Path) -> None:
    text = "# one\n\ntext `code` **bold**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- x\n- y\n"
    (folder / PRODUCT / "000099-freeze.md").write_text(text)
    blocks = read_incident(folder, PRODUCT, "000099-freeze") or ()
    assert [block.kind for block in blocks] == ["heading", "text", "table", "list"]
    assert blocks[1].lines == ((("plain", "text "), ("code", "code"), ("plain", " "), ("bold", "bold"), ("plain", "")),)
    assert [["".join(part for _, part in cell) for cell in row] for row in blocks[2].rows] == [["a", "b"], ["1", "2"]]
    assert len(blocks[3].lines) == 2


@pytest.mark.parametrize("name", ["notes", "../assistant/000001-abort", "000001-abort.md", "", "000001-abort\x00", "."])
def test_no_other_file_is_read_as_a_post_mortem(folder: Path, name: str) -> None:
    assert read_incident(folder, PRODUCT, name) is None


def test_a_post_mortem_of_another_product_is_not_shown_and_no_markup_in_it_counts(tmp_path: Path, folder: Path) -> None:
    world = make_rollout(tmp_path)
    with running_console(world) as console:
        page = console.page(f"/console/incidents/{PRODUCT}.000003-abort")
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page
        with console.client(product="another") as client:
            assert client.get(f"/console/incidents/{PRODUCT}.000003-abort").status_code == 404
        with console.client() as client:
            for wrong in (f"{PRODUCT}.000077-abort", f"{PRODUCT}", "x.y.z", f"{PRODUCT}.%2e%2e%2fnotes"):
                assert client.get(f"/console/incidents/{wrong}").status_code == 404
