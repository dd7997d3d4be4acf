"""Samples of real records: by class, bounded, the same each time, and damage is shown as such."""

import base64
import io
import shutil
from pathlib import Path

import pytest
from conftest import convert_folder, write_image
from PIL import Image

from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.storage.locate import locate
from pipelines.pages import contact_sheet
from pipelines.pages.contact_sheet import ALL, SIDE_PIXELS, draw_samples

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3)


def draw(folder: Path):
    return draw_samples(locate(folder), read_manifest(folder))


@pytest.fixture
def copy(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "set"))


def test_each_class_has_samples_that_are_pictures_of_it(converted):
    sheet = draw(converted)
    names = read_manifest(converted).classes
    assert [*sheet.groups] == [0, 1, 2]
    for label, samples in sheet.groups.items():
        assert len(samples) == 8
        for sample in samples:
            assert sample.path.startswith(f"{names[label]}/")
            head, data = sample.picture.split(",")
            assert head == "data:image/webp;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                assert max(image.size) <= SIDE_PIXELS
    assert (sheet.facts.looked, sheet.facts.total, sheet.facts.damage) == (72, 72, ())


def test_the_same_data_set_gives_the_same_samples(converted):
    assert draw(converted) == draw(converted)


def test_of_a_large_set_a_part_is_drawn_from_every_split(converted, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_RECORDS", 20)
    monkeypatch.setattr(contact_sheet, "_RUN", 4)
    sheet = draw(converted)
    assert 20 <= sheet.facts.looked < 40


def test_a_class_that_was_not_drawn_is_looked_for(tmp_path, monkeypatch):
    for seed in range(60):
        write_image(tmp_path / "images" / "common" / f"{seed}.png", seed)
    write_image(tmp_path / "images" / "rare" / "one.png", 99)
    convert_folder(tmp_path / "images", tmp_path / "out", OPTIONS)
    monkeypatch.setattr(contact_sheet, "MAX_RECORDS", 0)
    monkeypatch.setattr(contact_sheet, "_RUN", 1)
    sheet = draw(tmp_path / "out")
    assert sheet.facts.looked <= 2
    assert [sample.path for sample in sheet.groups[1]] == ["rare/one.png"]


def test_pictures_are_limited_in_number_and_bytes(converted, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_PICTURES", 5)
    assert sum(map(len, draw(converted).groups.values())) == 3  # one of each class
    monkeypatch.setattr(contact_sheet, "MAX_PICTURE_BYTES", 1)
    assert sum(map(len, draw(converted).groups.values())) == 1


def test_it_ends_when_it_is_late(converted, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_SECONDS", -1.0)
    assert draw(converted).facts.looked == 0


def test_a_damaged_record_is_named_and_the_others_are_shown(copy):
    shard = copy / "train-00000-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    sheet = draw(copy)
    (damage,) = sheet.facts.damage
    assert damage.startswith("train-00000-of-00003.tfrecord: damaged record at byte 0")
    assert sheet.facts.looked == 71
    assert len(sheet.groups) == 3


def test_shards_that_are_missing_or_cut_are_named_once(copy):
    (copy / "train-00001-of-00003.tfrecord").unlink()
    cut = copy / "train-00002-of-00003.tfrecord"
    cut.write_bytes(cut.read_bytes()[:-10])
    sheet = draw(copy)
    assert any("train-00001-of-00003" in damage for damage in sheet.facts.damage)
    assert any("train-00002-of-00003" in damage for damage in sheet.facts.damage)
    assert 0 < sheet.facts.looked < 72


def test_a_set_whose_shards_are_all_gone_has_no_samples(copy):
    for path in copy.glob("*.tf*"):
        path.unlink()
    sheet = draw(copy)
    assert (sheet.groups, sheet.facts.looked) == ({}, 0)
    assert 0 < len(sheet.facts.damage) <= 20


def test_an_image_that_does_not_decode_is_a_sample_that_says_so(copy, monkeypatch):
    monkeypatch.setattr(contact_sheet, "_PER_CLASS", 72)
    from converter.format.examples import decode_example, encode_example
    from converter.format.tfrecords import frame_record, read_records

    shard = copy / "train-00000-of-00003.tfrecord"
    with open(shard, "rb") as file:
        payloads = [payload for _, payload in read_records(file, shard.name, shard.stat().st_size)]
    features = decode_example(payloads[0])
    data = bytearray(features["image/encoded"][0])
    data[45:-12] = bytes(len(data) - 57)
    values = {name: value[0] for name, value in features.items()}
    payloads[0] = encode_example({**values, "image/encoded": bytes(data)})
    shard.write_bytes(b"".join(map(frame_record, payloads)))
    groups = draw(copy).groups
    (sample,) = [each for samples in groups.values() for each in samples if each.damage]
    assert sample.picture == ""


def test_records_without_a_class_are_one_group(image_folder, tmp_path):
    options = ConvertOptions(image_size=(16, 20), label_from="none", num_shards=1)
    convert_folder(image_folder, tmp_path / "out", options)
    groups = draw(tmp_path / "out").groups
    assert [*groups] == [ALL]
    assert len(groups[ALL]) == 48
