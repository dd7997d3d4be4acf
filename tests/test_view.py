"""`shardmill view` without a browser: what its pages say, whom it answers, and what it refuses."""

import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from annotating import CLASSES, SHOTS, write_coco
from conftest import (
    convert_folder,
    encode_image,
    make_environment,
    make_image,
    start_process,
    write_image,
)
from forging import forge, make_payload, sign
from PIL import Image
from servers import find_port, upload

from converter import ConvertOptions, DatasetError, ShardmillError, StoreError, UsageError
from converter.format.manifest import read_manifest
from converter.storage.files import name_index
from pipelines.view import albums, listings, markup, server
from pipelines.view.albums import open_data_set
from pipelines.view.listings import Filter
from pipelines.view.screens import PAGE_RECORDS, find_neighbours
from pipelines.view.summaries import Shape, read_summaries
from pipelines.view.web import make_app
from reader import open_shards

TOKEN = "the-token-of-this-test"
ODD = "<script>alert('x')</script> & \"قطة 🐈\""


class Visitor:
    """Flask's client with the cookie, as a browser has it after the first address."""

    def __init__(self, out, **settings) -> None:
        self.data = open_data_set(out)
        self.client = make_app(self.data, TOKEN).test_client()
        self.client.get(f"/?token={TOKEN}", headers={"Host": "127.0.0.1:8765"})

    def get(self, path, status=200, **headers):
        headers = {"Host": "127.0.0.1:8765", **headers}
        answer = self.client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        return answer

    def read(self, path) -> str:
        answer = self.get(path)
        assert answer.mimetype == "text/html"
        return answer.text

    def follow(self, path) -> str:
        """Where an address leads."""
        return self.get(path, status=302).headers["Location"]

    def see(self, path) -> Image.Image:
        image = Image.open(io.BytesIO(self.get(path).data))
        image.load()
        return image

    def list_shown(self, path) -> list[int]:
        """The numbers of the records of a page of thumbnails."""
        return [int(n) for n in re.findall(r'href="/s/\w+/(\d+)[?"]', self.read(path))]


@pytest.fixture(scope="module")
def visitor(converted):
    return Visitor(converted)


