"""Generation: what the models say to the items, each kept as an artifact so that it is said only once.

Answers depend on the model, on what it is asked word for word, on the decoding, and on the libraries and the kind of
device that compute; a change in the expected answers, the metrics or the report finds them again. Latencies also depend
on the machine that measured them.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_platform
from ml_platform.contracts.canonical import canonical_bytes, digest, sources_sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec
from ml_platform.contracts.progress import Progress, Reporter
from ml_platform.contracts.release import Candidate
from ml_platform.contracts.report import Decoding
from ml_platform.evaluation.answers import GeneratedAnswer
from ml_platform.evaluation.items import Item
from ml_platform.families.lora.libraries import library_versions
from ml_platform.families.lora.prompt import messages
from ml_platform.families.protocol import AnswersQuestions
from ml_platform.lineage.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from ml_platform.families.lora.adapter_files import AdapterFiles

ANSWERS = "answers.jsonl"
LATENCIES = "latencies.json"
_CODE = (
    "adapter_files",
    "adapter_weights",
    "attention",
    "decoder",
    "encode",
    "hardware",
    "memory",
    "predict",
    "prepacked",
)


@dataclass(frozen=True)
class Model:
    """What answers: a base model, bare or with the adapter of a candidate, behind a prompt."""

    base_model: str
    base_sha256: str
    adapter: Artifact | None
    prompt: PromptSpec

    @classmethod
    def of_candidate(cls, candidate: Artifact, prompt: PromptSpec) -> "Model":
        """The candidate's base with its adapter."""
        made = candidate_of(candidate)
        return cls(made.base_model, made.base_sha256, candidate, prompt)

    @property
    def identity(self) -> dict[str, Any]:
        """The weights that answer, and how they are applied: the bytes count, not what a candidate says of itself."""
        files = self.adapter.manifest.files if self.adapter else {}
        return {
            "base_sha256": self.base_sha256,
            "adapter_sha256": candidate_of(self.adapter).adapter_sha256 if self.adapter else None,
            "adapter": {name: stored.file_sha256 for name, stored in files.items() if name.startswith("adapter/")},
        }

    def asked(self, item: Item) -> list[dict[str, str]]:
        """The conversation that puts an item to this model."""
        return messages(self.prompt, item.example, with_answer=False)


OpenPredictor = Callable[[Model], AnswersQuestions]


def candidate_of(artifact: Artifact) -> Candidate:
    """The manifest of a candidate; raises ContractError when its facts are not one."""
    return Candidate.parse(artifact.facts, where=f"the facts of candidate {artifact.sha256[:12]}")


def open_lora(home: Home) -> OpenPredictor:
    """Opens real models, each one once and no earlier than it is needed; the last one stays in memory."""
    opened: dict[str, AnswersQuestions] = {}

    def open_predictor(model: Model) -> AnswersQuestions:
        from ml_platform.families.lora.base_model import open_base
        from ml_platform.families.lora.predict import Predictor

        key = json.dumps(model.identity, sort_keys=True)
        if key not in opened:
            opened.clear()
            adapter = _adapter_files(model.adapter) if model.adapter else None
            opened[key] = Predictor(open_base(model.base_model, model.base_sha256, home), adapter)
        return opened[key]

    return open_predictor


def _adapter_files(candidate: Artifact) -> "AdapterFiles":
    from ml_platform.families.lora.adapter_files import CONFIG, WEIGHTS, AdapterFiles

    configuration, weights = (candidate.read(f"adapter/{name}") for name in (CONFIG, WEIGHTS))
    return AdapterFiles(f"{candidate.path}/adapter", configuration, weights)


