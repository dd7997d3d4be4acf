"""Which positions are a step's batch, on one host of several."""

import itertools

import pytest

from converter import UsageError
from reader.steps import NOTHING, Steps


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_hosts_share_all_positions_and_take_equal_steps(remainder):
    for records, batch_size, hosts in itertools.product(range(1, 30), (1, 2, 3, 8), (1, 2, 3, 5)):
        try:
            shares = [
                Steps(
                    records=records,
                    batch_size=batch_size,
                    remainder=remainder,
                    shard_index=host,
                    shard_count=hosts,
                )
                for host in range(hosts)
            ]
        except UsageError:
            # Only where a host would have to take more steps than it has records.
            assert records // hosts < -(-records // (hosts * batch_size))
            continue
        assert len({share.count for share in shares}) == 1
        batches = [
            share.find_positions(step).tolist() for share in shares for step in range(share.count)
        ]
        given = [position for batch in batches for position in batch if position != NOTHING]
        assert len(set(given)) == len(given)
        if remainder == "drop":
            assert all(NOTHING not in batch for batch in batches)
            assert records - len(given) < hosts * (batch_size + 1)
        else:
            assert sorted(given) == list(range(records))
        if remainder == "keep":
            assert all(batch[0] != NOTHING for batch in batches)


def test_a_step_that_would_be_empty_on_some_host_is_refused():
    message = (
        "^remainder 'keep' would leave a host without a record in a step: 3 records in batches of "
        "1 on 2 hosts; choose 'drop' or 'pad'$"
    )
    with pytest.raises(UsageError, match=message):
        Steps(records=3, batch_size=1, shard_count=2)
