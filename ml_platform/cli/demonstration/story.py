"""The story: what is played in which order, act by act, until the last day; everything that moves is real."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from ml_platform.cli.demonstration.plan import Stretch
from ml_platform.cli.demonstration.planting import ACTOR, controller_of, plant
from ml_platform.cli.demonstration.probe import Said, probe_release
from ml_platform.cli.demonstration.traffic import Travellers, midnight
from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import OperationError
from ml_platform.release.moves import Held

if TYPE_CHECKING:
    from ml_platform.cli.demonstration.stage import Stage
    from ml_platform.contracts.drift import DriftReport
    from ml_platform.contracts.release import Release
    from ml_platform.serving.replay.traffic import Asked

T = TypeVar("T")
OPERATOR = "operator of the demo"
LOADED_WITHIN_SECONDS = 180.0
GOOD, BAD, NEW = "A", "X", "B"


@dataclass
class Told:
    """What came of it, for the page and for programs."""

    good: str = ""
    bad: str = ""
    new: str = ""
    spoilt: tuple[str, ...] = ()
    before: Said | None = None
    during: Said | None = None
    after: Said | None = None
    drift: "list[DriftReport]" = field(default_factory=list)
    questions_until_stopped: int = 0
    questions_until_promoted: int = 0

    @property
    def identical(self) -> bool:
        """Whether the answer after the bad release is byte for byte the one before it."""
        return self.before is not None and self.after is not None and self.before.text == self.after.text


class Story:
    """Plays once, on a stage that is set; `told` tells what came of it so far."""

    def __init__(self, stage: "Stage") -> None:
        self.stage, self.board, self.form = stage, stage.board, stage.form
        self.told = Told()
        self._travellers: Travellers | None = None

    def play(self) -> Told:
        """Everything. Raises OperationError where something that must happen did not."""
        self._first_release()
        self._good_days()
        self._bad_release()
        self._months_until_drift()
        self._renewal()
        self._afterwards()
        self._act("The end", "")
        return self.told

    def _first_release(self) -> None:
        self._act("1 · The first release", f"from sources to a canary, as of {self.form.as_of}: training, evaluation")
        self.told.good = self.stage.run_chain(self.form.as_of)
        self.board.call(self.told.good, GOOD)
        self.board.doing = "engine, gateway, shipper and controller start"
        self.stage.start_serving()
        reason = "the first release: nothing serves that it could be compared with"
        done = controller_of(self.stage.home).promote(
            self.form.product, self.told.good, datetime.now(UTC), OPERATOR, reason=reason
        )
        if isinstance(done, Held):
            raise OperationError(f"the first release cannot be promoted, {done.sentence}: {dict(done.reasons)}")
        self.board.doing = "the year is read, its features are computed"
        self.stage.open_year()

    def _good_days(self) -> None:
        self._act("2 · Good days", "travellers ask, outcomes follow")

        async def good_days(players: Travellers) -> None:
            await players.reach(midnight(self.form.before.first))
            await self._probe(self._asked(), self.told.good)
            await players.play(self.form.before, at_once=self.form.at_once)
            await players.reach(self._planted_at)
            self.told.before = await self._probe(self._asked(), self.told.good)

        self._run(good_days)
        self.board.say(f"the probe, before: {self.told.before.text if self.told.before else ''}")

    def _bad_release(self) -> None:
        fault = self.stage.fault
        self._act(f"3 · A bad release: {fault.title}", "")
        planted = plant(self.stage.home, self.stage.store, self._release(self.told.good), fault)
        self.told.bad, self.told.spoilt = planted.release.release_id, planted.parts
        self.board.call(self.told.bad, BAD)
        self.board.say(
            f"planted: release {self.told.bad[:12]} has the weights of {GOOD} and another {', '.join(planted.parts)}. "
            "It carries the verdicts of the good one, signed by this home's key: its evaluation saw nothing wrong"
        )
        self._open(self.told.bad)
        self._run(self._play_bad)
        state = self.stage.state()
        if state.releases.get(self.told.bad) is not ReleaseState.ABORTED:
            waits = self.board.look.decision.waits_for if self.board.look else ()
            raise OperationError(f"the planted release was not stopped: it waits for {', '.join(waits) or 'nothing'}.")
        self.board.say(
            f"the probe, after: {'byte for byte the answer of before' if self.told.identical else 'ANOTHER ANSWER'}; "
            f"with {BAD} it had been: {self.told.during.text[:200] if self.told.during else ''}"
        )
        if not self.told.identical:
            raise OperationError("the same question is answered otherwise than before the bad release.")

    async def _play_bad(self, players: Travellers) -> None:
        self.told.during = await self._probe(self._asked(), self.told.bad, slot="canary")
        for stretch in self.form.planted:
            self.told.questions_until_stopped += await players.play(
                stretch, until=lambda: self._gone(self.told.bad), at_once=self.stage.fault.at_once
            )
        await self._until(lambda: self._gone(self.told.bad), 30.0)
        now = self.board.product_time or self._planted_at
        # The same question of the same traveller, with what was known then: all that differs is who answers.
        await self.stage.publish(self._planted_at)
        self.told.after = await self._probe(self._asked(), self.told.good)
        await self.stage.publish(now)

    def _months_until_drift(self) -> None:
        self._act("4 · The months pass", "")
        days = sorted({*self.form.months, *self.form.looks})
        for day in days:
            if day in self.form.months:
                self._run(self._sampled(day))
            if day in self.form.looks:
                self._look_at_drift(day)

    def _renewal(self) -> None:
        self._act("5 · Continuous training", "the sensor looks at the drift report")
        if not self.told.drift or not self.told.drift[-1].drifted:
            raise OperationError("no drift was proven until the last look: nothing starts a run.")
        known = set(self.stage.state().releases)
        self.stage.start_daemon()
        self.told.new = self.stage.wait_for_release(known, minutes=self.form.patience_minutes)
        self.board.call(self.told.new, NEW)
        if (trigger := self._release(self.told.new).trigger) is not None:
            self.board.say(f"started by the sensor: {trigger.kind}: {trigger.reason}"[:600])
        self.stage.end_daemon()
        self._act("6 · The new release", "its canary opens, step by step, until its outcomes are mature")
        if self.stage.state().slots.get(SlotName.CANARY) != self.told.new:
            self._open(self.told.new)

        async def renewed(players: Travellers) -> None:
            for stretch in self.form.renewed:
                self.told.questions_until_promoted += await players.play(
                    stretch, until=self._decided, at_once=self.form.at_once
                )
            await self._until(self._decided, 30.0)

        self._run(renewed)
        if self.stage.state().slots.get(SlotName.PRODUCTION) != self.told.new:
            waits = self.board.look.decision.waits_for if self.board.look else ()
            raise OperationError(f"the new release was not promoted: it waits for {', '.join(waits) or 'nothing'}.")

    def _afterwards(self) -> None:
        self._act("7 · Until December", "the holidays are frozen: nothing moves forward by itself")
        door = controller_of(self.stage.home)
        door.freeze(self.form.product, "the end of the demo: nothing is trained any more", datetime.now(UTC), OPERATOR)
        self.board.say(f"the sensor, asked now, starts nothing: {self.stage.ask_sensor()}"[:600])
        for day in self.form.afterwards:
            self._run(self._sampled(day))
        self._look_at_drift(self.form.last_look)

    def _look_at_drift(self, day: date) -> None:
        self.board.doing = f"drift report of {day}"
        self._run(lambda players: players.reach(midnight(day + timedelta(days=1))))
        report = self.stage.report_drift(day)
        self.told.drift.append(report)
        self.board.say(f"drift report of {day}: {report.verdict}. {report.reason}"[:600])
        self.board.doing = ""

    def _sampled(self, day: date) -> "Callable[[Travellers], Awaitable[None]]":
        stretch = Stretch(first=day, last=day, questions=self.form.month_questions)

        async def sampled(players: Travellers) -> None:
            await players.play(stretch, at_once=self.form.at_once)

        return sampled

    def _open(self, release_id: str) -> None:
        done = controller_of(self.stage.home).open_canary(self.form.product, release_id, datetime.now(UTC), ACTOR)
        if isinstance(done, Held):
            raise OperationError(f"release {release_id[:12]} cannot become the canary, {done.sentence}.")

    def _release(self, release_id: str) -> "Release":
        return controller_of(self.stage.home).ledger.replay(self.form.product).releases[release_id]

    @property
    def _planted_at(self) -> datetime:
        return midnight(self.form.planted[0].first) + timedelta(hours=min(self.form.hours))

    def _asked(self) -> "Asked":
        return self.stage.probe_question(self._planted_at)

    async def _probe(self, asked: "Asked", release_id: str, *, slot: str | None = None) -> Said:
        url, key, product = self.stage.url, self.stage.api_key, self.form.product
        return await probe_release(url, key, product, asked, release_id, slot=slot, seconds=LOADED_WITHIN_SECONDS)

    def _gone(self, release_id: str) -> bool:
        """Whether a release has left the canary's slot, as the board has seen it."""
        state = self.board.state
        return state is not None and state.slots.get(SlotName.CANARY) != release_id

    def _decided(self) -> bool:
        return self._gone(self.told.new)

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        for _ in range(int(seconds / 0.5)):
            if holds():
                return
            await asyncio.sleep(0.5)

    def _act(self, title: str, doing: str) -> None:
        self.board.act, self.board.doing = title, doing
        self.board.say(f"{title}{f': {doing}' if doing else ''}")

    def _run(self, play: Callable[[Travellers], Awaitable[None]]) -> None:
        """Lets travellers play; their connections live as long as that."""
        self._travellers = self._travellers or self.stage.travellers()
        players = self._travellers

        async def played() -> None:
            async with players.client:
                await play(players)

        self.stage.processes.require_alive()
        asyncio.run(played())
