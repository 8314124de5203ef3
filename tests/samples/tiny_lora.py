"""A real but tiny model, training set and request: the whole training path in seconds."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec, TrainingSpec
from ml_platform.families.lora.base_model import BaseModel, ensure_base
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact, ArtifactStore, LocalArtifactStore

PROMPT = PromptSpec(version="1.0.0", system="Answer from these facts only.\n{facts}")
SPEC = TrainingSpec(
    base_model="replaced",
    rank=4,
    alpha=8,
    upper_layers=2,
    learning_rate=0.01,
    warmup_share=0.1,
    epochs=2,
    pack_tokens=320,
    packs_per_step=2,
    max_example_tokens=200,
    evaluations_per_epoch=2,
    early_stopping_patience=3,
    seed=7,
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A Llama of four layers with random weights and a byte-level tokenizer, as Hugging Face saves it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=specials[1], eos_token=specials[2], pad_token=specials[0]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": specials})
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_base(home: Home) -> BaseModel:
    """The tiny model as a verified base model of a home."""
    folder = home.root.parent / "tiny-model"
    if not folder.is_dir():
        save_tiny_model(folder)
    return ensure_base(str(folder), home)


def tiny_examples(count: int, start: int = 0) -> list[Example]:
    """Questions of different lengths whose answers can be read off the facts."""
    return [
        Example(
            example_id=f"e{number:03d}",
            entity=f"flight-{number}",
            utterance="late?" if number % 3 else "is my flight late today, please",
            facts={"gate": number % 7, "late_pct": number % 10},
            answer={"risk": "high" if number % 10 > 4 else "low"} if number % 2 else f"gate {number % 7}",
        )
        for number in range(start, start + count)
    ]


def tiny_training_set(store: ArtifactStore, train: list[Example], validation: list[Example]) -> Artifact:
    """A training set as `make_training_set` lays it out."""
    splits = {"train": train, "validation": validation, "test": []}

    def build(folder: Path) -> dict[str, Any]:
        for name, examples in splits.items():
            (folder / f"{name}.jsonl").write_bytes(b"".join(one.canonical_bytes() + b"\n" for one in examples))
        return {}

    lines = {name: [json.loads(one.canonical_bytes()) for one in examples] for name, examples in splits.items()}
    return store.make("training_set", lines, build)


def tiny_request(home: Home, *, examples: int = 40, threads: int = 1, **changes: Any) -> TrainingRequest:
    """A request over the tiny model and `examples` examples; `changes` go into the hyperparameters."""
    tiny_base(home)
    training_set = tiny_training_set(
        LocalArtifactStore(home.artifacts), tiny_examples(examples), tiny_examples(10, start=500)
    )
    spec = {"base_model": str(home.root.parent / "tiny-model"), **changes}
    return TrainingRequest(
        product="tiny_assistant",
        as_of=date(2013, 3, 31),
        training_set_sha256=training_set.sha256,
        training=TrainingSpec.model_validate(SPEC.model_dump() | spec),
        prompt=PROMPT,
        threads=threads,
    )
