"""Training a candidate: the same bytes for the same inputs, the best adapter kept, failures said at once."""

import json

import pytest
from safetensors.torch import load_file

from ml_platform.contracts.home import Home
from ml_platform.contracts.release import Candidate
from ml_platform.errors import ContractError, TrainingError
from ml_platform.families.lora.train import train_candidate
from ml_platform.lineage.artifacts import LocalArtifactStore
from tests.samples.tiny_lora import tiny_examples, tiny_request, tiny_training_set


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def train(home, request, **options):
    return train_candidate(request, LocalArtifactStore(home.artifacts), home, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("trained") / "home")
    told, heard = [], []
    request = tiny_request(home)
    artifact = train(home, request, report=told.append, listen=lambda step, values: heard.append((step, values)))
    return home, request, artifact, told, heard


def test_another_home_trains_the_same_bytes(trained, tmp_path):
    _home, _request, artifact, _told, _heard = trained
    other = Home(tmp_path / "elsewhere" / "home")

    again = train(other, tiny_request(other))

    assert again.sha256 == artifact.sha256
    assert not again.reused


def test_training_again_finds_the_candidate(trained):
    home, request, artifact, _told, _heard = trained

    again = train(home, request)

    assert again.reused
    assert again.sha256 == artifact.sha256


def test_another_seed_trains_other_bytes(trained, tmp_path):
    other = Home(tmp_path / "home")

    assert train(other, tiny_request(other, seed=8)).sha256 != trained[2].sha256


def test_the_facts_are_a_candidate_whose_digests_are_those_of_its_files(trained):
    _home, request, artifact, _told, _heard = trained
    candidate = Candidate.model_validate(artifact.facts)

    assert candidate.adapter_sha256 == artifact.manifest.files["adapter/adapter_model.safetensors"].file_sha256
    assert candidate.training_set_sha256 == request.training_set_sha256
    assert candidate.base_model == "tiny-model"
    assert candidate.steps == candidate.training["planned_steps"]


def test_no_file_of_a_candidate_names_a_path_of_this_machine(trained):
    home, _request, artifact, _told, _heard = trained

    for name in artifact.manifest.files:
        assert str(home.root.parent).encode() not in artifact.file(name).read_bytes()
    config = json.loads(artifact.file("adapter/adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"].startswith("tiny-model@")
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["layers_to_transform"] == [2, 3]


def test_only_the_upper_layers_learn(trained):
    adapter = load_file(trained[2].file("adapter/adapter_model.safetensors"))

    layers = {name.split(".layers.")[1].split(".")[0] for name in adapter}
    assert layers == {"2", "3"}
    assert all(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)


def test_the_loss_falls_and_every_step_is_recorded(trained):
    _home, _request, artifact, _told, heard = trained
    losses = json.loads(artifact.file("loss.json").read_bytes())

    assert [point["step"] for point in losses["train"]] == list(range(1, artifact.facts["steps"] + 1))
    assert losses["train"][-1]["loss"] < 0.8 * losses["train"][0]["loss"]
    assert len(losses["validation"]) == 4
    assert [values["loss"] for _step, values in heard if "loss" in values] == [p["loss"] for p in losses["train"]]


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing(trained):
    rates = [point["learning_rate"] for point in json.loads(trained[2].file("loss.json").read_bytes())["train"]]

    top = rates.index(max(rates))
    assert 0 < top <= 0.2 * len(rates)
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.2 * rates[top]


def test_the_pack_plan_names_every_example_once_an_epoch(trained):
    plan = json.loads(trained[2].file("pack_plan.json").read_bytes())

    learnt = sorted(name for step in plan["steps"] for pack in step for name in pack)
    assert learnt == sorted(2 * [example.example_id for example in tiny_examples(40)])


def test_progress_grows_to_the_whole_with_loss_speed_and_time_left(trained):
    told = trained[3]
    shares = [progress.share for progress in told]

    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {progress.stage for progress in told} == {"train"}
    assert all("tokens/s" in progress.detail and progress.seconds_left is not None for progress in told[5:])
    assert "loss " in told[-1].detail


def test_no_checkpoint_stays_after_the_candidate_is_published(trained):
    home = trained[0]

    assert not list((home.work / "candidates").iterdir())


def test_a_loss_that_is_no_number_ends_training_at_once(home):
    heard = []

    with pytest.raises(TrainingError, match=r"loss is (nan|inf) .*learning_rate"):
        train(home, tiny_request(home, learning_rate=1e30, warmup_share=0.0), listen=lambda s, _: heard.append(s))
    assert max(heard) <= 3
    assert not (home.artifacts / "candidate" / "by_recipe").exists()


def test_early_stopping_keeps_the_best_adapter(home):
    request = tiny_request(home, examples=12, epochs=30, learning_rate=0.1, early_stopping_patience=2, packs_per_step=1)

    artifact = train(home, request)

    facts, losses = artifact.facts, json.loads(artifact.file("loss.json").read_bytes())
    best = min(losses["validation"], key=lambda point: point["validation_loss"])
    assert facts["training"]["stopped_early"]
    assert facts["steps"] < facts["training"]["planned_steps"]
    assert losses["validation"][-3] == best
    assert (facts["training"]["kept_step"], facts["validation_loss"]) == (best["step"], best["validation_loss"])


def test_dropout_is_the_same_every_time(tmp_path):
    homes = [Home(tmp_path / name / "home") for name in ("one", "two")]

    one, two = (train(home, tiny_request(home, dropout=0.2, epochs=1)) for home in homes)

    assert one.sha256 == two.sha256


def test_without_a_validation_split_the_last_adapter_is_kept(home):
    request = tiny_request(home, epochs=1)
    store = LocalArtifactStore(home.artifacts)
    alone = tiny_training_set(store, tiny_examples(40), [])

    artifact = train(home, request.model_copy(update={"training_set_sha256": alone.sha256}))

    assert artifact.facts["validation_loss"] is None
    assert artifact.facts["training"]["kept_step"] == artifact.facts["steps"]


def test_more_layers_than_the_model_has_are_refused(home):
    with pytest.raises(ContractError, match="upper_layers is 9, but tiny-model has 4 layers"):
        train(home, tiny_request(home, upper_layers=9))


def test_a_single_example_can_be_learnt(home):
    assert train(home, tiny_request(home, examples=1, epochs=1)).facts["steps"] == 1
