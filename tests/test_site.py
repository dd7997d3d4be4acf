"""The site as its readers get it: built once, then read as HTML and opened in Chromium."""

import html.parser
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from browser import open_browser
from PIL import Image

import docs as site  # scripts/docs.py

DOCS = site.ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
# One of each kind: cards, tables, long lines of code, a picture, docstrings.
SHOWN = ("index", "sources", "measured", "from/img2dataset", "how-it-works", "reference/index")


class _Page(html.parser.HTMLParser):
    """What the tests need of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self._heading = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self._heading = self._heading or tag in {"h1", "h2", "h3"}
        if self._heading and tag in {"h1", "h2", "h3"}:
            self.headings.append("")
        if values.get("id"):
            self.ids.append(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in {"img", "script", "link", "iframe"}:
            self.sources += [values[name] for name in ("src", "href") if values.get(name)]

    def handle_endtag(self, tag):
        self._heading = self._heading and tag not in {"h1", "h2", "h3"}

    def handle_data(self, data):
        if self._heading:
            self.headings[-1] += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = Path(tmp_path_factory.mktemp("site")) / "html"
    command = [sys.executable, site.__file__, "--out", str(out)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return out


@pytest.fixture(scope="module")
def pages(built):
    names = [f"{path.with_suffix('.html').as_posix()}" for path in PAGES]
    return {built / name: _Page((built / name).read_text()) for name in names}


def resolve(page, link):
    """The file that a link leads to, and the anchor in it."""
    name, _, anchor = link.partition("#")
    return (page.parent / name).resolve() if name else page, anchor


def is_external(link):
    return link.startswith(("http://", "https://", "mailto:", "data:"))


def test_each_page_is_reached_from_the_index(built, pages):
    start = built / "index.html"
    reached, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for link in pages[page].links:
            target, _ = resolve(page, link)
            if not is_external(link) and target in pages and target not in reached:
                reached.add(target)
                waiting.append(target)
    assert reached == set(pages)


def test_each_link_and_anchor_leads_somewhere(pages):
    broken = []
    for page, content in pages.items():
        for link in content.links:
            if is_external(link):
                continue
            target, anchor = resolve(page, link)
            known = pages.get(target)
            if not target.is_file() or (anchor and known and anchor not in known.ids):
                broken.append((page.name, link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    assert [s for content in pages.values() for s in content.sources if is_external(s)] == []


def test_no_heading_stands_twice_on_a_page(pages):
    twice = {
        page.name: [text for text, count in Counter(content.headings).items() if count > 1]
        for page, content in pages.items()
    }
    assert {name: texts for name, texts in twice.items() if texts} == {}


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_pages_fit_the_window_and_complain_of_nothing(built, width, dark):
    with open_browser(width=width, dark=dark) as browser:
        for name in SHOWN:
            page = browser.open((built / f"{name}.html").as_uri())
            over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert over <= 0, f"{name} is {over} px too wide"
            page.close()
        assert browser.complaints == []
        assert [address for address in browser.requests if not address.startswith("file:")] == []


def test_the_start_shows_what_it_saves(pages, built):
    (picture,) = [s for s in pages[built / "index.html"].sources if s.endswith("before-after.svg")]
    assert (built / picture).read_bytes() == (DOCS / "before-after.svg").read_bytes()


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_picture_follows_the_scheme_that_is_chosen_on_the_page(built, dark):
    with open_browser(dark=not dark) as browser:
        page = browser.open((built / "index.html").as_uri())
        page.evaluate(f"document.body.dataset.theme = '{'dark' if dark else 'light'}'")
        shot = page.locator("img[src$='before-after.svg']").screenshot()
    least, most = Image.open(io.BytesIO(shot)).convert("L").getextrema()
    assert most - least > 180  # its letters can be read
    assert (most > 220) if dark else (least < 60)


@pytest.mark.usefixtures("chromium")
def test_a_page_follows_the_scheme_of_the_system(built):
    shades = []
    for dark in (False, True):
        with open_browser(dark=dark) as browser:
            page = browser.open((built / "start.html").as_uri())
            shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(int(c) for c in s[s.index("(") + 1 : -1].split(",")[:3]) for s in shades)
    assert light > 600 > 200 > dark


@pytest.mark.usefixtures("chromium")
def test_the_search_finds_a_page_without_a_network(built):
    with open_browser() as browser:
        page = browser.open(f"{(built / 'search.html').as_uri()}?q=max_ram")
        page.wait_for_selector("#search-results li a")
        assert browser.complaints == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](missing.md)", "the link missing.md leads nowhere"),
        ("[a](#no-such)", "the link #no-such leads nowhere"),
        ("see scripts/nothing", "there is no scripts/nothing"),
    ],
)
def test_a_broken_link_or_mention_is_found(tmp_path, monkeypatch, text, fault):
    monkeypatch.setattr(site, "ROOT", tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{text}\n")
    assert list(site.find_faults(page)) == [f"README.md: {fault}"]


def test_links_in_code_and_right_ones_are_no_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A `b` (c)\n")
    page = tmp_path / "README.md"
    page.write_text(
        "# Title\n\n```sh\n[a](missing)\n```\n\n[a](docs/a.md#a-b-c) [b](https://x.y) docs/a.md\n"
    )
    assert list(site.find_faults(page)) == []


def test_addresses_of_other_sites_are_listed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("<https://a.b/c>, [x](https://a.b/c). https://d.e.")
    assert site.list_addresses() == ["https://a.b/c", "https://d.e"]
