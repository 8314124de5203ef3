"""The processes of a Procfile, started together and ended together; needs honcho, of the Dagster layer."""

import sys
from pathlib import Path

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

STOPPED = (130, 143)
"""How honcho says that Ctrl-C or SIGTERM stopped it, which is how it is meant to end."""


def run_procfile(folder: Path, environment: dict[str, str], *, quiet: bool) -> int:
    """Runs `Procfile` of a folder until a signal comes, 0, or one process ends, which ends the others: its exit code.

    What the processes say goes to stdout with their names before it, or to stderr when `quiet`.
    """
    manager = _PatientManager(Printer(sys.stderr if quiet else sys.stdout))
    procfile = parse_procfile((folder / "Procfile").read_text(encoding="utf-8"))
    for name, command in procfile.processes.items():
        manager.add_process(name, command, env=environment, cwd=str(folder))
    manager.loop()
    return 0 if manager.returncode in STOPPED else int(manager.returncode or 0)


class _PatientManager(Manager):  # type: ignore[misc]  # honcho ships no types
    """Ends its processes once all of them have started: honcho forgets those that had no process id yet."""

    asked_to_end = False

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
