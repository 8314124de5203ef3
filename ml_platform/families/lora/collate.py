"""Packs as tensors: a shared beginning stands once, and only answer tokens reach the language-model head."""

from collections.abc import Sequence
from typing import Any

from ml_platform.families.lora.encode import Encoded

IGNORED = -100


def shared_beginning(examples: Sequence[Encoded]) -> int:
    """How many tokens all examples begin with, as long as none of them has to predict a supervised one."""
    if not examples:
        return 0
    first, last = min(item.tokens for item in examples), max(item.tokens for item in examples)
    most = min(item.answer_start for item in examples) - 1
    same = next((place for place in range(most) if first[place] != last[place]), most)
    return max(0, same)


def collate_pack(pack: Sequence[Encoded], shared: int = 0, blank_token: int = 0) -> dict[str, Any]:
    """One pack laid end to end: the first `shared` tokens of all its examples once, then the rest of each.

    `input_ids` and `position_ids` are [1, n]; positions go on from the shared beginning in every example.
    `logits_to_keep` [k] are the places whose logits predict a supervised token, and `labels` [k] those
    tokens, so nothing needs shifting any more. `segments` are the lengths that
    `attend_within_examples` reads. An empty pack becomes one unsupervised token with loss 0: it lets
    all processes take the same number of steps.
    """
    import torch

    tokens = list(pack[0].tokens[:shared]) if pack else [blank_token]
    positions = list(range(len(tokens)))
    keep: list[int] = []
    labels: list[int] = []
    segments = [shared]
    for example in pack:
        offset = len(tokens) - shared
        tokens += example.tokens[shared:]
        positions += range(shared, len(example.tokens))
        keep += range(offset + example.answer_start - 1, offset + len(example.tokens) - 1)
        labels += example.tokens[example.answer_start :]
        segments.append(len(example.tokens) - shared)
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "logits_to_keep": torch.tensor(keep or [0]),
        "labels": torch.tensor(labels or [IGNORED]),
        "segments": segments if pack else [0, 1],
    }
