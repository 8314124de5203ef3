"""Rate limits: never more than was granted, never less, for any number of callers and workers, in one small table."""

import os

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.serving.gateway.rates import SLOTS, Rate, RateTable, new_table_file


def new_table() -> RateTable:
    descriptor = new_table_file()
    table = RateTable(descriptor)
    os.close(descriptor)
    return table


rates = st.builds(Rate, st.sampled_from([0.1, 1.0, 7.0, 50.0]), st.integers(1, 20))
gaps = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80)


@given(rates, gaps)
def test_in_any_stretch_of_time_no_more_pass_than_the_burst_and_the_rate_allow(rate: Rate, gaps: list[float]) -> None:
    table, now, passed = new_table(), 1_000.0, list[float]()
    for gap in gaps:
        now += gap
        if table.wait_s("somebody", rate, now) == 0.0:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = rate.burst + rate.per_second * (passed[last] - passed[first])
            assert last - first + 1 <= allowed + 1e-6
    table.close()


@given(rates, gaps)
def test_who_waits_as_long_as_he_was_told_passes(rate: Rate, gaps: list[float]) -> None:
    table, now = new_table(), 1_000.0
    for gap in gaps:
        now += gap
        wait = table.wait_s("somebody", rate, now)
        if wait:
            now += wait
            assert table.wait_s("somebody", rate, now) == 0.0
    table.close()


def test_callers_do_not_pay_for_each_other_however_many_there_are() -> None:
    table, rate = new_table(), Rate(1.0, 2)
    refused = sum(table.wait_s(f"caller {number}", rate, 1_000.0) > 0.0 for number in range(2 * SLOTS // 10))
    assert refused == 0
    assert table.wait_s("caller 7", rate, 1_000.0) == 0.0
    assert table.wait_s("caller 7", rate, 1_000.0) > 0.0
    table.close()


def test_a_full_table_still_limits() -> None:
    table, rate = new_table(), Rate(0.001, 1)
    passed = sum(table.wait_s(f"caller {number}", rate, 1_000.0) == 0.0 for number in range(2 * SLOTS))
    assert passed <= SLOTS
    assert passed > SLOTS // 2
    table.close()


def test_workers_that_map_one_file_share_one_limit() -> None:
    descriptor = new_table_file()
    here, rate = RateTable(descriptor), Rate(0.001, 10)
    child = os.fork()
    if child == 0:
        there = RateTable(descriptor)
        os._exit(sum(there.wait_s("somebody", rate, 1_000.0) == 0.0 for _ in range(6)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    assert sum(here.wait_s("somebody", rate, 1_000.0) == 0.0 for _ in range(6)) == 4
    here.close()
    os.close(descriptor)
