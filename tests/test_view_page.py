"""`shardmill view` in a real browser: walk, jump, search, filter; nothing leaves, nothing runs."""

import contextlib
import shutil
import threading

import pytest
from annotating import write_coco
from browser import open_browser
from conftest import convert_folder, encode_image, make_image, write_image
from forging import forge, make_payload

from converter import ConvertOptions
from converter.format.manifest import read_manifest
from pipelines.view.albums import open_data_set
from pipelines.view.server import _listen, _make_server
from pipelines.view.web import make_app
from reader import open_shards

pytestmark = pytest.mark.usefixtures("chromium")

TOKEN = "token-in-an-address"
PLANTS = (
    "<svg onload=\"document.title = 'taken'\">",
    '"><img src=x onerror="document.title = \'taken\'">',
    "javascript:document.title='taken'",
    "قطة 🐈 {{ 7 * 7 }}",
)


@contextlib.contextmanager
def serve(out):
    """The address of a running server, without its token."""
    running = _make_server(make_app(open_data_set(out), TOKEN), _listen(0))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.port}"
    finally:
        running.shutdown()
        thread.join()


@contextlib.contextmanager
def visit(out, **window):
    """A page on the first thumbnails; checks at the end what the browser says."""
    with serve(out) as base, open_browser(**window) as browser:
        page = browser.open(f"{base}/?token={TOKEN}")
        page.wait_for_url("**/s/*/")
        yield page
        assert browser.complaints == []
        assert all(url.startswith(f"{base}/") for url in browser.requests)
        assert not any(TOKEN in url for url in browser.requests[1:])


def press(page, key: str) -> None:
    # The script that listens for keys runs when all of the page is there, and a page shows
    # before that: a key that comes earlier does nothing.
    page.wait_for_load_state()
    page.keyboard.press(key)


def list_shown(page) -> list[int]:
    hrefs = [link.get_attribute("href") for link in page.query_selector_all(".sample > a")]
    return [int(href.rpartition("/")[2].partition("?")[0]) for href in hrefs]


def count_broken(page) -> int:
    """The pictures that the browser could not show."""
    return page.evaluate(
        "Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode().then(() => 0,"
        " () => 1)))).then(all => all.reduce((a, b) => a + b, 0))"
    )


