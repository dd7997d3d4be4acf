"""The page on the architecture says what the code is."""

import re

import architecture
import pytest

PAGE = architecture.PAGE.read_text()


def test_the_picture_is_that_of_the_imports():
    assert architecture.put_diagram(PAGE) == PAGE, "run ./scripts/run architecture --write"


@pytest.mark.parametrize(
    "name",
    sorted(
        set(re.findall(r"`((?:converter|pipelines|reader|scripts|tests|docs)/[a-z_./]+)`", PAGE))
    ),
)
def test_every_file_that_is_named_exists(name):
    assert (architecture.ROOT / name).exists()


def test_it_stays_two_pages():
    assert len(re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL).split()) < 1_000


def test_an_arrow_that_a_longer_way_shows_is_left_out():
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert {name: architecture.reduce(found, graph) for name, found in graph.items()} == {
        "a": {"b"},
        "b": {"c"},
        "c": set(),
    }


def test_a_package_is_found_by_its_folder():
    assert architecture.find_package(("converter", "storage", "disk")) == "converter.storage"
    assert architecture.find_package(("converter", "errors")) == "converter.errors"
    assert architecture.find_package(("converter", "costs")) == "converter.options"
    assert architecture.find_package(("reader", "source")) == "reader"


def test_packages_do_not_import_each_other_in_circles():
    graph = architecture.read_imports()
    assert [name for name in graph if name in architecture.reach(name, graph)] == []
