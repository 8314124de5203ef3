"""A home with a real tiny adapter whose release is registered, proven and pinned: one step before its canary."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.product import GuardrailSpec
from ml_platform.contracts.release import Release
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.contents import KINDS, keep_content
from ml_platform.lineage.keys import SigningKey, operator_key, signing_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller
from tests.samples.monitoring import monitor_policy
from tests.samples.releases import PRODUCER, PRODUCT, inputs_of, make_policy, make_release, make_results
from tests.samples.tiny_lora import PROMPT, tiny_base

POLICY = make_policy()
GUARDRAILS = GuardrailSpec(version="1.0.0", max_utterance_characters=500, safe_reply="No.")


@dataclass(frozen=True)
class Proven:
    """The home, its release and what it is made of."""

    home: Home
    release: Release
    candidate: Artifact
    now: datetime

    @property
    def controller(self) -> Controller:
        """A new controller, with the keys of the home."""
        trusted, operators = trusted_keys(self.home), trusted_operators(self.home)
        return Controller(Ledger(self.home.ledger_url), trusted, PRODUCER, operators)

    @property
    def key(self) -> SigningKey:
        """The key that signs evidence here."""
        return signing_key(self.home)


def write_adapter(folder: Path, base: Path, seed: int) -> Mapping[str, Any]:
    """An adapter on the tiny base model, as peft writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    tuned.save_pretrained(folder / "adapter")
    return {"seed": seed}


def make_proven(root: Path) -> Proven:
    """The home below `root`; whoever asks for the canary next gets it."""
    home, now = Home(root / "home"), datetime.now(UTC)
    base, store = tiny_base(home), LocalArtifactStore(home.artifacts)
    candidate = store.make("candidate", {"seed": 1}, lambda folder: write_adapter(folder, base.path, 1))
    others = {
        kind: store.make(kind, {"kind": kind}, _write).sha256 for kind in ("snapshot", "training_set", "eval_report")
    }
    plain = make_release().model_dump()
    plain["data"] |= {"snapshot_sha256": others["snapshot"], "training_set_sha256": others["training_set"]}
    plain["model"] |= {
        "base_model": base.name,
        "base_sha256": base.sha256,
        "candidate_sha256": candidate.sha256,
        "adapter_sha256": candidate.manifest.files["adapter/adapter_model.safetensors"].file_sha256,
    }
    for content in (PROMPT, GUARDRAILS, monitor_policy()):
        keep_content(store, content)
        plain[KINDS[type(content)]] = {"version": content.version, "content_sha256": content.sha256}
    proven = Proven(home, Release.model_validate(plain), candidate, now)
    prove(proven, proven.release, others["eval_report"])
    return proven


def prove(proven: Proven, release: Release, report_sha256: str, reference: str = "base") -> None:
    """Registers a release and records a PASS of every gate, under the policy that the home's operator pinned."""
    key, operator = proven.key, operator_key(proven.home)
    assert operator is not None
    controller = proven.controller
    controller.pin_policy(PRODUCT, POLICY, operator, "a test", proven.now, "a test", only_first=True)
    controller.register_release(release, POLICY, proven.now, "a test")
    inputs = inputs_of(release, reference) | {"eval_report": report_sha256}
    assert controller.record_verdicts(release, make_results(POLICY), inputs, key, proven.now, "a test").eligible


def _write(folder: Path) -> Mapping[str, Any]:
    (folder / "content.txt").write_text("whatever it says")
    return {}
