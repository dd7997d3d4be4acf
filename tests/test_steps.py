"""Which positions are a step's batch, on one host of several."""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from converter import UsageError
from reader.sampling.orders import NOTHING, REMAINDERS, Steps

SIZES = list(itertools.product(range(41), (1, 2, 3, 4, 7, 16, 50), (1, 2, 3, 5, 8)))


LAYOUTS = [False, True]


def make_hosts(
    records: int, batch_size: int, hosts: int, remainder: str, *, contiguous: bool = False
) -> list[Steps]:
    return [
        Steps(
            records=records,
            batch_size=batch_size,
            remainder=remainder,
            shard_index=host,
            shard_count=hosts,
            contiguous=contiguous,
        )
        for host in range(hosts)
    ]


def list_layouts(remainder: str, layouts: list[bool] = LAYOUTS) -> Iterator[list[Steps]]:
    """The hosts of every size for which there are such steps."""
    for sizes, contiguous in itertools.product(SIZES, layouts):
        with contextlib.suppress(UsageError):
            yield make_hosts(*sizes, remainder, contiguous=contiguous)


def list_batches(steps: Steps) -> list[list[int]]:
    return [steps.find_positions(step).tolist() for step in range(steps.count)]


def drop_nothing(batches: list[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch if position != NOTHING]


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_hosts_take_equal_steps_of_neighbouring_positions(remainder):
    for shares in list_layouts(remainder):
        assert len({share.count for share in shares}) == 1
        for batch in itertools.chain(*map(list_batches, shares)):
            taken = drop_nothing([batch])
            assert len(batch) == shares[0].batch_size
            # Nothing comes at the end alone.
            assert batch[: len(taken)] == [*range(taken[0], taken[-1] + 1)] if taken else True


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_hosts_divide_a_step_among_them(remainder):
    for shares in list_layouts(remainder, [False]):
        steps = [drop_nothing([*step]) for step in zip(*map(list_batches, shares), strict=True)]
        taken = [position for step in steps for position in step]
        assert taken == [*range(len(taken))]
        for step in range(shares[0].count):
            sizes = {len(drop_nothing([share.find_positions(step)])) for share in shares}
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_hosts_that_divide_an_epoch_take_a_range_each(remainder):
    for shares in list_layouts(remainder, [True]):
        records, hosts = shares[0].records, len(shares)
        for host, share in enumerate(shares):
            begin, end = host * records // hosts, (host + 1) * records // hosts
            taken = drop_nothing(list_batches(share))
            assert taken == [*range(begin, begin + len(taken))]
            assert len(taken) == end - begin or remainder == "drop"


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("records", [100, 192])
def test_any_number_of_hosts_sees_the_same_records_in_the_same_step(records, remainder):
    # Eight a step in all: one may go on where another was stopped.
    seen = []
    for batch_size in (8, 4, 2):
        hosts = make_hosts(records, batch_size, 8 // batch_size, remainder)
        steps = zip(*map(list_batches, hosts), strict=True)
        seen.append([drop_nothing([*step]) for step in steps])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_no_record_is_lost_or_comes_twice(remainder):
    for shares in list_layouts(remainder):
        taken = [position for share in shares for position in drop_nothing(list_batches(share))]
        assert sorted(taken) == list(range(shares[0].records))


def test_keep_has_something_in_every_step_of_every_host():
    for shares in list_layouts("keep"):
        for share in shares:
            assert all(batch[0] != NOTHING for batch in list_batches(share))


def test_keep_makes_batches_smaller_no_sooner_than_it_has_to():
    for shares in list_layouts("keep"):
        batch_size, hosts = shares[0].batch_size, len(shares)
        for share in shares:
            sizes = [len(drop_nothing([batch])) for batch in list_batches(share)]
            partial = [step for step, size in enumerate(sizes) if size < batch_size]
            if partial:
                # The last step cannot do without one.
                assert sizes[partial[0] + 1 :] in ([], [1])
            if hosts == 1:
                assert partial in ([], [share.count - 1])


def test_drop_has_full_batches_alone_and_loses_less_than_one_more_step():
    for shares in list_layouts("drop"):
        records, batch_size, hosts = shares[0].records, shares[0].batch_size, len(shares)
        batches = [batch for share in shares for batch in list_batches(share)]
        assert all(NOTHING not in batch for batch in batches)
        assert records - len(batches) * batch_size == records % (batch_size * hosts)


def test_pad_takes_no_more_steps_than_needed_and_has_nothing_in_the_last_alone():
    for shares in list_layouts("pad"):
        records, batch_size, hosts = shares[0].records, shares[0].batch_size, len(shares)
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
        for host in range(hosts):
            with pytest.raises(
                UsageError,
                match=rf"^remainder 'keep' .* {records} records .* {batch_size} on {hosts} hosts",
            ):
                Steps(records=records, batch_size=batch_size, shard_index=host, shard_count=hosts)


def test_drop_and_pad_refuse_nothing():
    for remainder in ("drop", "pad"):
        for records, batch_size, hosts in SIZES:
            assert make_hosts(records, batch_size, hosts, remainder)


def test_many_records_are_counted_in_whole_numbers():
    records = 3 * 10**15 + 1
    last = make_hosts(records, 1_000, 7, "keep")[-1]
    batch = last.find_positions(last.count - 1)
    assert batch.dtype == np.int64
    assert batch[batch != NOTHING][-1] == records - 1
