"""Whoever is woken up finds a page, its commands exist, and the figures that woke him are really measured."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry

from ml_platform.cli.app import app
from ml_platform.serving.gateway.metrics import GatewayMetrics

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "serving.json"

METRIC = re.compile(r"\bmlp_[a-z_]+[a-z]\b")
FOR_INSTANCE = {
    "PRODUCT": "flight_assistant",
    "RELEASE": "0123456789abcdef",
    "KEY_ID": "0123456789abcdef",
    "DAY": "2013-03-31",
}
SECTIONS = ("Signal", "First five minutes", "Why", "Escalation", "Rollback", "Afterwards")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def pages() -> list[Path]:
    return [path for path in sorted(RUNBOOKS.glob("*.md")) if path.name != "README.md"]


def commands(page: Path) -> Iterator[str]:
    """Every `mlp ...` of a page, in the text and in blocks of commands."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield from (line.strip() for line in block.splitlines() if line.strip().startswith("mlp "))
    yield from (found for found in re.findall(r"`(mlp [^`]+)`", text) if "…" not in found)


def expressions() -> str:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return "\n".join([*shown, *(rule["expr"] for rule in rules())])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_page_that_knows_it(rule: dict[str, Any]) -> None:
    page = ROOT / rule["annotations"]["runbook"]
    assert page.parent == RUNBOOKS
    assert f"`{rule['alert']}`" in page.read_text(encoding="utf-8")
    assert f"`{rule['alert']}`" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_a_page_says_all_that_is_needed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for section in SECTIONS:
        assert re.search(rf"^## {section}", text, re.MULTILINE), f"{page.name} has no section '{section}'"
    assert f"]({page.name})" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


@pytest.mark.parametrize("page", [*pages(), RUNBOOKS / "README.md"], ids=lambda page: page.stem)
def test_every_command_of_a_page_is_one_that_mlp_takes(page: Path) -> None:
    mlp = typer.main.get_command(app)
    found = list(commands(page))
    assert found, f"{page.name} has no command"
    for line in found:
        words = [FOR_INSTANCE.get(word, word) for word in shlex.split(line, comments=True)]
        command, arguments = mlp, words[1:]
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments[0]]  # type: ignore[attr-defined]
            arguments = arguments[1:]
        assert not hasattr(command, "commands"), f"{page.name}: `{line}` is no command of mlp"
        if arguments:  # a command that the text only names is one that exists
            # Parses and converts as if it were run, without running it: unknown options and missing words raise.
            command.make_context(line, arguments)


def measured() -> set[str]:
    """Every series that a gateway shows, by name."""
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    parts = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum", ""), "gauge": ("",)}
    return {f"{metric.name}{part}" for metric in registry.collect() for part in parts[metric.type]}


def test_what_alerts_and_dashboard_look_at_is_measured() -> None:
    assert set(METRIC.findall(expressions())) - measured() == set()


@pytest.mark.parametrize("page", [*pages(), RUNBOOKS / "README.md"], ids=lambda page: page.stem)
def test_metrics_that_a_page_names_are_measured(page: Path) -> None:
    assert set(METRIC.findall(page.read_text(encoding="utf-8"))) - measured() == set()


def test_labels_that_alerts_and_dashboard_select_by_exist() -> None:
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    collectors: list[Any] = list(registry._collector_to_names)
    named = {metric.name: set(one._labelnames) for one in collectors for metric in one.describe()}
    for name, selected in re.findall(r"(mlp_[a-z_]+)\{([^}]*)\}", expressions()):
        base = re.sub(r"_(total|bucket|count|sum)$", "", name)
        used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selected))
        assert used <= named[base], f"{name}: {sorted(used - named[base])}"


def test_arms_are_compared_by_what_their_own_release_failed_to_answer() -> None:
    """The status of an answer tells nothing of a canary for which production answers."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    [panel] = [one["targets"][0]["expr"] for one in panels if one["title"] == "Errors by cohort"]
    [alert] = [rule["expr"] for rule in rules() if rule["alert"] == "CanaryErrors"]
    for expression in (panel, alert):
        assert "mlp_answers_failed_total{" in expression
        assert "status=" not in expression
    taken_away = alert.partition("unless")[2]
    assert taken_away.count('cohort="production"') == alert.count('cohort="production"')  # its absence hides nothing


def test_features_are_stale_only_once_a_weekly_run_is_overdue() -> None:
    """What fires between two runs that come in time is an alert that nobody can stop."""
    [rule] = [rule for rule in rules() if rule["alert"] == "FeaturesStale"]
    days = re.search(r"> (\d+) \* 86400$", rule["expr"])
    assert days
    assert int(days[1]) > 7 + 1  # a run takes hours, and Monday's may be Tuesday's


def test_panels_have_a_title_a_place_and_a_source() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["targets"]
