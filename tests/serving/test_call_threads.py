"""Calls that may hang run beside the event loop, and nobody waits for those that do."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from ml_platform.errors import BusyError, OperationError
from ml_platform.serving import threads
from ml_platform.serving.threads import CallThreads


def test_a_call_returns_or_raises_what_its_function_does() -> None:
    async def run() -> None:
        calls = CallThreads("store")
        assert await asyncio.gather(*(calls.call(lambda n=n: n * n, timeout_seconds=5.0) for n in range(100))) == [  # type: ignore[misc]
            n * n for n in range(100)
        ]

        def broken() -> None:
            raise OperationError("torn")

        with pytest.raises(OperationError, match="torn"):
            await calls.call(broken, timeout_seconds=5.0)

    asyncio.run(run())


def test_a_call_that_hangs_is_left_and_others_go_on() -> None:
    async def run() -> None:
        over = threading.Event()
        calls = CallThreads("store", threads=2)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await calls.call(lambda: over.wait(20.0), timeout_seconds=0.1)
        assert await calls.call(lambda: 7, timeout_seconds=5.0) == 7
        assert time.monotonic() - started < 5.0
        over.set()

    asyncio.run(run())


def test_when_all_threads_hang_calls_are_refused_at_once_until_one_comes_back() -> None:
    async def run() -> None:
        over = threading.Event()
        calls = CallThreads("store", threads=2, stuck_seconds=0.1)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await calls.call(lambda: over.wait(20.0), timeout_seconds=0.15)
        with pytest.raises(BusyError, match="calls to the store hang"):
            await calls.call(lambda: 7, timeout_seconds=5.0)
        over.set()
        deadline = time.monotonic() + 10.0
        while True:
            try:
                assert await calls.call(lambda: 7, timeout_seconds=5.0) == 7
                return
            except BusyError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_no_more_wait_than_the_limit() -> None:
    async def run() -> None:
        over = threading.Event()
        calls = CallThreads("store", threads=1, waiting=3)
        tasks = [asyncio.create_task(calls.call(lambda: over.wait(20.0), timeout_seconds=5.0)) for _ in range(10)]
        done, waiting = await asyncio.wait(tasks, timeout=0.2)
        assert {type(task.exception()) for task in done} == {BusyError}
        assert len(waiting) in (3, 4)
        over.set()
        assert all(await asyncio.gather(*waiting))

    asyncio.run(run())


def test_idle_threads_end_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.02)

    async def run() -> None:
        calls = CallThreads("idlers")
        for _ in range(5):
            assert await calls.call(lambda: 7, timeout_seconds=5.0) == 7
            deadline = time.monotonic() + 10.0
            while any(thread.name == "idlers" for thread in threading.enumerate()):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_process_ends_while_a_call_hangs() -> None:
    code = (
        "import asyncio, time\nfrom ml_platform.serving.threads import CallThreads\n"
        "async def run():\n    try:\n"
        "        await CallThreads('store').call(lambda: time.sleep(600), timeout_seconds=0.1)\n"
        "    except TimeoutError:\n        print('left')\nasyncio.run(run())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "left\n"
