"""The page in a real browser: it loads nothing, runs nothing of a data set, sorts and filters."""

import base64
import dataclasses
import hashlib
import re

import pytest
from browser import open_browser
from surveying import make_run, make_survey

from converter.format.schema import CAPTION, LABELS, Column
from converter.histograms import Histograms
from converter.inventory import Note
from pipelines.pages.charts import chart_sides
from pipelines.pages.contact_sheet import ALL, Sample
from pipelines.pages.page import STATIC_ROWS, list_rows, render_report
from pipelines.pages.record_facts import RecordFacts
from pipelines.pages.texts import show_path, show_text
from pipelines.pages.thumbnails import choose_color

# A picture of one pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
    "hgGAWjR9awAAAABJRU5ErkJggg=="
)

PLANTED = (
    "<script>document.title='run'</script>", "<img src=x onerror=\"document.title='run'\">",
    "</script><script>document.title='run'</script>",
    "</style><svg onload=\"document.title='run'\">",
    "{{ 7 * 7 }}", "javascript:alert(1)", '" autofocus onfocus=alert(1) x="', "<!--", "]]>",
    "قطط عربية", "😀 👨\u200d👩\u200d👧", "evil\u202egnp.exe", "line\nbreak",
    "byte \udcff", "x" * 5_000,
)  # fmt: skip
"""Names that would run, break out of their place, or break a page."""


def make_hostile_page() -> str:
    names = [*PLANTED, *(f"{name} {n}" for n in range(20) for name in PLANTED)]
    counts = [1000 - n for n in range(len(names))]
    survey = make_survey(
        {"train": counts, "validation": counts},
        names,
        manifest={"rejected": {"decode_error": 15, **dict.fromkeys(PLANTED[:3], 1)}},
        rejects={"decode_error": [(f"{name}/{name}", name) for name in PLANTED[:12]]},
        notes=[Note("duplicate_split", PLANTED[:5], 5), Note(PLANTED[0], PLANTED[1:2], 1)],
        runs=[make_run(command=PLANTED[2], started=PLANTED[0], generator=PLANTED[1])],
        records=RecordFacts(looked=1, total=1, captions=PLANTED, damage=PLANTED[:3]),
        unread=[PLANTED[3]],
    )
    survey = dataclasses.replace(
        survey, folder=f"/data/{PLANTED[0]}", options={"where": PLANTED[1]}
    )
    samples = [Sample(path=name, picture=PIXEL) for name in PLANTED]
    damaged = [Sample(path="a", damage=name) for name in PLANTED]
    groups = dict.fromkeys(range(4), samples) | {4: damaged, 7_000: samples}
    pictures = {f"{name}/{name}": PIXEL for name in PLANTED[:4]}
    return render_report(survey, groups, pictures)


@pytest.fixture
def show(tmp_path):
    """Writes a page; returns its address."""

    def write(page: str) -> str:
        (tmp_path / "report.html").write_bytes(page.encode())
        return (tmp_path / "report.html").as_uri()

    return write


def read_column(page, place: int) -> list[str]:
    return page.eval_on_selector_all(
        "#classes tbody tr", "(rows, at) => rows.map((row) => row.cells[at].textContent)", place
    )


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [380, 1400])
def test_nothing_planted_runs_and_no_request_leaves(show, width, dark):
    url = show(make_hostile_page())
    with open_browser(width=width, dark=dark) as browser:
        page = browser.open(url)
        page.get_by_text("Show 115 more").click()
        page.fill("input.filter", "<script>")
        page.wait_for_timeout(100)
        assert page.title() != "run"
        assert browser.complaints == []
        assert [request for request in browser.requests if not request.startswith("data:")] == [url]
        assert page.evaluate("document.querySelectorAll('script').length") == 2
        assert (
            page.evaluate("document.querySelectorAll('[onerror], [onload], [onfocus]').length") == 0
        )
        # Nothing is wider than the window.
        assert page.evaluate("document.documentElement.scrollWidth") == width
        names = read_column(page, 0)
        assert names
        assert all("<script>" in name for name in names)


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_schemes(show, dark):
    with open_browser(dark=dark) as browser:
        page = browser.open(show(render_report(make_survey(runs=[make_run()]), {})))
        ink, paper = page.evaluate(
            "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
        )
        lights = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper)]
        assert (lights[0] > lights[1]) is dark
        assert abs(lights[0] - lights[1]) > 450