def is_wider_than_window(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Classes and files with names that would be scripts."""
    root = tmp_path_factory.mktemp("odd")
    for label, name in enumerate(PLANTS):
        for seed in range(5):
            write_image(root / "in" / name / f"{seed} {name}.png", 5 * label + seed)
    convert_folder(root / "in", root / "out", ConvertOptions(image_size=(40, 60)))
    return root / "out"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    options = ConvertOptions(encoding="png", resize="none")
    convert_folder(write_coco(root / "coco"), root / "out", options)
    return root / "out"


def test_a_person_walks_jumps_searches_and_filters(converted):
    source = open_shards(converted).source("train")
    names, labels = list(source.file_paths), source.labels.tolist()
    with visit(converted) as page:
        assert TOKEN not in page.url  # it has left the address bar
        assert list_shown(page) == list(range(min(60, len(names))))
        assert count_broken(page) == 0
        page.click(".sample:nth-child(3) > a")
        page.wait_for_url("**/s/train/2")
        assert names[2] in page.inner_text(".facts")
        press(page, "ArrowRight")
        page.wait_for_url("**/s/train/3")
        press(page, "ArrowLeft")
        page.wait_for_url("**/s/train/2")
        press(page, "g")
        page.keyboard.type("17\n")
        page.wait_for_url("**/s/train/17")
        press(page, "Escape")
        page.wait_for_url("**/s/train/?page=1")
        page.select_option("#class", "1")
        page.wait_for_url("**class=1**")
        page.wait_for_selector("#progress", state="detached")
        assert list_shown(page) == [n for n, label in enumerate(labels) if label == 1]
        page.click(".sample:nth-child(2) > a")
        second = [n for n, label in enumerate(labels) if label == 1][1]
        page.wait_for_url(f"**/s/train/{second}?class=1")
        press(page, "ArrowRight")
        third = [n for n, label in enumerate(labels) if label == 1][2]
        page.wait_for_url(f"**/s/train/{third}?class=1")
        page.click("text=all thumbnails")
        page.wait_for_url("**/s/train/?class=1&page=1")
        press(page, "/")
        page.keyboard.type("bild 1\n")
        page.wait_for_url("**q=bild**")
        expected = [n for n, name in enumerate(names) if labels[n] == 1 and "bild 1" in name]
        assert list_shown(page) == expected
        page.click("text=show all")
        page.wait_for_url("**/s/train/")
        page.fill("#to", names[5])
        page.click("text=Go")
        page.wait_for_url("**/s/train/5")
        page.click("nav.splits >> text=validation")
        page.wait_for_url("**/s/validation/")


@pytest.mark.parametrize(("width", "dark"), [(380, False), (1400, True)])
def test_every_page_fits_its_window_and_shows_its_pictures(width, dark, odd):
    with visit(odd, width=width, dark=dark) as page:
        base = page.url
        for path in ("", "0", "classes", "?class=1", "?q=script", "7?class=1"):
            page.goto(base + path)
            assert not is_wider_than_window(page), path
            assert count_broken(page) == 0
            assert all(image.get_attribute("alt") for image in page.query_selector_all("img"))


def test_planted_scripts_do_not_run(odd):
    with visit(odd) as page:
        base = page.url
        for number in range(0, 20, 3):
            page.goto(f"{base}{number}")
            assert "taken" not in page.title()
        page.goto(f"{base}classes")
        text = page.inner_text("table")
        assert all(name in text for name in PLANTS)
        for name in PLANTS[:2]:
            page.goto(f"{base}classes")
            page.fill("#q", name)
            page.press("#q", "Enter")
            page.wait_for_url("**/classes?q=*")
            assert page.title().startswith("classes")
            assert name in page.inner_text("h2")


def test_boxes_are_drawn_and_can_be_hidden(boxes):
    source = open_shards(boxes).source("train")
    number = next(n for n in range(len(source)) if len(source[n].values["image/object/bbox"]) == 3)
    record = source[number]
    with visit(boxes) as page:
        page.goto(f"{page.url}{number}")
        picture = page.locator(".picture img").bounding_box()
        drawn = page.locator(".boxes rect:not(.rim)").all()
        for rect, (top, left, bottom, right) in zip(
            drawn, record.values["image/object/bbox"], strict=True
        ):
            found = rect.bounding_box()
            # An outline is wider than its box, by its stroke.
            assert found["x"] == pytest.approx(picture["x"] + left * picture["width"], abs=4)
            assert found["y"] == pytest.approx(picture["y"] + top * picture["height"], abs=4)
            assert found["width"] == pytest.approx((right - left) * picture["width"], abs=6)
            assert found["height"] == pytest.approx((bottom - top) * picture["height"], abs=6)
        assert page.locator(".boxes text").first.is_visible()
        press(page, "n")
        assert not page.locator(".boxes text").first.is_visible()
        assert page.locator(".boxes").is_visible()
        page.click("label[for=show-boxes]")
        assert not page.locator(".boxes").is_visible()


def test_a_mask_lies_over_its_image_and_can_be_hidden(tmp_path):
    from PIL import Image

    for seed in range(3):
        write_image(tmp_path / "images" / f"{seed}.png", seed)
        mask = Image.new("L", (32, 24), seed)
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / f"{seed}.png").write_bytes(encode_image(mask, "PNG"))
    options = ConvertOptions(
        resize="none", encoding="png", label_from="none", mask_dir="../masks"
    )  # fmt: skip
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    source = open_shards(tmp_path / "out").source("train")
    number = next(n for n in range(3) if source[n].source_id == "2.png")
    with visit(tmp_path / "out") as page:
        page.goto(f"{page.url}{number}")
        assert page.locator(".mask").is_visible()
        assert count_broken(page) == 0
        assert page.inner_text(".legend").strip() == "2"
        image, mask = (
            page.locator(f".picture {part}").bounding_box() for part in ("img >> nth=0", ".mask")
        )
        assert image == mask
        press(page, "m")
        assert not page.locator(".mask").is_visible()


def test_what_is_damaged_is_shown_and_the_rest_goes_on(converted, tmp_path):
    out = tmp_path / "hurt"
    shutil.copytree(converted, out)
    first, second, _ = read_manifest(out).list_shards("train")
    (out / second.name).unlink()
    data = bytearray((out / first.name).read_bytes())
    data[300] ^= 1
    (out / first.name).write_bytes(data)
    with visit(out) as page:
        assert page.locator(".damaged").count() == second.records
        assert count_broken(page) == 0
        page.click(".faults summary")
        assert f"{second.name} is missing" in page.inner_text(".faults")
        page.click(".sample:first-child > a")
        assert first.name in page.inner_text(".note.bad >> nth=1")
        press(page, "ArrowRight")
        page.wait_for_url("**/s/train/1")
        assert count_broken(page) == 0


def test_it_works_without_scripts(converted):
    with serve(converted) as base, open_browser() as browser:
        context = browser._context.browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{base}/?token={TOKEN}")
        page.wait_for_url("**/s/train/")
        page.select_option("#class", "2")
        page.click("[data-auto]")
        page.wait_for_url("**class=2**")
        page.click(".sample:first-child > a")
        page.click("[rel=next]")
        assert "class=2" in page.url


def test_many_classes_are_chosen_by_a_part_of_a_name(tmp_path):
    import json

    from forging import sign

    image = encode_image(make_image(1), "PNG")
    out = forge(tmp_path / "out", {"a": [make_payload(image, n) for n in range(4)]})
    content = json.loads((out / "manifest.json").read_bytes())
    del content["digest"]
    content["classes"] = [f"class {n}" for n in range(20_000)]
    content["splits"]["train"]["labels"] += [0] * 19_998
    sign(out / "manifest.json", content)
    with visit(out) as page:
        page.fill("#class", "class 1")
        page.press("#class", "Enter")
        page.wait_for_url("**class=1")
        assert page.inner_text(".summary .chip") == "class 1"
        page.fill("#class", "1999")
        page.press("#class", "Enter")
        page.wait_for_url("**/classes?q=1999")
        assert page.locator("tbody tr").count() == 12
