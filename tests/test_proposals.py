"""Whether a sample is taken, and what comes of it."""

from pathlib import Path

import pytest

from converter.options import ConvertOptions
from pipelines.jobs.preview import propose


def test_a_sample_is_taken_only_where_the_number_of_shards_depends_on_it(
    image_folder: Path,
) -> None:
    for options, needed in (
        (ConvertOptions(), False),  # 72 images of 256x256 never fill 16 shards of 128 MB
        (ConvertOptions(num_shards=3), False),
        (ConvertOptions(shard_bytes=10_000), True),
        (ConvertOptions(resize="none"), True),  # their size is unknown
    ):
        proposal = propose(image_folder, options, always_sample=False)
        assert (proposal.estimate is not None) is needed, options


def test_a_sample_also_tells_whether_what_may_not_fit_does(image_folder: Path) -> None:
    for options in (ConvertOptions(), ConvertOptions(resize="none", num_shards=3)):
        for room, needed in ((0, True), (1e12, options.resize == "none")):
            proposal = propose(image_folder, options, always_sample=False, room=room)
            assert (proposal.estimate is not None) is needed
            assert (proposal.bytes > 72 * 1000) is needed
        assert proposal.draft.shard_records == propose(image_folder, options).draft.shard_records


def test_leaving_the_sample_out_gives_the_same_plan(image_folder: Path) -> None:
    options = ConvertOptions(validation_split=0.3)
    sampled = propose(image_folder, options)
    quick = propose(image_folder, options, always_sample=False)
    assert sampled.estimate is not None
    assert quick.estimate is None
    assert quick.draft.shard_records == sampled.draft.shard_records


@pytest.mark.parametrize("shard_bytes", [2_000, 20_000, 100_000, 300_000, 10_000_000])
def test_the_sample_is_left_out_only_where_it_would_change_nothing(
    image_folder: Path, shard_bytes: int
) -> None:
    options = ConvertOptions(image_size=(64, 64), shard_bytes=shard_bytes)
    quick = propose(image_folder, options, always_sample=False)
    assert quick.draft.shard_records == propose(image_folder, options).draft.shard_records


def test_shards_come_out_in_the_size_asked_for(image_folder: Path) -> None:
    options = ConvertOptions(image_size=(64, 64), encoding="png", shard_bytes=20_000)
    proposal = propose(image_folder, options)
    assert proposal.estimate is not None
    shards = proposal.draft.shard_records["train"]
    mean = 72 * proposal.estimate.record_bytes / len(shards)
    assert 0.85 < mean / options.shard_bytes < 1.15
    assert max(shards) - min(shards) <= 1
