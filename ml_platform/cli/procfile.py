"""The processes of a Procfile, started together and ended together; needs honcho, of the Dagster layer."""

import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

STOPPED = (130, 143)
"""How honcho says that Ctrl-C or SIGTERM stopped it, which is how it is meant to end."""

DEATHS_AT_MOST = 5
WITHIN_S = 60.0
FIRST_PAUSE_S = 0.5


def run_procfile(folder: Path, environment: dict[str, str], *, quiet: bool) -> int:
    """Runs `Procfile` of a folder until a signal comes: 0. A process that ends by itself is started again.

    One that ends DEATHS_AT_MOST times WITHIN_S seconds is left down, and said to be; when none is left, its exit code
    is returned. What the processes say goes to stdout with their names before it, or to stderr when `quiet`.
    """
    manager = _PatientManager(Printer(sys.stderr if quiet else sys.stdout))
    procfile = parse_procfile((folder / "Procfile").read_text(encoding="utf-8"))
    for name, command in procfile.processes.items():
        manager.add_process(name, command, env=environment, cwd=str(folder))
    manager.loop()
    return 0 if manager.returncode in STOPPED else int(manager.returncode or 0)


class _PatientManager(Manager):  # type: ignore[misc]  # honcho ships no types
    """Starts what died again, and ends its processes only once all have started: honcho forgets those without an id.

    honcho itself ends everything as soon as one process ends; an engine that dies must not take the gateway along.
    """

    def __init__(self, printer: Printer) -> None:
        super().__init__(printer)
        self.asked_to_end = False
        self._deaths: dict[str, list[float]] = {}
        self._left_down: set[str] = set()

    def terminate(self) -> None:
        """See Manager."""
        self.asked_to_end = True
        if super()._all_started():
            super().terminate()

    def _all_started(self) -> bool:
        started = bool(super()._all_started())
        if started and self.asked_to_end:
            super().terminate()
        return started

    def _all_stopped(self) -> bool:
        return (self.asked_to_end or len(self._left_down) == len(self._processes)) and bool(super()._all_stopped())

    def _any_stopped(self) -> bool:
        """Whether the others have to end, too: never because of one. honcho asks some ten times a second."""
        if self.asked_to_end:
            return bool(super()._any_stopped())
        for name, process in self._processes.items():
            if process.get("returncode") is not None and name not in self._left_down:
                self._bring_back(name, process)
        return False

    def _bring_back(self, name: str, process: dict[str, Any]) -> None:
        """Starts a dead process again after a pause that doubles, unless it died too often."""
        now, deaths = time.monotonic(), self._deaths.setdefault(name, [])
        if "restart_at" not in process:
            deaths[:] = [*(at for at in deaths if now - at < WITHIN_S), now]
            self.returncode = None
            if len(deaths) >= DEATHS_AT_MOST:
                self._left_down.add(name)
                self.returncode = process["returncode"] or 1
                self._system_print(f"{name} ended {len(deaths)} times within {WITHIN_S:.0f} s and is left down.\n")
                return
            pause = FIRST_PAUSE_S * 2 ** (len(deaths) - 1)
            process["restart_at"] = now + pause
            self._system_print(f"{name} ended by itself, it is started again in {pause:g} s.\n")
        elif now >= process["restart_at"]:
            for state in ("returncode", "restart_at", "pid"):
                del process[state]
            process["process"] = multiprocessing.Process(name=name, target=process["obj"].run, args=(self.events, True))
            process["process"].start()
