"""Pascal VOC: its files read by hand say the same as the records, and hostile XML is refused."""

import json
import re
import time

import numpy as np
import pytest
from annotating import SHOTS, describe_voc, draw, expect_boxes, find_shot, write_files, write_voc
from conftest import convert_folder, limit_memory

from converter.errors import UsageError
from converter.format import schema
from converter.inventory import Note
from converter.options import ConvertOptions
from converter.sources.detections import MAX_TEXT_BYTES
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from reader import open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=2)
NAME = SHOTS[3].name  # of an image with three objects


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


def read_by_hand(text: str) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Name, box from 0 with its end behind it, difficult and truncated of each object."""
    found = []
    for item in re.findall("<object>.*?</object>", re.sub("<part>.*?</part>", "", text)):
        cells = dict(re.findall(r"<(\w+)>([^<]*)</\1>", item))
        left, top, right, bottom = (int(cells[tag]) for tag in ("xmin", "ymin", "xmax", "ymax"))
        box = (top - 1, left - 1, bottom, right)
        found.append((cells["name"], box, int(cells["difficult"]), int(cells["truncated"])))
    return found


def test_records_hold_what_the_files_say(root, tmp_path):
    convert_folder(root, tmp_path / "out", OPTIONS)
    shards, count = open_shards(tmp_path / "out"), 0
    for split, name in (("train", "train"), ("validation", "val")):
        listed = (root / "ImageSets" / "Main" / f"{name}.txt").read_text().splitlines()
        source = shards.source(split)
        assert sorted(record.source_id for record in source) == sorted(
            f"JPEGImages/{name}.jpg" for name in listed
        )
        for record in source:
            shot = find_shot(record.source_id)
            path = root / "Annotations" / f"{shot.name}.xml"
            things = read_by_hand(path.read_text()) if path.exists() else []
            count += len(things)
            boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
            expected = np.reshape([box for _, box, *_ in things], (-1, 4))
            scale = (shot.height, shot.width) * 2
            np.testing.assert_allclose(boxes, expected / scale, rtol=1e-6)
            np.testing.assert_allclose(boxes, np.reshape(expect_boxes(shot), (-1, 4)), rtol=1e-6)
            labels = [shards.class_names[label] for label in record.values[schema.BOX_LABELS]]
            assert labels == [name for name, *_ in things]
            assert record.values["image/object/difficult"] == [each[2] for each in things]
            assert record.values["image/object/truncated"] == [each[3] for each in things]
    assert count == sum(len(shot.things) for shot in SHOTS)


@pytest.mark.parametrize("prefix", ["", "VOC2012/", "VOCdevkit/VOC2012/"])
def test_it_is_found_in_its_kit(root, tmp_path, prefix):
    write_voc(tmp_path / prefix)
    assert resolve_options(tmp_path, ConvertOptions()).source == "voc"
    inventory, plain = scan_images(tmp_path), scan_images(root)
    assert [
        entry._replace(path=entry.path.removeprefix(prefix)) for entry in inventory.entries
    ] == [*plain.entries]
    assert inventory.skipped == ()


def test_several_years_are_one_data_set(tmp_path):
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", SHOTS[:8])
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", SHOTS[8:])
    inventory = scan_images(tmp_path)
    assert len(inventory.entries) == len(SHOTS)
    assert "VOC2007/Annotations, VOCdevkit/VOC2012/Annotations" in inventory.recognized


def list_splits(root) -> dict[str, str]:
    return {entry.path[11:-4]: entry.split for entry in scan_images(root).entries}


def test_what_lists_decide(tmp_path):
    write_voc(tmp_path, SHOTS[:8])
    names = [shot.name for shot in SHOTS[:8]]
    lists = {"train": names[:1], "val": names[1:2], "trainval": names[:4], "test": names[4:6]}
    for name, members in lists.items():
        path = tmp_path / "ImageSets" / "Main" / f"{name}.txt"
        path.write_text("".join(f"{member}\r\n" for member in members))
    assert list_splits(tmp_path) == {
        **dict.fromkeys((names[0], *names[2:4]), "train"),
        names[1]: "validation",
        **dict.fromkeys(names[4:6], "test"),
    }
    codes = {skip.path: skip.code for skip in scan_images(tmp_path).skipped}
    assert codes == {
        **{f"JPEGImages/{name}.jpg": "skipped_unlisted" for name in names[6:]},
        **{f"Annotations/{s.name}.xml": "skipped_extension" for s in SHOTS[6:8] if s.things},
    }
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text(f"{names[0]}\ngone\n")
    inventory = scan_images(tmp_path)
    assert {(reject.path, reject.code) for reject in inventory.rejected} == {
        (f"JPEGImages/{names[0]}.jpg", "bad_row"),
        ("JPEGImages/gone.jpg", "missing"),
    }
    assert any("is in the lists train and test" in r.detail for r in inventory.rejected)


def test_without_lists_every_image_with_a_file_is_taken(tmp_path):
    write_voc(tmp_path)
    for name in ("train", "val", "trainval"):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").unlink()
    (tmp_path / "Annotations" / "gone.xml").write_text(describe_voc(SHOTS[0]))
    inventory = scan_images(tmp_path)
    with_things = [f"JPEGImages/{shot.name}.jpg" for shot in SHOTS if shot.things]
    assert [entry.path for entry in inventory.entries] == with_things
    assert {skip.code for skip in inventory.skipped} == {"skipped_unlisted"}
    assert [(r.path, r.code) for r in inventory.rejected] == [("JPEGImages/gone.jpg", "missing")]
    assert {entry.split for entry in inventory.entries} == {""}


def test_images_may_have_any_suffix_but_one_each(tmp_path):
    write_voc(tmp_path, SHOTS[:4])
    for place, suffix in ((1, "png"), (2, "JPEG")):
        path = tmp_path / "JPEGImages" / f"{SHOTS[place].name}.jpg"
        path.rename(path.with_suffix(f".{suffix}"))
    (tmp_path / "JPEGImages" / f"{NAME}.bmp").write_bytes(b"")
    inventory = scan_images(tmp_path)
    assert [entry.path[-4:] for entry in inventory.entries] == [".jpg", ".png", "JPEG"]
    [reject] = inventory.rejected
    assert reject.code == "bad_row"
    assert f"may be any of JPEGImages/{NAME}.bmp, JPEGImages/{NAME}.jpg" in reject.detail


def change(tmp_path, old: str, new: str, *, times: int = 1):
    """A scan in which the file of one image is changed, so many times."""
    write_voc(tmp_path, SHOTS[:4])
    path = tmp_path / "Annotations" / f"{NAME}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, times))
    return scan_images(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("<xmin>3</xmin>", "<xmin>12</xmin>", "box_invalid"),
        ("<xmin>3</xmin>", "<xmin>nan</xmin>", "box_invalid"),
        ("<xmin>3</xmin>", "<xmin>left</xmin>", "box_invalid"),
        ("<xmin>3</xmin>", "", "box_invalid"),
        ("<xmin>3</xmin>", "<xmin><b/></xmin>", "box_invalid"),
        ("bndbox", "box", "box_invalid"),
        ("<name>cat</name>", "<name> </name>", "box_class"),
        ("<name>cat</name>", "", "box_class"),
    ],
)
def test_a_box_that_makes_no_sense_is_left_out_and_counted(tmp_path, old, new, code):
    inventory = change(tmp_path, old, new, times=2 if old == "bndbox" else 1)
    assert inventory.notes == (Note(code, (f"JPEGImages/{NAME}.jpg",), 1),)
    assert inventory.rejected == ()
    values = {entry.path: json.loads(entry.values) for entry in inventory.entries}
    assert [len(values[f"JPEGImages/{NAME}.jpg"][n]) for n in range(4)] == [2, 2, 2, 2]


def test_fractions_of_pixels_are_boxes_too(tmp_path):
    inventory = change(tmp_path, "<xmin>3</xmin>", "<xmin> 3.25 </xmin>")
    values = {entry.path: json.loads(entry.values) for entry in inventory.entries}
    assert values[f"JPEGImages/{NAME}.jpg"][0][0][1] == 2.25


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]><annotation><object><name>&j;</name></object></annotation>"
)
HOSTILE = {
    "bomb": (BOMB, "DOCTYPE"),
    "quadratic": (f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>{"&a;" * 10_000}', "DOCTYPE"),
    "a file": ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "DOCTYPE"),
    "wide text": (BOMB.encode("utf-16"), "DOCTYPE"),
    "an outer type": ('<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><annotation/>', "DOCTYPE"),
    "an entity": ("<annotation>&b;</annotation>", "undefined entity"),
    "deep": ("<annotation>" + "<a>" * 300_000, "more than 100 deep"),
    "cut": ("<annotation><object>", "it is not XML"),
    "empty": ("", "it is not XML"),
    "binary": (bytes(range(256)), "it is not XML"),
    "large": ("<annotation>" + " " * MAX_TEXT_BYTES + "</annotation>", "has more than 2,097,152"),
    "other": ("<html/>", "outermost element is 'html'"),
    "long": (f"<{'x' * 1_000_000}/>", "outermost element is 'xxx"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_their_image_alone(tmp_path, name):
    content, message = HOSTILE[name]
    write_voc(tmp_path, SHOTS[:4])
    write_files(tmp_path, {f"Annotations/{NAME}.xml": content})
    begun = time.monotonic()
    with limit_memory(40 << 20):
        inventory = scan_images(tmp_path)
    [reject] = inventory.rejected
    assert (reject.path, reject.code) == (f"JPEGImages/{NAME}.jpg", "bad_row")
    assert message in reject.detail
    assert "\n" not in reject.detail
    assert len(reject.detail) <= 500
    assert len(inventory.entries) == 3
    assert time.monotonic() - begun < 10


def test_a_file_takes_memory_in_proportion(tmp_path):
    write_voc(tmp_path, SHOTS[:4])
    text = "<annotation>" + "<object/>" * (MAX_TEXT_BYTES // 90) + "</annotation>"
    write_files(tmp_path, {f"Annotations/{NAME}.xml": text})
    with limit_memory(40 * len(text)):
        [note] = scan_images(tmp_path).notes
    assert (note.code, note.total) == ("box_invalid", text.count("<object/>"))


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    root = write_voc(tmp_path / "voc", SHOTS[:4])
    (tmp_path / "secret.xml").write_text(describe_voc(SHOTS[3]))
    path = root / "Annotations" / f"{NAME}.xml"
    path.unlink()
    path.symlink_to(tmp_path / "secret.xml")
    inventory = scan_images(root)
    assert [(skip.path, skip.code) for skip in inventory.skipped] == [
        (f"Annotations/{NAME}.xml", "skipped_link")
    ]
    assert json.loads(inventory.entries[3].values)[0] == []


def test_what_is_not_of_voc_is_refused(tmp_path):
    with pytest.raises(UsageError, match="VOC: looked for JPEGImages"):
        scan_images(tmp_path, ConvertOptions(source="voc"))
    write_files(tmp_path, {"JPEGImages/a.jpg": draw(SHOTS[0]), "Annotations/a.txt": "x"})
    with pytest.raises(UsageError, match="has no rows"):
        scan_images(tmp_path)
