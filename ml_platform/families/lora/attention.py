"""Attention that cannot leak between the examples of a pack."""

from collections.abc import Sequence
from typing import Any

NAME = "within_examples"


def register_attention() -> str:
    """Makes `attend_within_examples` known to transformers; the name to give as `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend_within_examples)
    return NAME


def attend_within_examples(
    module: Any,  # noqa: ARG001 - the signature that transformers calls
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,  # noqa: ARG001
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Sequence[int] = (),
    **_: Any,
) -> tuple[Any, None]:
    """Causal attention inside each example: query [1, heads, n, d] to [1, n, heads, d].

    `segments` are the lengths that collate_pack lays end to end: first the beginning that all examples
    share (may be 0), then the rest of each. One SDPA call an example costs the sum of their squared lengths;
    a dense mask costs the square of the sum, and holds only while transformers guesses the examples right.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    sizes = list(segments) or [0, query.shape[2]]
    shared, *own = zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True)
    parts = []
    for place, example in enumerate(own):
        # The shared beginning is read along, so that the causal kernel needs no mask; the first example keeps it.
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(shared, example, strict=True)) if sizes[0] else example
        read = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=k.shape[1] != q.shape[1]
        ).transpose(1, 2)
        parts.append(read[:, sizes[0] :] if place else read)
    return torch.cat(parts, dim=1), None