@pytest.fixture(scope="module")
def names(converted):
    return list(open_shards(converted).source("train").file_paths)


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    root = tmp_path_factory.mktemp("view_boxes")
    images = write_coco(root / "coco")
    convert_folder(images, root / "out", ConvertOptions(encoding="png", resize="none"))
    return root / "out"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Captions, several labels, a mask: a table with odd texts in all of them."""
    root = tmp_path_factory.mktemp("view_table")
    lines = ["image,labels,caption,mask"]
    for seed in range(12):
        write_image(root / f"{seed} قطة.png", seed)
        mask = Image.fromarray(np.full((24, 32), seed % 3, np.uint8))
        (root / f"{seed}.mask.png").write_bytes(encode_image(mask, "PNG"))
        labels = " ".join(["red", "green", "blue"][: seed % 4])
        lines.append(f'{seed} قطة.png,{labels},"caption {seed} <b>&</b>",{seed}.mask.png')
    (root / "t.csv").write_text("\n".join(lines))
    options = ConvertOptions(
        image_size=(24, 32), encoding="png", labels_column="labels", labels_separator=" ",
        caption_column="caption", mask_column="mask", path_column="image",
    )  # fmt: skip
    convert_folder(root / "t.csv", root / "out", options)
    return root / "out"


def test_the_first_page_shows_the_first_records_in_stored_order(visitor, names):
    assert visitor.follow("/") == "/s/train/"
    page = visitor.read("/s/train/")
    assert visitor.list_shown("/s/train/") == list(range(min(PAGE_RECORDS, len(names))))
    for name in names[:PAGE_RECORDS]:
        assert f"{name.rpartition('/')[2]}</bdi>" in page
    assert "record 0: " in page  # its alternative text


def test_each_split_has_its_pages(visitor, converted):
    counts = open_shards(converted).splits
    page = visitor.read("/s/validation/")
    assert f"<b>{counts['validation'].records}</b> records" in page
    assert all(f"{name} <span>{split.records}</span>" in page for name, split in counts.items())


def test_pages_follow_each_other(monkeypatch, visitor, names):
    monkeypatch.setattr("pipelines.view.screens.PAGE_RECORDS", 20)
    assert visitor.list_shown("/s/train/?page=2") == list(range(20, 40))
    last = -(-len(names) // 20)
    assert visitor.list_shown("/s/train/?page=999999") == list(range(20 * last - 20, len(names)))
    page = visitor.read("/s/train/?page=2")
    assert 'rel="prev"' in page
    assert "/s/train/?page=3" in page
    for odd in ("0", "-1", "x", "9" * 3000, "²", "1e3"):
        assert visitor.list_shown(f"/s/train/?page={odd}")[0] == 0


def test_thumbnails_and_whole_images_are_those_of_the_records(visitor, converted):
    record = open_shards(converted).source("train")[3]
    with Image.open(io.BytesIO(record.encoded)) as image:
        stored = image.convert("RGB").tobytes()
    assert visitor.see("/s/train/3/image").convert("RGB").tobytes() == stored
    assert visitor.see("/s/train/3/thumbnail").size == (20, 16)


def test_a_record_shows_all_its_features(visitor, converted):
    record = open_shards(converted).source("train")[5]
    page = visitor.read("/s/train/5")
    assert record.sha256 in page
    assert record.source_id in page
    assert f"{len(record.encoded):,} bytes" in page
    assert f"label {record.label}" in page
    assert "image/<wbr>colorspace" in page
    assert f"byte {0:,}" not in page
    assert 'href="/s/train/4"' in page
    assert 'href="/s/train/6"' in page


def test_a_class_shows_its_records_alone(visitor, converted):
    labels = open_shards(converted).source("train").labels
    wait_for(visitor, "train")
    for label in range(3):
        found = visitor.list_shown(f"/s/train/?class={label}")
        assert found == np.flatnonzero(labels == label).tolist()
    page = visitor.read("/s/train/5?class=1")
    before, after = find_neighbours(np.flatnonzero(labels == 1), 5)
    assert f'href="/s/train/{before}?class=1"' in page
    assert f'href="/s/train/{after}?class=1"' in page


def test_a_search_finds_parts_of_names_in_any_case(visitor, names):
    wait_for(visitor, "train")
    for text in ("BILD 1", "ü.jpg", "u\u0308.JPG", "bee/", "cat with hat/deep"):
        folded = text.replace("u\u0308", "ü").lower()
        expected = [n for n, name in enumerate(names) if folded in name.lower()]
        assert visitor.list_shown(f"/s/train/?q={text}") == expected[:PAGE_RECORDS]
        assert expected
    assert visitor.list_shown("/s/train/?q=bild&class=2") == [
        n for n, name in enumerate(names) if name.startswith("cat")
    ]
    assert "No record is like that" in visitor.read("/s/train/?q=zebra")
    assert f"<q><bdi>{markup.Markup.escape(ODD)}" in visitor.read(f"/s/train/?q={quote(ODD)}")


def test_a_jump_leads_to_a_number_or_a_name(visitor, names):
    wait_for(visitor, "train")
    assert visitor.follow("/s/train/jump?to=7") == "/s/train/7"
    assert visitor.follow(f"/s/train/jump?to={quote(names[9])}") == "/s/train/9"
    assert visitor.follow("/s/train/jump?to=bild") == "/s/train/?q=bild"
    assert visitor.follow("/s/train/jump?to=") == "/s/train/"
    assert visitor.follow("/s/train/jump?to=1,000,000").startswith("/s/train/?q=1%2C000")


def test_progress_is_told(visitor):
    wait_for(visitor, "train")
    told = json.loads(visitor.get("/s/train/progress?class=1").data)
    assert told["done"]
    assert told["looked"] == told["records"]
    assert told["found"] == len(visitor.list_shown("/s/train/?class=1"))


def test_a_page_shows_what_is_found_while_the_rest_is_looked_through(monkeypatch, converted):
    gate = threading.Event()
    read = listings.read_summaries

    def read_slowly(files, numbers, shape):
        if numbers[0]:
            gate.wait(30)
        return read(files, numbers, shape)

    monkeypatch.setattr(listings, "read_summaries", read_slowly)
    visitor = Visitor(converted)
    page = visitor.read("/s/train/?class=1")
    assert "so far" in page
    assert 'id="progress"' in page
    assert 'http-equiv="refresh"' in page  # without scripts, too
    some = visitor.list_shown("/s/train/?class=1")
    gate.set()
    wait_for(visitor, "train")
    assert len(visitor.list_shown("/s/train/?class=1")) > len(some)
    assert "so far" not in visitor.read("/s/train/?class=1")


def wait_for(visitor, split) -> None:
    visitor.data.albums[split].listing.start(30)


def quote(text: str) -> str:
    return urllib.request.quote(text, safe="")


# Kinds of data sets


def test_boxes_are_drawn_with_the_names_of_their_classes(detection):
    visitor = Visitor(detection)
    source = open_shards(detection).source("train")
    number = next(n for n in range(len(source)) if len(source[n].values["image/object/bbox"]) == 3)
    page = visitor.read(f"/s/train/{number}")
    assert page.count('class="rim"') == 3
    assert all(f"<title>{name}</title>" in page for name in CLASSES)
    assert 'id="show-boxes"' in page
    empty = next(n for n in range(len(source)) if not source[n].values["image/object/bbox"])
    assert 'class="rim"' not in visitor.read(f"/s/train/{empty}")


def test_a_class_of_a_detection_set_is_that_of_any_box(detection):
    visitor = Visitor(detection)
    wait_for(visitor, "train")
    source = open_shards(detection).source("train")
    for label in range(3):
        expected = [
            n for n in range(len(source)) if label in source[n].values["image/object/class/label"]
        ]
        assert visitor.list_shown(f"/s/train/?class={label}") == expected
        assert 0 < len(expected) < len(source)
    assert visitor.data.kind == "detection"
    assert sum(shot.split == "train" for shot in SHOTS) == len(source)


def test_captions_labels_and_masks_of_a_table(table):
    visitor = Visitor(table)
    wait_for(visitor, "train")
    source = open_shards(table).source("train")
    page = visitor.read("/s/train/")
    assert page.count("&lt;b&gt;&amp;&lt;/b&gt;") >= 12
    assert "<b>&</b>" not in page
    for label in range(3):
        expected = [
            n for n in range(len(source)) if label in source[n].values["image/class/labels"]
        ]
        assert visitor.list_shown(f"/s/train/?class={label}") == expected
    masked = next(n for n in range(len(source)) if source[n].source_id.startswith("2 "))
    page = visitor.read(f"/s/train/{masked}")
    assert "<blockquote>" in page
    assert 'id="show-mask"' in page
    mask = visitor.see(f"/s/train/{masked}/mask")
    assert (mask.mode, mask.size) == ("RGBA", (32, 24))
    found = visitor.list_shown(f"/s/train/?q={quote('2 قطة')}")
    assert found == [masked]
    assert visitor.data.kind == "captions, several classes an image, segmentation"


def test_a_set_without_labels_has_no_choice_of_classes(image_folder, tmp_path):
    options = ConvertOptions(image_size=(8, 8), label_from="none")
    convert_folder(image_folder, tmp_path / "out", options)
    visitor = Visitor(tmp_path / "out")
    page = visitor.read("/s/train/")
    assert "<select" not in page
    assert visitor.data.kind == "no labels"
    assert len(visitor.list_shown("/s/train/")) == PAGE_RECORDS
    wait_for(visitor, "train")
    assert len(visitor.list_shown("/s/train/?q=bild%203")) > 3
    assert visitor.read("/s/train/3").count("image/<wbr>") > 5


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "webp"])
def test_every_encoding_is_shown(encoding, image_folder, tmp_path):
    convert_folder(
        image_folder, tmp_path / "out", ConvertOptions(image_size=(9, 7), encoding=encoding)
    )
    visitor = Visitor(tmp_path / "out")
    assert visitor.see("/s/train/0/thumbnail").size == (7, 9)
    assert visitor.see("/s/train/0/image").size == (7, 9)
    assert encoding in visitor.read("/s/train/0")


def test_one_class_needs_no_choice(tmp_path):
    write_image(tmp_path / "in" / "only" / "1.png", 1)
    convert_folder(tmp_path / "in", tmp_path / "out", ConvertOptions(image_size=(8, 8)))
    assert "<select" not in Visitor(tmp_path / "out").read("/s/train/")


def make_set(out, classes, payloads) -> None:
    """A forged set: its records are class 0 and 1 in turn, whatever classes there are."""
    forge(out, {"train-00000-of-00001": payloads})
    path = out / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["digest"]
    content["classes"] = list(classes)
    split = content["splits"]["train"]
    split["labels"] += [0] * (len(classes) - 2)
    sign(path, content)


PNG = encode_image(make_image(1), "PNG")


def test_twenty_thousand_classes_are_typed_and_listed_in_pages(tmp_path):
    names = [f"class {n}" for n in range(20_000)]
    make_set(tmp_path / "out", names, [make_payload(PNG, n) for n in range(4)])
    visitor = Visitor(tmp_path / "out")
    page = visitor.read("/s/train/")
    assert len(page) < 30_000
    assert "all 20,000 classes" in page
    listed = visitor.read("/s/train/classes")
    assert listed.count("<tr>") == 201
    assert 'href="/s/train/classes?page=100"' in listed
    assert "class 19999" in visitor.read("/s/train/classes?page=100")
    assert visitor.follow("/s/train/choose?name=class%2019999") == "/s/train/?class=19999"
    assert visitor.follow("/s/train/choose?name=CLASS%200") == "/s/train/?class=0"
    assert visitor.follow("/s/train/choose?name=1999") == "/s/train/classes?q=1999"
    assert "12 classes" in visitor.read("/s/train/classes?q=1999")
    assert visitor.follow("/s/train/choose?name=") == "/s/train/"
    assert "No class is called that" in visitor.read("/s/train/classes?q=zebra")


@pytest.mark.parametrize(
    "name",
    [
        ODD,
        "قطة",
        "👨‍👩‍👧",
        "a\nb\x00\x7f",
        "\udcff\udcfe",
        "\u202egnp.exe",
        "{{ 7*7 }}",
        "x" * 5000,
    ],
)
def test_odd_names_are_text(name, tmp_path):
    source = name.encode("utf-8", "surrogateescape")
    payloads = [make_payload(PNG, n, source_id=source, class_text=source) for n in range(3)]
    make_set(tmp_path / "out", [name, "b"], payloads)
    visitor = Visitor(tmp_path / "out")
    wait_for(visitor, "train")
    for path in ("/s/train/", "/s/train/0", "/s/train/classes", "/s/train/?class=0"):
        page = visitor.read(path)
        assert "<script>alert" not in page
        assert "\x00" not in page
        assert "\u202e" not in page
    assert markup.clean("\u202egnp.exe\n") == "\\u202egnp.exe\n"
    assert markup.clean("猫が\u3000眠る") == "猫が\u3000眠る"
    assert markup.clean("\udcff\udcfe") == r"\xff\xfe"
    assert markup.clean("a\x00\ud800") == r"a\x00\ud800"
    assert markup.clean(7) == 7


def test_an_empty_split_says_so(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "out")
    data = open_data_set(tmp_path / "out")
    album = data.albums["train"]
    album.files = type(album.files)([])
    album.listing = listings.Listing(album.files, album.shape)
    visitor = Visitor.__new__(Visitor)
    visitor.client = make_app(data, TOKEN).test_client()
    visitor.client.get(f"/?token={TOKEN}", headers={"Host": "127.0.0.1:8765"})
    assert "This split has no records" in visitor.read("/s/train/")
    assert "No record is like that" in visitor.read("/s/train/?class=1")
    visitor.get("/s/train/0", status=404)


# Damage


@pytest.fixture
def hurt(converted, tmp_path):
    """A data set with a bad payload, a bad header, a shard that is missing and a damaged index."""
    out = tmp_path / "hurt"
    shutil.copytree(converted, out)
    first, second, third = (shard.name for shard in read_manifest(out).list_shards("train"))
    lines = (out / name_index(first)).read_text().split("\n")
    offsets = [int(line.split()[0]) for line in lines if line]
    data = bytearray((out / first).read_bytes())
    data[offsets[1] + 300] ^= 1
    data[offsets[2] + 1] ^= 1
    (out / first).write_bytes(data)
    (out / second).unlink()
    (out / name_index(third)).write_text("junk\n")
    return out


def test_what_is_damaged_is_shown_as_such_and_the_rest_goes_on(hurt):
    visitor = Visitor(hurt)
    page = visitor.read("/s/train/")
    shards = read_manifest(hurt).list_shards("train")
    sizes = [shard.records for shard in shards]
    assert page.count('class="damaged"') == 1 + sizes[1] + sizes[2]
    assert page.count('loading="lazy"') == sizes[0] - 1
    assert "2 files are missing or damaged" in page
    assert f"{shards[1].name} is missing" in page
    drawn = visitor.get("/s/train/1/thumbnail")
    assert drawn.mimetype == "image/svg+xml"
    assert "damaged" in drawn.text
    assert "byte " in drawn.text
    assert visitor.see("/s/train/0/thumbnail").size == (20, 16)


@pytest.mark.parametrize("number", ["1", "2", "first of 2", "first of 3"])
def test_a_damaged_record_says_what_and_where_with_a_way_on(number, hurt):
    visitor = Visitor(hurt)
    shards = read_manifest(hurt).list_shards("train")
    ends = np.cumsum([shard.records for shard in shards])
    row = {"first of 2": ends[0], "first of 3": ends[1]}.get(number, number)
    page = visitor.read(f"/s/train/{row}")
    which = 0 if number.isdigit() else int(number[-1]) - 1
    assert shards[which].name in page
    assert 'class="note bad"' in page
    assert f'href="/s/train/{int(row) + 1}"' in page
    assert "shardmill verify" in page
    for kind in ("thumbnail", "image", "mask"):
        assert visitor.get(f"/s/train/{row}/{kind}").mimetype == "image/svg+xml"


def test_a_listing_counts_what_it_cannot_read(hurt):
    visitor = Visitor(hurt)
    wait_for(visitor, "train")
    sizes = [shard.records for shard in read_manifest(hurt).list_shards("train")]
    lost = 1 + sizes[1] + sizes[2]
    assert f"{lost} records cannot be read" in visitor.read("/s/train/?class=0")
    assert visitor.data.albums["train"].listing.progress.done


def test_a_record_that_holds_no_image_is_damaged(tmp_path):
    payloads = [make_payload(PNG), b"hello", make_payload(PNG[:99], 2), make_payload(PNG, 3)]
    make_set(tmp_path / "out", ["a", "b"], payloads)
    visitor = Visitor(tmp_path / "out")
    assert visitor.read("/s/train/").count('class="damaged"') == 1
    assert "not a tf.train.Example" in visitor.read("/s/train/1")
    drawn = visitor.get("/s/train/2/image")
    assert drawn.mimetype == "image/svg+xml"
    assert "cannot be decoded" in drawn.text
    assert "cannot be decoded" not in visitor.get("/s/train/2/thumbnail").text
    assert visitor.get("/s/train/3/image").mimetype == "image/png"


def test_a_search_that_fails_says_so(converted, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(listings, "read_summaries", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    visitor = Visitor(converted)
    page = visitor.read("/s/train/?class=1")
    assert "ended early" in page
    assert 'id="progress"' not in page
    assert json.loads(visitor.get("/s/train/progress").data)["failed"]


def test_a_store_that_does_not_answer_is_a_fault_of_each_record(converted, monkeypatch):
    album = open_data_set(converted).albums["train"]

    def fail(_):
        raise StoreError("the store is silent")

    monkeypatch.setattr(album.files, "prefetch", fail)
    assert {summary.error for summary in album.summarize(range(3))} == {"the store is silent"}


def test_a_set_that_changes_while_it_is_viewed_says_so(converted, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(converted, out)
    visitor = Visitor(out)
    pages = "/s/train/", "/s/train/1", "/s/train/classes"
    assert not any("start it again" in visitor.read(page) for page in pages)
    manifest = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    (out / "manifest.json").write_bytes(manifest)
    assert all("start it again" in visitor.read(page) for page in pages)
    assert "start it again" not in Visitor(out).read("/s/train/")
    visitor = Visitor(out)
    shutil.rmtree(out)
    assert all("start it again" in visitor.read(page) for page in pages)


def test_a_set_without_records_is_one_line(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["digest"]
    content |= {"splits": {}, "shards": []}
    content["totals"] |= {"scanned": 0, "written": 0}
    sign(path, content)
    with pytest.raises(DatasetError, match="holds no records"):
        open_data_set(tmp_path / "out")


def test_what_is_no_finished_data_set_is_one_line(tmp_path, converted):
    with pytest.raises(DatasetError, match="no finished data set"):
        open_data_set(tmp_path / "none")
    unfinished = tmp_path / "unfinished"
    (unfinished / ".shardmill").mkdir(parents=True)
    (unfinished / ".shardmill" / "plan.json").write_text("{}")
    with pytest.raises(DatasetError, match="is an unfinished conversion"):
        open_data_set(unfinished)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "a.tfrecord").write_bytes(b"")
    (foreign / "a.tfindex").write_bytes(b"")
    with pytest.raises(DatasetError, match="something else wrote"):
        open_data_set(foreign)
    newer = tmp_path / "newer"
    shutil.copytree(converted, newer)
    text = (newer / "manifest.json").read_text()
    (newer / "manifest.json").write_text(text.replace('"1.0"', '"2.0"'))
    with pytest.raises(DatasetError, match="has format version"):
        open_data_set(newer)
    (newer / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="is damaged"):
        open_data_set(newer)
    with pytest.raises(DatasetError, match="cannot be read"):
        open_data_set(newer / "manifest.json")


# Summaries, read without images


def test_summaries_are_those_of_whole_records(converted, detection, table):
    for out in (converted, detection, table):
        shards = open_shards(out)
        album = open_data_set(out).albums["train"]
        source = shards.source("train")
        for n, summary in enumerate(album.summarize(range(len(source)))):
            record = source[n]
            assert summary.name == record.source_id
            assert summary.caption == record.values.get("image/caption", "")
            labels = [record.label] if shards.manifest.labelled else []
            labels += record.values.get("image/class/labels", [])
            labels += record.values.get("image/object/class/label", [])
            assert summary.labels == tuple(dict.fromkeys(labels))
            assert summary.error == ""


def test_summaries_do_not_depend_on_what_a_window_holds(table, monkeypatch):
    album = open_data_set(table).albums["train"]
    expected = album.summarize(range(12))
    for size in (16, 80, 200, 400):
        monkeypatch.setattr("pipelines.view.summaries._WIDE_BYTES", size)
        monkeypatch.setattr("pipelines.view.summaries._WINDOW_BYTES", size)
        assert album.summarize(range(12)) == expected
    assert album.summarize([7, 3]) == [expected[7], expected[3]]


def test_images_are_not_read_for_summaries(tmp_path, monkeypatch):
    large = encode_image(Image.effect_noise((400, 400), 80), "PNG")
    payloads = [make_payload(large, n, 400, 400) for n in range(8)]
    forge(tmp_path / "out", {"train-00000-of-00001": payloads}, size=(400, 400))
    read = []
    pread = albums.os.preadv

    def count(descriptor, buffers, *more):
        read.append(sum(len(buffer) for buffer in buffers))
        return pread(descriptor, buffers, *more)

    monkeypatch.setattr("os.preadv", count)
    album = open_data_set(tmp_path / "out").albums["train"]
    found = read_summaries(album.files, np.arange(8), Shape(True, False, ()))
    assert [summary.labels for summary in found] == [(0,), (1,)] * 4
    assert sum(read) < 8 * 2_100 + 10
    assert len(payloads[0]) > 100_000


def test_a_listing_of_a_text_ends_at_its_limit(monkeypatch, converted):
    monkeypatch.setattr(listings, "MAX_FOUND", 5)
    album = open_data_set(converted).albums["train"]
    album.listing.start(30)
    assert album.listing.find(Filter(text="bild")).tolist() == [0, 1, 2, 3, 4]
    assert not Filter()


def test_a_search_lets_pages_pass_but_not_for_ever(monkeypatch):
    traffic = listings.Traffic()
    traffic.let_pass()
    passed = []
    monkeypatch.setattr(listings, "MAX_WAIT_S", 30)
    with traffic, traffic:
        thread = threading.Thread(target=lambda: passed.append(traffic.let_pass()))
        thread.start()
        thread.join(0.05)
        assert passed == []
    thread.join(30)
    assert passed == [None]
    monkeypatch.setattr(listings, "MAX_WAIT_S", 0.01)
    with traffic:
        traffic.let_pass()


def test_every_answer_counts_as_traffic(visitor, monkeypatch):
    traffic, seen = visitor.data.traffic, []
    album = visitor.data.albums["train"]
    draw = album.draw
    monkeypatch.setattr(album, "draw", lambda n: seen.append(traffic._pages) or draw(n))
    visitor.get("/s/train/0/image")
    assert (seen, traffic._pages) == ([1], 0)


# Who is answered


def ask(client, path="/s/train/", method="GET", **headers):
    return client.open(path, method=method, headers={"Host": "127.0.0.1:8765", **headers})


@pytest.fixture
def client(converted):
    return make_app(open_data_set(converted), TOKEN).test_client()


@pytest.fixture
def bare_client(converted):
    """A client that sends the cookies it is given, and keeps none."""
    return make_app(open_data_set(converted), TOKEN).test_client(use_cookies=False)


PATHS = ("/", "/s/train/", "/s/train/0", "/s/train/0/image", "/static/view.js", "/nothing")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(path, bare_client):
    client = bare_client
    answer = ask(client, path)
    assert answer.status_code == 403
    assert "token" in answer.text
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "ü", "%00"):
        assert ask(client, f"{path}?token={wrong}").status_code == 403
        cookie = f"shardmill-8765={quote(wrong)}"
        assert ask(client, path, Cookie=cookie).status_code == 403
    assert ask(client, path, Cookie=f"shardmill-8766={TOKEN}").status_code == 403


def test_the_token_becomes_a_cookie_that_scripts_and_other_pages_cannot_use(client):
    answer = ask(client, f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert TOKEN not in answer.text
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"shardmill-8765={TOKEN}; HttpOnly; Path=/; SameSite=Strict")
    assert ask(client).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8765", 200), ("localhost:8765", 200), ("LOCALHOST:8765", 200), ("[::1]:8765", 200),
     ("localhost:1", 200), ("evil.example:8765", 403), ("127.0.0.1.evil.example", 403),
     ("evil.example", 403), ("0.0.0.0:8765", 403), ("", 403), ("127.0.0.1:8765@evil", 403),
     ("localhost.:8765", 403), ("127.1:8765", 403)],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(host, status, bare_client):
    port = host.rpartition(":")[2]
    answer = ask(bare_client, Host=host, Cookie=f"shardmill-{port}={TOKEN}")
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_nothing_can_be_written(method, visitor):
    assert ask(visitor.client, method=method).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/s/train/-1", "/s/train/99999", "/s/train/1e1", "/s/train/²", "/s/train/" + "9" * 4000,
     "/s/none/", "/s/../train/", "/s/%2e%2e/0", "/s/train/0/../../x", "/s/train/0/encoded",
     "/static/../web.py", "/static/%2e%2e/web.py", "/static/..%2fweb.py", "/static/web.py",
     "/static//etc/passwd", "/manifest.json", "/s/train/manifest.json", "/s/train/0/image/x",
     "/s/train/%00"],
)  # fmt: skip
def test_there_are_numbers_and_no_paths(path, visitor):
    answer = ask(visitor.client, path)
    assert answer.status_code in (302, 404, 414)
    assert "There is no such page" in answer.text or answer.status_code != 404
    assert "Flask" not in answer.text


def test_a_long_address_is_refused(visitor):
    assert ask(visitor.client, "/s/train/?q=" + "x" * 5000).status_code == 414


@pytest.mark.parametrize("path", [*PATHS, f"/?token={TOKEN}", "/s/train/1/thumbnail"])
def test_every_answer_forbids_scripts_frames_and_storage(path, visitor):
    headers = ask(visitor.client, path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_pages_have_no_inline_scripts_or_styles(visitor):
    for path in ("/s/train/", "/s/train/0", "/s/train/classes", "/s/train/?class=1"):
        page = visitor.read(path)
        assert re.findall(r"<script[^>]*>", page) == ['<script src="/static/view.js" defer>']
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


# A store


def test_a_set_in_a_store_is_shown_and_searched_after_consent(
    s3_server, converted, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address = upload(converted, s3_server.path("view"))
    visitor = Visitor(address)
    assert visitor.list_shown("/s/train/")[:3] == [0, 1, 2]
    assert visitor.see("/s/train/1/thumbnail").size == (20, 16)
    asked = visitor.read("/s/train/?q=bild")
    assert "This has to fetch the split" in asked
    assert not visitor.data.albums["train"].listing.started
    assert visitor.follow("/s/train/jump?to=bild") == "/s/train/?q=bild"
    visitor.read("/s/train/?q=bild&fetch=yes")
    wait_for(visitor, "train")
    names = list(open_shards(converted).source("train").file_paths)
    expected = [n for n, name in enumerate(names) if "bild 1" in name]
    assert visitor.list_shown("/s/train/?q=bild%201") == expected


def test_a_missing_object_is_shown_as_such(s3_server, converted, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address = upload(converted, s3_server.path("view-hurt"))
    first = read_manifest(converted).list_shards("train")[0]
    (address / first.name).unlink()
    visitor = Visitor(address)
    page = visitor.read("/s/train/")
    assert f"{first.name} is missing" in page
    assert page.count('class="damaged"') == first.records


# The process


def start(out, *arguments, **variables):
    return start_process(
        [sys.executable, "-m", "pipelines", "view", out, "--no-browser", *arguments],
        env=make_environment(PYTHONUNBUFFERED="1", **variables),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_started_process_answers_its_address_and_ends_with_ctrl_c(converted):
    port = find_port()
    with start(converted, "--port", str(port), SSH_CONNECTION="1 2 3 4") as process:
        address = process.stdout.readline().split()[-1]
        assert address.startswith(f"http://127.0.0.1:{port}/?token=")
        tunnel = process.stdout.readline()
        assert f"ssh -N -L {port}:127.0.0.1:{port}" in tunnel
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(address, timeout=30).close()
        with opener.open(f"http://127.0.0.1:{port}/s/train/", timeout=30) as page:
            assert b"records, in the order" in page.read()
        with socket.create_connection(("127.0.0.1", port)) as line:  # its address is not told
            line.sendall(b"GET /?token=secret HTTP/9.9 x\r\n\r\n")
            assert b"400" in line.recv(4096)
        idle = socket.create_connection(("127.0.0.1", port))  # an open line does not hold it
        end = time.monotonic()
        process.send_signal(2)
        assert process.wait(10) == 0
        assert time.monotonic() - end < 2
        idle.close()
        assert process.stderr.read() == ""


def test_a_port_in_use_is_one_line(converted):
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        line.listen()
        port = line.getsockname()[1]
        with pytest.raises(ShardmillError, match=f"port {port} is in use"):
            server.serve(converted, port=port, browser=False)


def test_the_usual_port_in_use_leads_to_another(monkeypatch):
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        line.listen()
        monkeypatch.setattr(server, "DEFAULT_PORT", line.getsockname()[1])
        with server._listen(None) as other:
            assert other.getsockname()[0] == "127.0.0.1"
            assert other.getsockname()[1] != server.DEFAULT_PORT


def test_a_port_that_is_none_is_wrong_usage(converted):
    with pytest.raises(UsageError, match="out of range"):
        server.serve(converted, port=65_536)


def test_without_flask_one_line_says_what_to_install(converted, monkeypatch):
    for name in ("guards", "web"):
        monkeypatch.delitem(sys.modules, f"pipelines.view.{name}")
        monkeypatch.delattr(f"pipelines.view.{name}")
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(ShardmillError, match="pip install flask"):
        server.serve(converted, browser=False)


@pytest.mark.parametrize(
    ("variables", "words"),
    [({}, "there is no screen"), ({"DISPLAY": ":0"}, ""), ({"SSH_CONNECTION": "1"}, "ssh -N -L")],
)
def test_where_no_browser_can_open_a_line_says_what_to_do(variables, words, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    lines = server._advise(8765, browser=True)
    assert len(lines) == (2 if words else 1)
    assert words in lines[0]
    assert len(server._advise(8765, browser=False)) == (2 if "ssh" in words else 1)
    assert server._has_screen() == ("DISPLAY" in variables)


def test_a_slow_picture_does_not_hold_the_pages(converted, monkeypatch):
    data = open_data_set(converted)
    gate = threading.Event()
    album = data.albums["train"]
    album.draw_thumbnail = lambda number: gate.wait(30) and album.draw(number)
    running = server._make_server(make_app(data, TOKEN), server._listen(0))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{running.port}"
    cookie = {"Cookie": f"shardmill-{running.port}={TOKEN}"}
    slow = urllib.request.Request(f"{base}/s/train/0/thumbnail", headers=cookie)
    threads = [
        threading.Thread(target=lambda: urllib.request.urlopen(slow), daemon=True) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    page = urllib.request.Request(f"{base}/s/train/", headers=cookie)
    with urllib.request.urlopen(page, timeout=10) as answer:
        assert answer.status == 200
    gate.set()
    running.shutdown()
