"""The training process: `python -m ml_platform.families.lora.entry REQUEST.json`.

One script for every place: started by Dagster Pipes here or in a pod, by torchrun with several processes, or
by hand. Progress goes to the Dagster run when Dagster started it, to standard output otherwise. State lives in
ML_PLATFORM_HOME, artifacts where ML_PLATFORM_ARTIFACT_URL says. SIGTERM and SIGINT write a
checkpoint before the process ends; running again continues from it.

Exit code 0: the candidate is published. 1: the reason stands on standard error. 2: wrong usage.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.progress import Progress
from ml_platform.errors import MlPlatformError
from ml_platform.families.lora.processes import is_first_process, leave_processes
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.families.lora.tracking import Tracker
from ml_platform.families.lora.train import train_candidate
from ml_platform.lineage.artifacts import Artifact
from ml_platform.lineage.object_store import artifact_store

SECONDS_BETWEEN_SENTENCES = 2.0

Say = Callable[[str], None]


def main(arguments: Sequence[str]) -> int:
    """Trains what the request file asks for; the exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    # Spinning threads on a busy machine cost 10 to 30 times; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with _audience() as (say, tell_result):
        try:
            request = TrainingRequest.read(Path(arguments[0]))
            candidate, run_id = _train(request, Home.from_environment(), say)
        except MlPlatformError as error:
            print(error, file=sys.stderr)
            tell_result({"error": str(error)})
            return 1
        finally:
            leave_processes()
        tell_result(
            {
                "candidate_sha256": candidate.sha256,
                "facts": candidate.facts,
                "reused": candidate.reused,
                "run_id": run_id,
            }
        )
    return 0


def _train(request: TrainingRequest, home: Home, say: Say) -> tuple[Artifact, str | None]:
    tracker = Tracker(home, request, say) if is_first_process() else None
    with _stop_on_signals() as should_stop:
        try:
            candidate = train_candidate(
                request,
                artifact_store(home),
                home,
                _sparingly(say),
                listen=tracker.listen if tracker else lambda _step, _values: None,
                should_stop=should_stop,
            )
        except MlPlatformError as error:
            if tracker:
                tracker.fail(str(error))
            raise
    state = "found again" if candidate.reused else "trained"
    say(Progress("train", 1.0, f"candidate {candidate.sha256[:12]} {state}").sentence())
    return candidate, tracker.finish(candidate) if tracker else None


def _sparingly(say: Say) -> Callable[[Progress], None]:
    """A reporter that says something new every two seconds at most."""
    said = [0.0]

    def report(progress: Progress) -> None:
        if time.monotonic() - said[0] >= SECONDS_BETWEEN_SENTENCES:
            said[0] = time.monotonic()
            say(progress.sentence())

    return report


@contextmanager
def _audience() -> Iterator[tuple[Say, Callable[[dict[str, Any]], None]]]:
    """Who hears sentences and the result: the Dagster run that started this process, or standard output."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if not is_first_process():
        yield (lambda _sentence: None), (lambda _result: None)
    elif PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        with open_dagster_pipes() as pipes:
            yield pipes.log.info, pipes.report_custom_message
    else:
        yield _print, _print_result


def _print(sentence: str) -> None:
    print(sentence, flush=True)


def _print_result(result: dict[str, Any]) -> None:
    if "candidate_sha256" in result:
        _print(f"candidate {result['candidate_sha256']}")


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGTERM or SIGINT into a request to stop after the current step; a second one ends at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
