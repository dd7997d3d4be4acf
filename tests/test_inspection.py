"""`shardmill inspect`: counts, classes, a record by its number or name, and statistics."""

import json
import re
import shutil
import uuid

import numpy as np
import pytest
from annotating import CLASSES, write_coco
from conftest import convert_folder, encode_image, make_image, read_tree, write_image
from forging import forge, make_payload
from PIL import Image
from servers import upload_tree
from test_tables import write_table

from converter import progress
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.storage.locate import locate
from pipelines.cli import inspection
from pipelines.cli.commands import main
from reader import open_shards

NAMES = [
    "قطة", "猫と犬", "😀 smile", "<script>alert(1)<", "a" * 200, "esc\x1b[31m", "right\u202eleft",
]  # fmt: skip


def look(capsys, *arguments, code=0):
    """What `inspect` prints."""
    assert main(["inspect", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert bool(printed.err) == bool(code)
    return printed.out


def look_as_program(capsys, *arguments, code=0):
    return json.loads(look(capsys, *arguments, "--json", code=code))


def refuse(capsys, *arguments, code=2):
    assert main(["inspect", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("shardmill: error: ").rstrip("\n")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """COCO's annotations as a data set: 24 images in two splits, 3 classes, boxes."""
    folder = tmp_path_factory.mktemp("boxes")
    write_coco(folder / "coco")
    convert_folder(folder / "coco", folder / "out", ConvertOptions(image_size=(16, 16)))
    return folder / "out"


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A table with lists of classes, captions and masks: 12 images."""
    folder = tmp_path_factory.mktemp("tagged")
    rows = []
    for number in range(12):
        write_image(folder / f"{number}.png", number)
        mask = Image.new("L", (32, 24), number % 3)
        (folder / f"mask-{number}.png").write_bytes(encode_image(mask, "PNG"))
        tags = "|".join(["bird", "cat", "dog"][: number % 3 + 1])
        row = {"path": f"{number}.png", "tags": tags, "mask": f"mask-{number}.png"}
        rows.append({**row, "text": f"picture {number}\n" + "word " * 99})
    write_table(folder / "table.csv", rows)
    options = ConvertOptions(
        image_size=(16, 16), labels_column="tags", caption_column="text", mask_column="mask",
        validation_split=0.3,
    )  # fmt: skip
    convert_folder(folder / "table.csv", folder / "out", options)
    return folder / "out"


def test_classes_of_boxes_are_counted_in_records(boxes, capsys):
    text = look(capsys, boxes)
    assert re.search(r"^  label  train  validation  boxes  images  class$", text, re.MULTILINE)
    found = look_as_program(capsys, boxes)
    expected = dict.fromkeys(CLASSES, 0)
    shards = open_shards(boxes)
    for split in shards.splits:
        for record in shards.source(split):
            for label in record.values["image/object/class/label"]:
                expected[shards.class_names[label]] += 1
    assert found["boxes"] == expected
    assert sum(expected.values()) > 20
    for number, (name, count) in enumerate(expected.items()):
        assert re.search(rf"^ +{number} .* {count}  +\d+  {name}$", text, re.MULTILINE)
    assert found["counted"] == {"records": 24, "all": True}
    assert found["columns"]["image/object/bbox"] == "boxes"


def test_classes_in_lists_are_counted_in_records(tagged, capsys):
    found = look_as_program(capsys, tagged)
    assert found["classes"] == {"bird": 12, "cat": 8, "dog": 4}
    assert found["boxes"] == {}
    text = look(capsys, tagged)
    assert re.search(r"^ +0 +\d+ +\d+ +12  bird$", text, re.MULTILINE)
    assert "counted in" not in text


def test_what_is_too_much_to_count_is_counted_in_part_and_said_so(tagged, capsys, monkeypatch):
    monkeypatch.setattr(inspection, "_MAX_BYTES", 9_000)
    found = look_as_program(capsys, tagged)
    looked = found["counted"]["records"]
    assert 0 < looked < 12
    assert found["counted"]["all"] is False
    assert found["classes"]["bird"] == looked
    assert f"  labels were counted in {looked} of 12 records\n" in look(capsys, tagged)


def test_a_damaged_record_ends_the_count_of_its_shard_and_is_named(tagged, tmp_path, capsys):
    out = shutil.copytree(tagged, tmp_path / "out")
    shard = out / "train-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[-50] ^= 1
    shard.write_bytes(data)
    text = look(capsys, out)
    counted, error = re.findall(r"^  (?:labels were|not) counted .*$", text, re.MULTILINE)
    assert re.search(r"in (\d+) of 12", counted)[1] == "11"
    assert re.search(rf"{shard.name}: damaged record at byte \d+ ", error)


def test_bytes_of_images_and_masks_are_never_printed(tagged, capsys):
    text = look(capsys, tagged)
    assert re.search(r"^  image/encoded +image +\d[\d,]* bytes$", text, re.MULTILINE)
    mask = r"^  image/segmentation/class/encoded +mask +(\d+) bytes$"
    size = int(re.search(mask, text, re.MULTILINE)[1])
    assert size < 200  # so that only its name tells it from a text
    assert "PNG" not in text
    assert "IHDR" not in text
    features = look_as_program(capsys, tagged)["record"]["features"]
    assert features["image/segmentation/class/encoded"] == [{"bytes": size}]
    assert (
        features["image/caption"][0].strip().endswith("word word")
    )  # a program gets all of a text
    caption = re.search(r"^  image/caption +text +(.*)$", text, re.MULTILINE)[1]
    assert re.fullmatch(r"picture \d+\\n(word )+.*… \(\d+ bytes\)", caption)
    assert re.search(r"^  image/class/labels +labels +0 bird", text, re.MULTILINE)


@pytest.mark.parametrize(("number", "place"), [(0, 0), (5, 5), (-1, -1), ("+3", 3)])
def test_a_record_is_found_by_its_number(number, place, converted, capsys):
    for split in ("train", "validation"):
        source = open_shards(converted).source(split)
        found = look_as_program(capsys, converted, "--split", split, "--record", number)["record"]
        assert found["number"] == range(len(source))[place]
        record = source[place]
        assert found["features"]["image/source_id"] == [record.source_id]
        assert found["features"]["image/encoded"] == [{"bytes": len(record.encoded)}]
        shards = read_manifest(converted).list_shards(split)
        before = next(n for n, shard in enumerate(shards) if shard.name == found["shard"])
        assert sum(s.records for s in shards[:before]) + found["row"] == found["number"]


def test_every_record_is_found_by_the_name_of_its_original(converted, capsys, monkeypatch):
    shards = open_shards(converted)
    monkeypatch.setattr(inspection, "read_record", lambda *place: place[2:])
    folder, manifest = locate(converted), read_manifest(converted)
    for split in shards.splits:
        for number, path in enumerate(shards.source(split).file_paths):
            for name in (path, f"images/{path}"):
                for chosen in (None, split):
                    assert inspection.find_record(folder, manifest, chosen, name) == (split, number)


def test_a_record_is_shown_alone_if_one_is_asked_for(converted, capsys):
    path = open_shards(converted).source("validation").file_paths[3]
    text = look(capsys, converted, "--record", f"somewhere/{path}")
    assert text.startswith("record 3 of validation, number 3 in validation-00000-of-")
    assert "left out" not in text
    assert text.count("\n") == 13


def test_a_record_is_found_by_its_number_in_its_shard(converted, capsys):
    shards = read_manifest(converted).shards
    assert len({shard.split for shard in shards}) == 2
    numbers = dict.fromkeys(open_shards(converted).splits, 0)
    for shard in shards:
        for row in range(shard.records):
            number = numbers[shard.split]
            for place in (f"{shard.name}:{row}", f"out/{shard.name}:{row - shard.records}"):
                found = look_as_program(capsys, converted, "--record", place)["record"]
                assert (found["split"], found["number"]) == (shard.split, number)
                assert (found["shard"], found["row"]) == (shard.name, row)
            numbers[shard.split] += 1
    text = look(capsys, converted, "--record", f"{shards[1].name}:0", "--split", "train")
    assert f", number 0 in {shards[1].name}:" in text


def test_verify_names_a_damaged_record_as_inspect_takes_it(converted, tmp_path, capsys):
    out = shutil.copytree(converted, tmp_path / "out")
    shard = read_manifest(out).shards[1]
    data = bytearray((out / shard.name).read_bytes())
    data[-6] ^= 1
    (out / shard.name).write_bytes(data)
    assert main(["verify", str(out)]) == 1
    named = [line for line in capsys.readouterr().out.splitlines() if "damaged record" in line]
    place, _, _ = named[0].partition(": ")
    assert (len(named), place) == (1, f"{shard.name}:{shard.records - 1}")
    assert main(["inspect", str(out), "--record", place]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"shardmill: error: {shard.name}: damaged record at byte ")
    assert f"(record {shard.records - 1}" in error
    assert main(["verify", str(out), "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [fault["record"] for fault in faults] == [None, shard.records - 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", "train-00009-of-00003.tfrecord:1"], "no shard 'train-00009-of-00003.tfrec"),
        (
            ["--record", "train-00000-of-00003.tfrecord:99"],
            "record 99 is out of range: train-00",
        ),
        (["--record", "train-00000-of-00003.tfrecord:-99"], "record -99 is out of range"),
        (
            ["--record", "train-00000-of-00003.tfrecord:0", "--split", "validation"],
            "is no shard of split validation",
        ),
        (["--record", "train-00000-of-00003.tfrecord:"], "no record of the data set is from"),
        (["--record", "54"], "record 54 is out of range: split train has 5"),
        (["--record", "-99"], "record -99 is out of range"),
        (["--record", "9" * 18], "is out of range"),
        (["--record", "9" * 40], "no record of the data set is from '999"),
        (["--record", "bee/none.png"], "no record of the data set is from 'bee/none.png'"),
        (["--record", "bild 7 ü"], r"did you mean 'bee/bild 7 ü.JPG'?"),
        (["--record", "bild 7 ü.JPG", "--split", "none"], "no split 'none'"),
        (["--split", "none"], "no split 'none': there are train, validation"),
        (["--stats", "--sample", "0"], "sample 0"),
        (["--stats", "--sample", "x"], "invalid int value"),
        (["--sample", "5"], "sample 5 is for --stats"),
        (["--json", "--quiet"], "not allowed with"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(arguments, message, converted, capsys):
    code = 1 if "none" in arguments else 2
    assert main(["inspect", str(converted), *arguments]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_damaged_record_is_a_line_with_its_file_and_place(converted, tmp_path, capsys):
    out = shutil.copytree(converted, tmp_path / "out")
    shard = out / "train-00000-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    assert main(["inspect", str(out)]) == 1
    printed = capsys.readouterr()
    assert "  label  train  validation  images  class\n" in printed.out  # all the rest is shown
    assert printed.err == (
        f"shardmill: error: {shard.name}: damaged record at byte 0 (record 0): "
        "checksum of the payload does not match\n"
    )
    found = look_as_program(capsys, out, code=1)
    assert found["classes"]["bee"] == 24
    assert found["record"]["features"] == {}
    assert found["record"]["error"].startswith(f"{shard.name}: damaged record at byte 0 ")
    assert look(capsys, out, "--record", "1").startswith("record 1 of train")
    assert look(capsys, out, "--quiet", code=1) == ""


def test_files_of_another_size_are_a_line_each(converted, tmp_path, capsys):
    out = shutil.copytree(converted, tmp_path / "out")
    index = out / "train-00000-of-00003.tfindex"
    index.write_bytes(index.read_bytes()[:-3])
    assert main(["inspect", str(out), "--record", "1"]) == 1
    assert f"{index} has " in capsys.readouterr().err


def test_nothing_but_errors_is_printed_quietly(converted, capsys):
    assert look(capsys, converted, "--quiet") == ""


def test_unfinished_newer_and_other_folders_are_refused_in_one_line(
    converted, tmp_path, capsys, monkeypatch
):
    (tmp_path / "begun" / ".shardmill").mkdir(parents=True)
    assert "conversion was interrupted" in refuse(capsys, tmp_path / "begun", code=1)
    assert "there is no manifest.json in it" in refuse(capsys, tmp_path, code=1)
    assert "there is no manifest.json" in refuse(capsys, tmp_path / "none", code=1)
    out = shutil.copytree(converted, tmp_path / "out")
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(re.sub('("format_version": *)"1.0"', r'\1"2.0"', text))
    assert "has format version 2.0" in refuse(capsys, out, code=1)
    (out / "manifest.json").write_text(text[:-9])
    assert "is damaged" in refuse(capsys, out, code=1)


def test_a_data_set_without_records_is_shown(tmp_path, capsys):
    out = forge(tmp_path / "out", {"train-0": []})
    text = look(capsys, out)
    assert "0 images in 2 classes" in text
    assert "record" not in text.split("images  class")[1]
    assert look_as_program(capsys, out)["record"] is None
    assert "holds no records" in refuse(capsys, out, "--record", "0")


def test_hostile_names_are_escaped_and_keep_their_columns(tmp_path, capsys):
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "images" / name / f"{number}.png", number)
    convert_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(image_size=(8, 8)))
    before = read_tree(tmp_path / "out")
    text = look(capsys, tmp_path / "out")
    assert all(line.isprintable() for line in text.splitlines())
    rows = re.findall(r"^ {4,6}(\d)  {6}1  (.*)$", text, re.MULTILINE)
    assert [int(label) for label, _ in rows] == [*range(len(NAMES))]
    shown = {name for _, name in rows}
    assert {"قطة", "猫と犬", "😀 smile", "<script>alert(1)<", "esc\\x1b[31m"} <= shown
    assert "right\\u202eleft" in shown
    assert f"{'a' * 119}…" in shown
    assert read_tree(tmp_path / "out") == before
    assert main(["inspect", str(tmp_path / "out"), "--record", f"{NAMES[0]}/0.png"]) == 0


def test_one_class_and_twenty_thousand(tmp_path, capsys, monkeypatch):
    write_image(tmp_path / "images" / "only" / "1.png", 1)
    convert_folder(tmp_path / "images", tmp_path / "one", ConvertOptions(image_size=(8, 8)))
    assert "1 image in 1 class," in look(capsys, tmp_path / "one")
    payloads = [make_payload(encode_image(make_image(1), "PNG"), 1)]
    monkeypatch.setattr("forging.CLASSES", tuple(f"class {n}" for n in range(20_000)))
    out = tmp_path / "many"
    labels = [0] * 20_000
    labels[1] = 1
    monkeypatch.setattr("forging.SplitInfo", make_split(labels))
    forge(out, {"train-0": payloads})
    text = look(capsys, out)
    assert "  … and 19,980 more classes: --classes lists all\n" in text
    assert text.count("class ") < 30
    assert look(capsys, out, "--classes").count("class ") == 20_000
    assert len(look_as_program(capsys, out)["classes"]) == 20_000


def make_split(labels):
    """`SplitInfo` with these counts of labels."""
    from converter.format.manifest import SplitInfo

    return lambda **values: SplitInfo(**{**values, "labels": tuple(labels)})


def test_statistics_are_those_of_the_reader(converted, capsys):
    found = look_as_program(capsys, converted, "--stats")["statistics"]
    shards = open_shards(converted)
    assert found.keys() == shards.splits.keys()
    for split in shards.splits:
        pixels = np.concatenate([
            np.asarray(images).reshape(-1, 3)
            for images, _ in shards.batches(split, batch_size=8, shuffle=False)
        ]).astype(float)  # fmt: skip
        assert found[split]["mean"] == pytest.approx(pixels.mean(0).tolist())
        assert found[split]["std"] == pytest.approx(pixels.std(0).tolist())
    text = look(capsys, converted, "--stats", "--split", "train")
    mean, std = found["train"]["mean"][1], found["train"]["std"][1]
    numbers = rf"{mean:.3f} +{std:.3f} +{mean / 255:.5f} +{std / 255:.5f}"
    assert re.search(rf"^  train +green +{numbers}  of \d+ records$", text, re.MULTILINE)
    assert "validation  red" not in text


def test_what_reads_all_records_says_how_far_it_is(converted, capsys, monkeypatch):
    phases, begin = [], progress.begin

    def note(*arguments):
        phases.append(begin(*arguments))
        return phases[-1]

    monkeypatch.setattr(progress, "begin", note)
    look(capsys, converted, "--stats", "--split", "train")
    assert main(["inspect", str(converted), "--record", "none"]) == 2
    records = {name: info.records for name, info in open_shards(converted).splits.items()}
    found = {phase.name: (phase.done, phase.total) for phase in phases}
    assert found["measure"] == (records["train"], records["train"])
    assert found["search"] == (sum(records.values()), sum(records.values()))


def test_statistics_of_a_sample_say_so(converted, capsys):
    text = look(capsys, converted, "--stats", "--sample", "5")
    assert len(re.findall(r"  of 5 of \d+ records$", text, re.MULTILINE)) == 6
    again = look_as_program(capsys, converted, "--stats", "--sample", "5")["statistics"]
    expected = open_shards(converted).statistics("train", 5)
    assert again["train"] == {
        "records": 5, "mean": [*expected.mean], "std": [*expected.std]
    }  # fmt: skip


def test_a_data_set_in_a_store_is_looked_at_like_one_on_a_disk(server, tagged, capsys):
    place = upload_tree(tagged, server.path(uuid.uuid4().hex))
    for arguments in ([], ["--record", "-2"], ["--record", "7.png"]):
        here, there = (look_as_program(capsys, out, *arguments) for out in (tagged, place))
        assert there.pop("folder") == str(place)
        assert here.pop("folder") == str(tagged)
        assert there == here
    assert look(capsys, place, "--stats").count(" of ") == 6
    server.set_faults()
    look(capsys, place)
    assert server.set_faults()["GET"] < 12  # manifest, a record, and both shards to count


def test_a_store_is_not_read_as_a_whole_to_count(s3_server, tagged, capsys, monkeypatch):
    monkeypatch.setattr(inspection, "_MAX_STORE_BYTES", 3_000)
    monkeypatch.setattr(inspection, "_MAX_SHARDS", 1)
    place = upload_tree(tagged, s3_server.path(uuid.uuid4().hex))
    found = look_as_program(capsys, place)
    assert found["counted"]["all"] is False
    assert 0 < found["counted"]["records"] < 8
