"""The picture of the README: bars as long as the figures, and readable in light and dark."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks.before_after import CACHED, OURS, ROWS, draw, make_panels

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "before-after.svg"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def panels():
    """Each contender is a hundred images a second faster than the one before, and a MB larger."""
    return make_panels(
        {
            name: [
                {"rate": 100.0 * place + more, "growth_mb": place + more / 10} for more in (0, 1, 2)
            ]
            for place, name in enumerate(ROWS, 1)
        }
    )


def test_rates_are_medians_and_memory_is_the_most(panels):
    rates, memory = panels
    assert rates.values[OURS] == (501, "501")
    assert memory.values[OURS] == (pytest.approx(5.2), "5 MB")
    # What comes from a cache is not read: its rate would say nothing.
    assert CACHED not in rates.values
    assert CACHED in memory.values


def test_bars_are_as_long_as_their_figures(panels):
    root = ET.fromstring(draw(panels, "two cores"))
    bars = [(bar.get("class"), int(bar.get("width"))) for bar in root.iter(f"{SVG}rect")]
    rates, memory = bars[:4], bars[4:]
    assert [kind for kind, _ in rates] == ["before", "before", "after", "after"]
    assert [kind for kind, _ in memory] == ["before", "before", "before", "after", "after"]
    assert rates[0][1] / rates[-1][1] == pytest.approx(101 / 501, abs=0.01)
    assert memory[0][1] / memory[-1][1] == pytest.approx(1.2 / 5.2, abs=0.01)


def test_everything_lies_in_the_picture_and_has_two_schemes(panels):
    text = draw(panels, "<two> & cores")
    root = ET.fromstring(text)
    _, _, width, height = map(int, root.get("viewBox").split())
    assert all(
        int(bar.get("x")) + int(bar.get("width")) <= width for bar in root.iter(f"{SVG}rect")
    )
    assert all(int(line.get("y")) <= height for line in root.iter(f"{SVG}text"))
    assert "<two> & cores" in [line.text for line in root.iter(f"{SVG}text")]
    assert "prefers-color-scheme: dark" in text


def test_the_picture_of_the_readme_is_drawn_like_this():
    root = ET.parse(PICTURE).getroot()
    shown = [line.text for line in root.iter(f"{SVG}text")]
    assert set(ROWS.values()) <= set(shown)
    assert PICTURE.stat().st_size < 5_000
