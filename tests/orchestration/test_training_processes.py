"""The training process as it is really run: killed, stopped, by torchrun, by Dagster Pipes, with MLflow up and down."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_platform.contracts.home import Home
from ml_platform.families.lora.entry import main
from ml_platform.families.lora.train import train_candidate
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from tests.samples.tiny_lora import tiny_request

pytestmark = pytest.mark.early

ENTRY = "ml_platform.families.lora.entry"
PROJECT = Path(__file__).parents[2]


def prepared(root, **changes):
    """A home with a request file in it, and the request."""
    home = Home(root / "home")
    request = tiny_request(home, **changes)
    path = home.root / "request.json"
    path.write_bytes(request.canonical_bytes())
    return home, path


def start(home, path, command=(sys.executable, "-m", ENTRY), **environment):
    variables = {**os.environ, "ML_PLATFORM_HOME": str(home.root), **environment}
    return subprocess.Popen(
        [*command, str(path)], env=variables, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2000:]
    return out


def only_candidate(home):
    (folder,) = (path for path in (home.artifacts / "candidate").iterdir() if path.name != "by_recipe")
    return LocalArtifactStore(home.artifacts).open("candidate", folder.name)


def wait_for(process, home, pattern):
    """Whether a checkpoint folder of that name appeared before the process ended."""
    while process.poll() is None:
        if any(home.work.glob(f"candidates/*/{pattern}")):
            return True
        time.sleep(0.001)
    return False


NO_MLFLOW = {"MLFLOW_TRACKING_URI": "sqlite:////dev/null/nowhere.sqlite"}
LONG = {"epochs": 3}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Artifact:
    """What the request gives when nobody kills anything, trained in this process."""
    home = Home(tmp_path_factory.mktemp("undisturbed") / "home")
    return train_candidate(tiny_request(home, **LONG), LocalArtifactStore(home.artifacts), home)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs the script in this process, which has its libraries loaded already: exit code, output, errors."""

    def run(home, path, **environment):
        for name, value in {"ML_PLATFORM_HOME": str(home.root), **environment}.items():
            monkeypatch.setenv(name, value)
        code = main([str(path)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def kill_at(home, path, pattern):
    """Starts training and kills it as soon as a folder of that name is there."""
    process = start(home, path, **NO_MLFLOW)
    assert wait_for(process, home, pattern)
    process.kill()
    process.communicate()


def test_killed_while_writing_with_its_newest_checkpoint_damaged_training_ends_with_the_same_bytes(
    tmp_path, undisturbed, run_here
):
    home, path = prepared(tmp_path, **LONG)
    kill_at(home, path, "unfinished-*")
    kill_at(home, path, "step-*[6-9]")
    newest = max(home.work.glob("candidates/*/step-*")) / "adapter.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    kill_at(home, path, "unfinished-*")

    code, out, _err = run_here(home, path, **NO_MLFLOW)

    assert code == 0
    assert "MLflow could not" in out
    assert only_candidate(home).sha256 == undisturbed.sha256
    assert not any(home.work.glob("candidates/*"))


def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, undisturbed, run_here):
    home, path = prepared(tmp_path, **LONG)
    process = start(home, path, **NO_MLFLOW)
    assert wait_for(process, home, "step-*")
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=240)

    assert process.returncode == 1
    assert "training ended after step" in err
    assert "run again to continue" in err
    assert "Traceback" not in err
    assert not any(home.artifacts.glob("candidate/by_recipe/*"))

    assert run_here(home, path, **NO_MLFLOW)[0] == 0
    assert only_candidate(home).sha256 == undisturbed.sha256


def run_two(home, path):
    """What two processes under torchrun say."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", ENTRY]
    return finish(start(home, path, command=torchrun, OMP_NUM_THREADS="1", **NO_MLFLOW))


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    """The home and the request of a training of two processes, and what they said."""
    home, path = prepared(tmp_path_factory.mktemp("two"), epochs=1)
    return home, path, run_two(home, path)


def test_two_processes_under_torchrun_learn_the_same_as_one(tmp_path, trained_by_two):
    home, _path, said = trained_by_two
    alone = Home(tmp_path / "home")
    one = train_candidate(tiny_request(alone, epochs=1), LocalArtifactStore(alone.artifacts), alone)

    two = only_candidate(home)
    losses = [json.loads(each.file("loss.json").read_bytes()) for each in (one, two)]
    for curve, name in (("train", "loss"), ("validation", "validation_loss")):
        single, double = ([point[name] for point in each[curve]] for each in losses)
        assert double == pytest.approx(single, rel=1e-4)
    assert two.facts["training"]["hardware"]["processes"] == 2
    assert f"candidate {two.sha256[:12]} trained" in said


@pytest.mark.full_size
def test_two_processes_find_their_training_again(trained_by_two):
    home, path, _said = trained_by_two
    assert f"candidate {only_candidate(home).sha256[:12]} found again" in run_two(home, path)


def test_mlflow_holds_the_whole_run_once(tmp_path, run_here):
    home, path = prepared(tmp_path, epochs=1)
    assert run_here(home, path)[0] == run_here(home, path)[0] == 0
    candidate = only_candidate(home)

    client = MlflowClient(home.mlflow_url)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny_assistant").experiment_id])
    losses = json.loads(candidate.file("loss.json").read_bytes())
    for name, curve in (("loss", "train"), ("learning_rate", "train"), ("validation_loss", "validation")):
        history = client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in history] == [(p["step"], pytest.approx(p[name])) for p in losses[curve]]
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.tags["candidate_sha256"] == candidate.sha256
    assert run.inputs.dataset_inputs[0].dataset.digest == candidate.facts["training_set_sha256"][:36]
    assert run.info.status == "FINISHED"
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"loss.png", "loss.json", "environment.txt", "candidate.json", "request.json", "pack_plan.json"} <= files


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{}", "key 'training_set_sha256' is missing"),
        ("{", "cannot be parsed"),
        ('{"trainning": 1}', "unknown key 'trainning': did you mean 'training'?"),
    ],
)
def test_a_wrong_request_is_explained_on_standard_error(tmp_path, run_here, content, complaint):
    path = tmp_path / "request.json"
    path.write_text(content)

    code, _out, err = run_here(Home(tmp_path / "home"), path)

    assert code == 1
    assert complaint in err


@pytest.mark.long
def test_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path, undisturbed):
    home, path = prepared(tmp_path, **LONG)
    for _ in range(8):
        process = start(home, path)
        wait_for(process, home, "*")
        try:
            process.wait(timeout=secrets.randbelow(2000) / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    finish(start(home, path))

    assert only_candidate(home).sha256 == undisturbed.sha256