def generate_answers(
    kind: str,
    model: Model,
    items: Sequence[Item],
    decoding: Decoding,
    store: ArtifactStore,
    open_predictor: OpenPredictor,
    report: Reporter,
) -> Artifact:
    """The model's answers to the items, found again when the same was asked before; `kind` names their artifact."""
    conversations = [model.asked(item) for item in items]
    stage = {"candidate_answers": "evaluate candidate", "reference_answers": "evaluate reference"}[kind]

    def build(folder: Path) -> dict[str, Any]:
        report(Progress(stage, 0.0, f"{len(items)} questions"))
        generations = open_predictor(model).generate(conversations, decoding, staged(report, stage)) if items else []
        answers = [
            GeneratedAnswer(
                items=item.items,
                example_id=item.example.example_id,
                text=storable(generation.text),
                tokens_in=generation.tokens_in,
                tokens_out=generation.tokens_out,
                finished=generation.finished,
            )
            for item, generation in zip(items, generations, strict=True)
        ]
        (folder / ANSWERS).write_bytes(b"".join(answer.canonical_bytes() + b"\n" for answer in answers))
        return {"answers": len(answers), "tokens_out": sum(answer.tokens_out for answer in answers)}

    recipe = {
        **model.identity,
        "questions_sha256": digest([[item.key, asked] for item, asked in zip(items, conversations, strict=True)]),
        "decoding": decoding.model_dump(mode="json"),
        "accelerators": describe_machine()["accelerators"],
        "packages": library_versions(),
        "code_sha256": generation_code_sha256(),
    }
    artifact = store.make(kind, recipe, build)
    again = " found again" if artifact.reused else ""
    report(Progress(stage, 1.0, f"{len(items)} answers{again}"))
    return artifact


def time_requests(
    model: Model,
    items: Sequence[Item],
    decoding: Decoding,
    store: ArtifactStore,
    open_predictor: OpenPredictor,
    report: Reporter,
) -> Artifact:
    """Milliseconds of single requests on this machine; measured once for a model on a kind of machine."""
    conversations = [model.asked(item) for item in items]

    def build(folder: Path) -> dict[str, Any]:
        report(Progress("latency", 0.0, f"{len(items)} requests one by one"))
        measured = open_predictor(model).time_requests(conversations, decoding) if items else []
        latencies = [round(float(latency), 1) for latency in measured]
        (folder / LATENCIES).write_bytes(canonical_bytes(latencies))
        return {"requests": len(latencies)}

    recipe = {
        **model.identity,
        "questions_sha256": digest(conversations),
        "decoding": decoding.model_dump(mode="json"),
        "machine": describe_machine(),
        "packages": library_versions(),
        "code_sha256": generation_code_sha256(),
    }
    artifact = store.make("latencies", recipe, build)
    report(Progress("latency", 1.0, f"{len(items)} requests" + (" measured before" if artifact.reused else "")))
    return artifact


def load_answers(artifact: Artifact) -> tuple[GeneratedAnswer, ...]:
    """The answers of an artifact that `generate_answers` made."""
    lines = artifact.text(ANSWERS).split("\n")
    return tuple(GeneratedAnswer.parse(json.loads(line), where=ANSWERS) for line in lines if line)


def load_latencies(artifact: Artifact) -> tuple[float, ...]:
    """The latencies of an artifact that `time_requests` made, in milliseconds."""
    return tuple(json.loads(artifact.read(LATENCIES)))


def describe_machine() -> dict[str, str]:
    """What decides how fast this machine answers, as far as it can be told without loading a library."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    accelerators = sorted(
        path.read_text().splitlines()[0] for path in Path("/proc/driver/nvidia/gpus").glob("*/information")
    )
    return {
        "machine": platform.machine(),
        "processor": names[0] if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "accelerators": ", ".join(name.partition(":")[2].strip() for name in accelerators) or "none",
    }


def generation_code_sha256() -> str:
    """The digest of the modules that decide what a model says to an item."""
    package = Path(ml_platform.__file__).parent
    family = package / "families" / "lora"
    files = [family / f"{name}.py" for name in _CODE]
    return sources_sha256([*files, package / "evaluation" / "generation.py"], package)


def staged(report: Reporter, stage: str) -> Reporter:
    """A reporter that calls whatever it is told by this stage's name."""
    return lambda progress: report(replace(progress, stage=stage))


def storable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8") if not text.isascii() else text
