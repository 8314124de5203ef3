"""Which examples are learnt together: flattened packs of about equal length, planned before training starts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Pack = tuple[int, ...]
"""Indices of the examples that are laid end to end."""


@dataclass(frozen=True)
class PackPlan:
    """The whole order of training: for each optimiser step its packs, over all epochs.

    Every step has the same number of packs; the last ones of an epoch may be empty.
    """

    steps: tuple[tuple[Pack, ...], ...]

    @property
    def packs(self) -> list[Pack]:
        """All packs in the order in which they are learnt."""
        return [pack for step in self.steps for pack in step]

    def to_json(self, ids: Sequence[str]) -> list[list[list[str]]]:
        """The plan with the examples' ids in place of their indices."""
        return [[[ids[index] for index in pack] for pack in step] for step in self.steps]


def plan_packs(lengths: Sequence[int], pack_tokens: int, packs_per_step: int, epochs: int, seed: int) -> PackPlan:
    """Each epoch takes every example once, in an order drawn from `seed`, packed first-fit into `pack_tokens`.

    An example that is longer than a pack gets one for itself. The same arguments give the same plan
    everywhere.
    """
    steps: list[tuple[Pack, ...]] = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 - a data order, no secret
        packs = fill_packs(order, lengths, pack_tokens)
        packs += [()] * (-len(packs) % packs_per_step)
        steps += [tuple(packs[start : start + packs_per_step]) for start in range(0, len(packs), packs_per_step)]
    return PackPlan(tuple(steps))


def fill_packs(order: Sequence[int], lengths: Sequence[int], pack_tokens: int) -> list[Pack]:
    """First-fit: each example goes into the first pack that has room for it."""
    packs: list[list[int]] = []
    room: list[int] = []
    open_packs: list[int] = []
    shortest = min((lengths[index] for index in order), default=0)
    for index in order:
        fitting = next((place for place in open_packs if lengths[index] <= room[place]), None)
        if fitting is None:
            fitting = len(packs)
            packs.append([])
            room.append(pack_tokens)
            open_packs.append(fitting)
        packs[fitting].append(index)
        room[fitting] -= lengths[index]
        if room[fitting] < shortest:
            open_packs.remove(fitting)
    return [tuple(pack) for pack in packs]


def describe_plan(plan: PackPlan, ids: Sequence[str], left_out: dict[str, list[str]]) -> dict[str, Any]:
    """What `pack_plan.json` holds."""
    return {"steps": plan.to_json(ids), "left_out": left_out}
