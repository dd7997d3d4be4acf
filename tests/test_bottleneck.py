"""The bottleneck of a run in words: advice for each step, and none without a measurement."""

import pytest

from converter.costs import STEPS
from pipelines.pages.bottleneck import explain_bottleneck


def test_of_few_images_the_start_of_the_workers_took_longest():
    steps = {**dict.fromkeys(STEPS, 1), "decode": 2_000}
    assert "Starting the workers" in explain_bottleneck(steps, 9_500)
    assert "Decoding" in explain_bottleneck(steps, 3_000)
    assert "Decoding" in explain_bottleneck(steps)


@pytest.mark.parametrize("step", STEPS)
def test_each_bottleneck_has_advice(step):
    assert "took longest" in explain_bottleneck({**dict.fromkeys(STEPS, 1), step: 50})


def test_without_a_measurement_there_is_no_advice():
    assert explain_bottleneck({}) == explain_bottleneck(dict.fromkeys(STEPS, 0)) == ""
