"""`mlp run` and `mlp backfill` as people see them: progress, the outcome, and failures in words."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ml_platform.cli.app import run
from ml_platform.cli.chain_events import ChainEvent, ChainStory, parse_event
from ml_platform.cli.progress_view import BarView, LineView

PRODUCTS = Path(__file__).parents[2] / "products"
LINES: list[dict[str, Any]] = [
    {"event": "run_start", "run_id": "run-1"},
    {"event": "step_start", "asset": "snapshot", "run_id": "run-1"},
    {"event": "log", "asset": "snapshot", "message": "snapshot 0 % · reading weather", "metadata": {"level": 20}},
    {"event": "log", "asset": "snapshot", "message": "snapshot 4 % · reading weather", "metadata": {"level": 20}},
    {"event": "log", "asset": "snapshot", "message": "snapshot 100 % · done", "metadata": {"level": 20}},
    {"event": "log", "asset": "snapshot", "message": "some detail", "metadata": {"level": 20}},
    {"event": "log", "asset": "snapshot", "message": "look at this", "metadata": {"level": 30}},
    {"event": "materialization", "asset": "snapshot", "metadata": {"sha256": "ab", "reused": True}},
    {"event": "step_success", "asset": "snapshot", "run_id": "run-1"},
    {"event": "step_start", "asset": "snapshot", "run_id": "run-1"},
    {"event": "check", "asset": "snapshot", "check": "schema_valid", "passed": True, "message": "9 examined."},
    {"event": "step_success", "asset": "snapshot", "run_id": "run-1"},
    {"event": "step_start", "asset": "candidate", "run_id": "run-1"},
    {
        "event": "log",
        "asset": "candidate",
        "message": "train 42 % · loss 0.412, 640 tokens/s · 1:20 left",
        "metadata": {"level": 20},
    },
]
FAILED: list[dict[str, Any]] = [
    {"event": "step_failure", "asset": "candidate", "message": "out of memory. Take fewer tokens.", "run_id": "run-1"},
    {"event": "log", "message": "Dependencies for step x failed: [...]. Not executing.", "metadata": {"level": 40}},
    {"event": "run_failure", "run_id": "run-1", "message": "Steps failed"},
]


def events(lines: list[dict[str, Any]]) -> list[ChainEvent]:
    found = [parse_event(json.dumps(line)) for line in lines]
    return [event for event in found if event is not None]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the real products, whose launch.py repeats what the test lets it say."""
    shutil.copytree(PRODUCTS, tmp_path / "products")
    (tmp_path / "definitions.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


def launch_says(checkout: Path, lines: list[dict[str, Any]], code: int, words: str = "") -> None:
    (checkout / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (checkout / "launch.py").write_text(
        f"import sys\nprint(open('said.jsonl').read(), end='')\nprint({words!r}, file=sys.stderr)\nsys.exit({code})\n"
    )


def test_lines_tell_steps_checks_stages_and_warnings_once() -> None:
    target = io.StringIO()
    view = LineView(Console(file=target, width=200))
    with view:
        for event in events(LINES):
            view.show(event)
    told = target.getvalue().splitlines()
    assert told == [
        "… snapshot",
        "  snapshot 0 % · reading weather",
        "  snapshot 100 % · done",
        "  look at this",
        told[4],
        "✓ check schema_valid: 9 examined.",
        "… candidate",
        "  train 42 % · loss 0.412, 640 tokens/s · 1:20 left",
    ]
    assert told[4].startswith("✓ snapshot (")
    assert told[4].endswith("s, reused)")


def test_bars_show_stage_share_loss_speed_and_time_left() -> None:
    target = io.StringIO()
    view = BarView(Console(file=target, force_terminal=True, width=120, color_system=None))
    with view:
        for event in events(LINES):
            view.show(event)
        view.bars.refresh()
        shown = target.getvalue()
    for words in ("train", "42 %", "loss 0.412, 640 tokens/s", "1:20 left", "✓ snapshot (", "✓ check schema_valid"):
        assert words in shown


@pytest.mark.parametrize("line", ["", "noise", "[]", "5", '{"event": 5}', '{"other": 1}', "{", "\x00"])
def test_a_line_that_is_no_event_is_passed_over(line: str) -> None:
    assert parse_event(line) is None


def test_the_story_remembers_the_release_the_report_and_what_was_reused() -> None:
    story = ChainStory()
    lines = [
        *LINES,
        {"event": "materialization", "asset": "eval_report", "metadata": {"report_html": "/r.html"}},
        {"event": "materialization", "asset": "registered_release", "metadata": {"release_id": "ab" * 32}},
        {"event": "run_success", "run_id": "run-1"},
    ]
    for event in events(lines):
        story.add(event)
    assert (story.release_id, story.report_html) == ("ab" * 32, "/r.html")
    assert (story.run_ids, story.reused, story.succeeded) == (["run-1"], ["snapshot"], True)


def test_a_failed_run_tells_the_step_the_message_and_what_to_do(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch_says(checkout, LINES + FAILED, 1)
    assert run(["run", "flight_assistant", "--as-of", "2013-03-31"]) == 1
    output = capsys.readouterr()
    assert "✗ candidate" in output.out
    assert "Dependencies for step" not in output.out
    assert "mlp: candidate: step failed: out of memory. Take fewer tokens." in output.err
    assert "run the same command again to go on" in output.err
    assert "run run-1" in output.err
    assert "Traceback" not in output.err


def test_a_check_that_blocks_tells_its_claim(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = {"event": "check", "asset": "snapshot", "check": "schema_valid", "passed": False, "message": "3 rows bad"}
    launch_says(checkout, [*LINES[:2], blocked, FAILED[-1]], 1)
    assert run(["run", "flight_assistant", "--as-of", "2013-03-31"]) == 1
    assert "mlp: snapshot: schema_valid failed: 3 rows bad" in capsys.readouterr().err


def test_a_refusal_before_any_run_is_told_alone(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch_says(checkout, [{"event": "run_failure", "run_id": None, "message": "no such day"}], 1)
    assert run(["run", "flight_assistant", "--as-of", "2013-03-31"]) == 1
    assert capsys.readouterr().err == "mlp: no such day\n"


def test_a_launcher_that_dies_without_a_word_leaves_its_last_words(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch_says(checkout, [], 3, words="Segmentation fault")
    assert run(["run", "flight_assistant", "--as-of", "2013-03-31"]) == 1
    told = capsys.readouterr().err
    assert "exit code 3" in told
    assert "Segmentation fault" in told


def test_json_is_alone_on_stdout_and_progress_goes_to_stderr(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch_says(checkout, [*LINES, {"event": "run_success", "run_id": "run-1"}], 0)
    assert run(["run", "flight_assistant", "--as-of", "2013-03-31", "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert (found["runs"], found["reused"], found["release"]) == (["run-1"], ["snapshot"], None)
    assert "train 42 %" in output.err


def test_an_unknown_product_is_refused_before_anything_is_launched(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "launch.py").write_text("raise SystemExit('this must not run')")
    assert run(["run", "flight_asistant", "--as-of", "2013-03-31"]) == 1
    assert "did you mean 'flight_assistant'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "flight_assistant"],
        ["run", "flight_assistant", "--as-of", "31.3.2013"],
        ["run", "flight_assistant", "--as-of", "2013-02-30"],
        ["run", "flight_assistant", "--as-of", "2013-03-31", "--config", "none.yaml"],
        ["backfill", "flight_assistant", "--from", "2013-03-01"],
        ["rum"],
        ["ledger", "burn"],
        ["status", "--jsn"],
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "launch.py").write_text("raise SystemExit('this must not run')")
    assert run(arguments) == 2
    assert capsys.readouterr().err != ""


def test_what_a_backfill_asks_of_the_launcher(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "launch.py").write_text(
        "import json, sys\nprint(json.dumps({'event': 'day', 'message': ' '.join(sys.argv[1:])}))"
    )
    days = ["--from", "2013-03-25", "--to", "2013-03-31"]
    assert run(["backfill", "flight_assistant", *days, "--again"]) == 0
    assert f"── backfill flight_assistant {' '.join(days)} --again" in capsys.readouterr().out
