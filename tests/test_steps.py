"""Which positions are a step's batch, on one host of several."""

import itertools
import re

import numpy as np
import pytest

from converter import UsageError
from reader.steps import NOTHING, REMAINDERS, Steps

SIZES = list(itertools.product(range(41), (1, 2, 3, 4, 7, 16, 50), (1, 2, 3, 5, 8)))


def make_hosts(records: int, batch_size: int, hosts: int, remainder: str) -> list[Steps]:
    return [
        Steps(
            records=records,
            batch_size=batch_size,
            remainder=remainder,
            shard_index=host,
            shard_count=hosts,
        )
        for host in range(hosts)
    ]


def list_batches(steps: Steps) -> list[list[int]]:
    return [steps.find_positions(step).tolist() for step in range(steps.count)]


def drop_nothing(batches: list[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch if position != NOTHING]


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_hosts_take_equal_steps_and_neighbouring_positions(remainder):
    for records, batch_size, hosts in SIZES:
        try:
            shares = make_hosts(records, batch_size, hosts, remainder)
        except UsageError:
            continue
        assert len({share.count for share in shares}) == 1
        ranges = [share.range for share in shares]
        assert [0, *(end for _, end in ranges)] == [*(begin for begin, _ in ranges), records]
        sizes = {end - begin for begin, end in ranges}
        assert max(sizes) - min(sizes) <= 1
        for share in shares:
            batches = list_batches(share)
            taken = drop_nothing(batches)
            assert taken == list(range(share.range[0], share.range[0] + len(taken)))
            assert share.range[0] + len(taken) <= share.range[1]
            for batch in batches:
                assert len(batch) == batch_size
                # Nothing comes at the end alone.
                assert NOTHING not in batch[: len(drop_nothing([batch]))]


@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_no_record_is_lost_or_comes_twice(remainder):
    for records, batch_size, hosts in SIZES:
        try:
            shares = make_hosts(records, batch_size, hosts, remainder)
        except UsageError:
            continue
        taken = [position for share in shares for position in drop_nothing(list_batches(share))]
        assert taken == list(range(records))


def test_keep_has_something_in_every_step_of_every_host():
    for records, batch_size, hosts in SIZES:
        try:
            shares = make_hosts(records, batch_size, hosts, "keep")
        except UsageError:
            continue
        for share in shares:
            assert all(batch[0] != NOTHING for batch in list_batches(share))


def test_keep_makes_batches_smaller_no_sooner_than_it_has_to():
    for records, batch_size, hosts in SIZES:
        try:
            shares = make_hosts(records, batch_size, hosts, "keep")
        except UsageError:
            continue
        for share in shares:
            sizes = [len(drop_nothing([batch])) for batch in list_batches(share)]
            partial = [step for step, size in enumerate(sizes) if size < batch_size]
            if partial:
                # The last step cannot do without one.
                assert sizes[partial[0] + 1 :] in ([], [1])
            if hosts == 1:
                assert partial in ([], [share.count - 1])


def test_drop_has_full_batches_alone_and_loses_less_than_one_more_step():
    for records, batch_size, hosts in SIZES:
        shares = make_hosts(records, batch_size, hosts, "drop")
        batches = [batch for share in shares for batch in list_batches(share)]
        assert all(NOTHING not in batch for batch in batches)
        assert records - len(batches) * batch_size == records % (batch_size * hosts)


def test_pad_takes_no_more_steps_than_needed_and_has_nothing_in_the_last_alone():
    for records, batch_size, hosts in SIZES:
        shares = make_hosts(records, batch_size, hosts, "pad")
        assert shares[0].count == -(-records // (batch_size * hosts))
        for share in shares:
            assert all(NOTHING not in batch for batch in list_batches(share)[:-1])


def test_keep_is_refused_only_where_no_number_of_steps_would_do():
    for records, batch_size, hosts in SIZES:
        possible = any(
            steps * hosts <= records <= steps * hosts * batch_size for steps in range(records + 1)
        )
        if possible:
            make_hosts(records, batch_size, hosts, "keep")
            continue
        message = (
            f"remainder 'keep' would leave a host without a record in a step: {records} records in "
            f"batches of {batch_size} on {hosts} hosts; choose 'drop' or 'pad'"
        )
        for host in range(hosts):
            with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
                Steps(records=records, batch_size=batch_size, shard_index=host, shard_count=hosts)


def test_drop_and_pad_refuse_nothing():
    for remainder in ("drop", "pad"):
        for records, batch_size, hosts in SIZES:
            assert make_hosts(records, batch_size, hosts, remainder)


def test_many_records_are_counted_in_whole_numbers():
    records = 3 * 10**15 + 1
    last = make_hosts(records, 1_000, 7, "keep")[-1]
    assert last.range[1] == records
    batch = last.find_positions(last.count - 1)
    assert batch.dtype == np.int64
    assert batch[batch != NOTHING][-1] == records - 1