@pytest.mark.usefixtures("chromium")
def test_a_click_sorts_by_name_and_by_number(show):
    counts = {"train": [30, 200, 1000], "test": [7, 5, 9]}
    page_text = render_report(make_survey(counts, ["b 10", "a", "b 9"]), {})
    with open_browser() as browser:
        page = browser.open(show(page_text))
        assert read_column(page, 0) == ["b 9", "a", "b 10"]
        for column, first, second in (
            ("Class", ["a", "b 9", "b 10"], ["b 10", "b 9", "a"]),
            ("train", ["b 9", "a", "b 10"], ["b 10", "a", "b 9"]),
            ("test", ["b 9", "b 10", "a"], ["a", "b 10", "b 9"]),
        ):
            head = page.get_by_role("button", name=column, exact=True)
            head.click()
            assert read_column(page, 0) == first
            head.click()
            assert read_column(page, 0) == second
        assert page.get_attribute("#classes th[aria-sort]", "aria-sort") == "ascending"
        assert browser.complaints == []


@pytest.mark.usefixtures("chromium")
def test_twenty_thousand_classes_are_sorted_and_filtered(show):
    counts = [(n * 7919) % 20_011 + 1 for n in range(20_000)]
    names = [f"class number {n:05d} of many" for n in range(20_000)]
    text = render_report(make_survey({"train": counts, "test": counts}, names), {})
    assert len(text.encode()) < 2_000_000
    with open_browser() as browser:
        page = browser.open(show(text))
        assert page.text_content("#classes output") == "20,000 of 20,000"
        assert len(read_column(page, 0)) == STATIC_ROWS
        page.get_by_role("button", name="Class", exact=True).click()
        assert read_column(page, 0)[:2] == names[:2]
        assert read_column(page, 4)[0] == f"{2 * counts[0]:,}"
        page.get_by_text("Show 200 more").click()
        assert read_column(page, 0) == names[:400]
        page.fill("input.filter", "19999")
        assert read_column(page, 0) == [names[19_999]]
        width = page.get_attribute("#classes tbody rect", "width")
        assert float(width) == pytest.approx(100 * counts[19_999] / (2 * max(counts)), abs=0.02)
        page.fill("input.filter", "no such class")
        assert read_column(page, 0) == []
        page.fill("input.filter", "")
        assert page.text_content("#classes output") == "20,000 of 20,000"
        assert browser.complaints == []


@pytest.mark.usefixtures("chromium")
def test_the_command_is_copied(show):
    with open_browser() as browser:
        page = browser.open(show(render_report(make_survey(runs=[make_run()]), {})))
        page.evaluate(
            "document.addEventListener('copy', () => { window.copied = getSelection().toString() "
            "|| document.activeElement.value })"
        )
        page.click("button.copy")
        assert page.text_content("button.copy") == "Copied"
        assert page.evaluate("window.copied") == make_run().command
        assert browser.complaints == []


@pytest.mark.usefixtures("chromium")
def test_no_line_ends_within_an_option(show):
    counts = {"train": [300, 300], "validation": [300, 0]}
    command = f"shardmill convert {'x ' * 14}out --image-size 224"
    run = make_run(command=command)
    with open_browser(width=380) as browser:
        page = browser.open(show(render_report(make_survey(counts, ["a", "b"], runs=[run]), {})))
        heights = page.eval_on_selector_all(
            ".whole", "all => all.map((each) => [each.textContent, each.getClientRects().length])"
        )
        assert ["--stratify", 1] in heights
        assert ["--image-size", 1] in heights
        assert all(lines == 1 for _, lines in heights)
        assert page.text_content("pre.command") == command


@pytest.mark.parametrize(
    ("sides", "labels"),
    [
        ({"1": 1, "256": 5}, ["1", "\u2026", "256 to 511"]),
        ({"16": 1, "256": 5}, ["16 to 31", "32 to 63", "64 to 127", "128 to 255", "256 to 511"]),
        ({"4": 1, "8": 5}, ["4 to 7", "8 to 15"]),
        ({"4": 1}, ["4 to 7"]),
        ({}, []),
    ],
)
def test_a_long_gap_in_a_histogram_is_one_bar(sides, labels):
    chart = chart_sides(Histograms(images=6, sides=sides))
    assert [bar.label for bar in chart.bars] == labels
    assert chart.total == sum(sides.values())


def test_a_path_with_hyphens_is_escaped_and_no_option():
    note = Note("duplicate", ("a--b<i>.jpg", "--x<script>.jpg"), 2)
    text = render_report(make_survey(notes=[note]), {})
    assert "a--b&lt;i&gt;.jpg" in text
    assert '<span class="whole">--x</span>&lt;script&gt;.jpg' in text


def test_a_reason_names_no_exception():
    rejects = {
        "decode_error": [("a.png", "SyntaxError: broken PNG"), ("b.png", "my ValueError: x")]
    }
    text = render_report(
        make_survey(manifest={"rejected": {"decode_error": 2}}, rejects=rejects), {}
    )
    assert '<span class="faint">broken PNG</span>' in text
    assert '<span class="faint">my ValueError: x</span>' in text


