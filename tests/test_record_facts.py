"""What records say beside one label: counted as it is, also where it makes no sense."""

import math

import numpy as np
import pytest
from conftest import encode_image
from PIL import Image

from converter.errors import ImageError
from converter.format.schema import BOX_LABELS, BOXES, CAPTION, LABELS, TARGET
from pipelines.pages import record_facts
from pipelines.pages.record_facts import MAX_CAPTIONS, RecordFacts, RecordTally
from reader import Record


def make(mask=None, **values) -> Record:
    return Record(
        encoded=b"", format="png", height=4, width=5, label=-1, text="", source_id="a",
        sha256="", values=values, mask=mask,
    )  # fmt: skip


def count(*records: Record) -> RecordFacts:
    tally = RecordTally()
    for record in records:
        tally.add(record)
    return tally.describe(total=len(records))


def make_mask(rows) -> bytes:
    return encode_image(Image.fromarray(np.array(rows, np.uint8)), "PNG")


def test_nothing_gives_nothing():
    assert count() == RecordFacts()
    assert count(make()) == RecordFacts(looked=1, total=1)


def test_labels_are_counted_once_a_record():
    facts = count(make(**{LABELS: [1, 2]}), make(**{LABELS: [2, 2]}), make(**{LABELS: []}))
    assert facts.tagged == {1: 1, 2: 2}
    assert facts.labels_per_record == {0: 1, 2: 2}


def test_boxes_are_counted_by_number_class_and_area():
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.1, 0.2), (0.0, 0.0, 1.0, 1.0)]
    facts = count(make(**{BOXES: boxes, BOX_LABELS: [0, 0, 7]}), make(**{BOXES: []}))
    assert facts.boxed == {0: 2, 7: 1}
    assert facts.boxes_per_record == {0: 1, 3: 1}
    assert facts.box_areas == {0.01: 1, 0.25: 1, 0.5: 1}


def test_boxes_of_nonsense_cost_nothing():
    facts = count(make(**{BOXES: [(math.nan, 0, math.inf, 1), (1, 1, 0, 0), (-9, 0, 9, 9)]}))
    assert sum(facts.box_areas.values()) == 3


def test_masks_are_counted_by_record_and_by_area():
    one = make_mask([[0] * 5] * 3 + [[1] * 5])
    facts = count(make(one), make(make_mask([[0] * 5] * 4)))
    assert (facts.masks, facts.masked) == (2, {0: 2, 1: 1})
    assert facts.mask_pixels == {0: 875, 1: 125}


def test_no_more_masks_are_decoded_than_allowed(monkeypatch):
    monkeypatch.setattr(record_facts, "MAX_MASKS", 2)
    mask = make_mask([[0] * 5] * 4)
    assert count(*[make(mask)] * 5).masks == 2


def test_a_damaged_mask_is_an_error():
    with pytest.raises(ImageError):
        count(make(b"no png"))


def test_captions_are_measured_in_words_and_the_first_are_kept():
    facts = count(*(make(**{CAPTION: f"{'word ' * n}{'x' * 500}"}) for n in range(20)))
    assert facts.caption_words == {1: 4, 5: 5, 10: 5, 15: 5, 20: 1}
    assert len(facts.captions) == MAX_CAPTIONS
    assert max(map(len, facts.captions)) == 300


def test_numbers_are_cut_into_ten_steps():
    facts = count(*(make(**{TARGET: float(n)}) for n in range(100)), make(**{TARGET: math.nan}))
    assert facts.targets == (10,) * 10
    assert facts.target_range == (0.0, 99.0)
    assert count(*[make(**{TARGET: 3.0})] * 4).targets == (4, *[0] * 9)
    assert count(make(**{TARGET: math.inf})).target_range is None
