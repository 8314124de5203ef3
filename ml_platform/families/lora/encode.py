"""Examples as tokens in the model's own chat template, of which only the answer is learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.contracts.example import Example
from ml_platform.contracts.product import PromptSpec
from ml_platform.errors import ContractError, SourceDataError
from ml_platform.families.lora.prompt import messages

MAX_LEFT_OUT_SHARE = 0.05
"""Above this share of too long examples the limit is wrong, not the examples."""


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; those from `answer_start` on are supervised, the end-of-turn token being the last."""

    example_id: str
    tokens: tuple[int, ...]
    answer_start: int

    @property
    def supervised(self) -> int:
        """How many tokens are learnt."""
        return len(self.tokens) - self.answer_start


def encode_prompt(tokenizer: Any, conversation: Sequence[dict[str, str]]) -> list[int]:
    """The tokens that the model reads before its answer."""
    return list(
        tokenizer.apply_chat_template(list(conversation), tokenize=True, add_generation_prompt=True, return_dict=False)
    )


def encode_example(tokenizer: Any, prompt: PromptSpec, example: Example) -> Encoded:
    """An example with its answer, cut after the end-of-turn token.

    Raises ContractError when the chat template does not put the answer right after the prompt.
    """
    start = encode_prompt(tokenizer, messages(prompt, example, with_answer=False))
    whole = list(
        tokenizer.apply_chat_template(
            list(messages(prompt, example, with_answer=True)), tokenize=True, return_dict=False
        )
    )
    if whole[: len(start)] != start or len(whole) == len(start):
        raise ContractError(
            "the chat template of the base model does not put the answer right after the prompt, so that the answer "
            f"cannot be told from it (example {example.example_id}). Use a template whose generation prompt is a "
            "prefix of the whole conversation."
        )
    return Encoded(example.example_id, tuple(_through_end_of_turn(whole, len(start), tokenizer)), len(start))


def _through_end_of_turn(tokens: list[int], start: int, tokenizer: Any) -> list[int]:
    end = tokenizer.eos_token_id
    for position in range(len(tokens) - 1, start - 1, -1):
        if tokens[position] == end:
            return tokens[: position + 1]
    return [*tokens, end]


def encode_examples(
    tokenizer: Any, prompt: PromptSpec, examples: Sequence[Example], max_tokens: int, split: str
) -> tuple[list[Encoded], list[str]]:
    """The examples that fit into `max_tokens`, in order, and the ids of those that do not.

    Raises SourceDataError when there is no example, or when more than 5 % are too long.
    """
    encoded = [encode_example(tokenizer, prompt, example) for example in examples]
    kept = [item for item in encoded if len(item.tokens) <= max_tokens]
    left_out = [item.example_id for item in encoded if len(item.tokens) > max_tokens]
    if not examples and split == "train":
        raise SourceDataError("the training set has no training examples. Take more data or change the splits.")
    if len(left_out) > MAX_LEFT_OUT_SHARE * len(encoded):
        longest = max(encoded, key=lambda item: len(item.tokens))
        raise SourceDataError(
            f"{len(left_out)} of {len(encoded)} {split} examples have more than max_example_tokens = {max_tokens} "
            f"tokens, the longest {longest.example_id} with {len(longest.tokens)}. "
            "Raise training.max_example_tokens in product.yaml or shorten the examples."
        )
    return kept, left_out