def test_it_says_the_same_without_a_script():
    text = render_report(make_survey({"train": [5, 7]}, ["a", "b"], runs=[make_run()]), {})
    static = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for said in ("<bdi>b</bdi>", "shardmill convert photos flowers", "Shorter side", "decoding"):
        assert said in static
    # What needs the script is hidden until it runs.
    assert all("hidden" in tag for tag in re.findall(r"<[^>]*needs-script[^>]*>", static))


def test_the_policy_lets_only_this_style_and_script_through():
    text = render_report(make_survey(), {})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_the_page_has_no_address_in_it():
    text = render_report(make_survey(runs=[make_run()]), {0: [Sample(path="a", picture=PIXEL)]})
    assert re.findall(r"(?:https?:)?//[a-z]", text) == []
    assert 'style="' not in text


@pytest.mark.parametrize(
    ("survey", "said", "unsaid"),
    [
        (make_survey(), ["Classes", "Nothing odd"], ["Left out", "Time and memory", "Originals"]),
        (make_survey({"train": [0, 0]}), ["The split train is empty"], ["Samples</h2>"]),
        (make_survey({"train": [9]}, ["one"]), ["There is only one class"], []),
        (make_survey({"train": []}, [], manifest={"labelled": False}), [], ['id="classes"']),
        (make_survey(manifest={"columns": (Column(LABELS, "labels"), Column(CAPTION, "text"))},
                     records=RecordFacts(looked=4, total=9, tagged={0: 3, 1: 1}, captions=("hi",))),
         ["Labels", "75%", "4 records drawn at random, out of 9", "<bdi>hi</bdi>"], []),
        (make_survey(records=RecordFacts(looked=2, total=2, boxed={0: 3}, boxes_per_record={3: 1},
                                         box_areas={0.01: 3})),
         ["Classes of boxes", "3 to 4", "from 1%", "Of all 2 records",
          f'fill="#{bytes(choose_color(0)).hex()}"'],
         []),
        (make_survey(records=RecordFacts(looked=2, total=2, masks=2, masked={0: 2, 1: 1},
                                         mask_pixels={0: 875, 1: 125})),
         ["Classes in masks", "87.5%"], []),
        (make_survey(records=RecordFacts(looked=2, total=2, targets=(1,) * 10,
                                         target_range=(0.0, 5.0))),
         ["Number to predict", "up to 5"], []),
        (make_survey(manifest={"rejected": {"empty": 2}}), ["--images IMAGES", "empty"], []),
        (make_survey(runs=[make_run(), make_run(kind="update", images_read=0)]),
         ["update", "Runs</h3>", "This repeats the last run", "the last run, from scan to commit",
          "leave out the start of the command"], []),
        (make_survey(runs=[make_run(steps_msec={}, images_read=0)]), ["converted no image"], []),
        (make_survey(records=RecordFacts(looked=1, total=1, captions=(" ",))), ["(empty)"], []),
        (make_survey(manifest={"options": {"labels_column": "x", "labels_separator": " "}}),
         ["<dd>&#39; &#39;</dd>"], []),
    ],
)  # fmt: skip
def test_each_kind_of_data_set_has_its_view(survey, said, unsaid):
    text = render_report(survey, {})
    assert [word for word in said if word not in text] == []
    assert [word for word in unsaid if word in text] == []


def test_samples_stand_by_class_or_side_by_side(show):
    one = [Sample(path="a/b.png", picture=PIXEL), Sample(path="c", damage="cut short")]
    survey = make_survey({"train": [30, 40]}, ["cats", "dogs"])
    by_class = render_report(survey, {0: one, 1: one})
    assert by_class.count('class="class-row"') == 2
    assert "damaged: cut short" in by_class
    assert render_report(survey, {0: one[:1], 1: one[:1]}).count('class="class-row"') == 0
    strange = render_report(survey, {-5: one, 2**62: one})
    assert "class -5" in strange
    assert str(2**62) in strange
    alone = render_report(make_survey(manifest={"labelled": False}), {ALL: one})
    assert alone.count("<figure") == 2


def test_a_very_large_number_of_long_names_is_cut(monkeypatch):
    names = [f"{n} {'long ' * 30}" for n in range(30_000)]
    survey = make_survey({"train": [1] * 30_000}, names)
    rows, more = list_rows(survey)
    assert len(rows) < 30_000
    assert len(more.encode()) < 1_000_100
    assert f"The first {len(rows):,} of 30,000" in render_report(survey, {})


def test_texts_are_short_and_show_what_is_in_them():
    assert show_text("قطط 😀\u200d") == "قطط 😀\u200d"
    assert show_text("眠る\u3000\xa0\u2028") == "眠る\u3000\xa0\\u2028"
    assert show_text("a\u202eb\udcff\x1b") == "a\\u202eb\\xff\\x1b"
    assert show_text("abcdef", 4) == "abc…"
    assert show_path("abcdef", 4) == "…def"
    assert show_path("abc", 4) == "abc"
