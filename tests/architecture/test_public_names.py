"""Names that others build on: changing one is a decision, so it fails here first."""

import inspect

from ml_platform import errors
from ml_platform.cli.app import app
from ml_platform.contracts import base, canonical, policy, progress
from ml_platform.contracts.home import Home

COMMANDS = {
    "abort",
    "access",
    "backfill",
    "controller",
    "demo",
    "diff",
    "doctor",
    "engine",
    "freeze",
    "gateway",
    "keys",
    "label",
    "ledger",
    "mirror",
    "pause",
    "policy",
    "promote",
    "releases",
    "replay",
    "resume",
    "rollback",
    "run",
    "schemas",
    "shadow",
    "ship",
    "show",
    "sign-off",
    "skew",
    "status",
    "trace",
    "unfreeze",
    "up",
    "verify",
}


def public(module: object) -> set[str]:
    name = getattr(module, "__name__", "")
    found = {n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == name}
    return {n for n in found if inspect.isclass(getattr(module, n)) or inspect.isfunction(getattr(module, n))}


def test_the_commands_of_mlp() -> None:
    named = {
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in app.registered_commands
    }
    assert named | {group.name for group in app.registered_groups} == COMMANDS


def test_every_command_answers_in_json() -> None:
    for group in (app, *(group.typer_instance for group in app.registered_groups)):
        for command in group.registered_commands if group else ():
            assert command.callback is not None
            assert "as_json" in inspect.signature(command.callback).parameters, command.callback.__name__


def test_the_tree_of_errors_is_the_one_that_its_docstring_draws() -> None:
    drawn = [line.split()[-1] if "──" not in line else line.split("──")[1].split()[0] for line in tree_lines()]
    assert set(drawn) == public(errors)
    for name in drawn:
        error = getattr(errors, name)
        assert name.endswith("Error")
        assert issubclass(error, errors.MlPlatformError)
    depth = {"MlPlatformError": 0}
    for line in tree_lines():
        if "──" in line:
            name, level = line.split("──")[1].split()[0], 1 + line.index("──") // 4
            assert len(getattr(errors, name).__mro__) - len(errors.MlPlatformError.__mro__) == level, line
            depth[name] = level


def tree_lines() -> list[str]:
    lines = (errors.__doc__ or "").splitlines()
    return [line for line in lines if line.strip().startswith(("MlPlatformError", "├", "└", "│"))]


def test_what_contracts_are_made_of() -> None:
    words = {"Column", "Finite", "Name", "SemanticVersion", "Sha256", "Share"}
    assert set(base.__all__) == words | {"Contract", "GrowingContract", "read_mapping"}
    assert public(canonical) == {"bytes_sha256", "canonical_bytes", "digest", "file_sha256", "sources_sha256"}
    assert public(progress) == {"Progress", "silent"}
    assert {
        "schema_valid",
        "no_leakage",
        "not_worse_than_production",
        "cost_within_budget",
        "latency_within_budget",
    } == policy.MANDATORY_GATES


def test_a_home_is_only_named_and_never_made(tmp_path: object) -> None:
    home = Home.from_environment({"ML_PLATFORM_HOME": f"{tmp_path}/home"})
    named = {name for name, value in vars(Home).items() if isinstance(value, property)}
    assert {"artifacts", "base_models", "dagster", "features", "keys", "ledger_url", "mlflow_url", "work"} <= named
    for name in named:
        getattr(home, name)
    assert not home.root.exists()
