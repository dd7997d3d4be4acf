"""The public names of the three packages."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import converter
import pipelines
import reader

PACKAGES = (converter, pipelines, reader)


def list_modules(package) -> list[str]:
    """The names of a package and of all modules in it."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found)]


def parse_module(name: str) -> ast.Module:
    """The syntax tree of a module, which is not imported for it."""
    return ast.parse(Path(importlib.util.find_spec(name).origin).read_bytes())


def list_homes(package) -> tuple[str, str]:
    """Where a public name may be defined: in the package, or in what all build on."""
    return "converter.", f"{package.__name__}."


def walk_top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in functions and classes, whose names are their own."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from walk_top_level(node)


def list_public_names(package) -> set[str]:
    """What `__init__.py` defines or takes from where it may, also for types alone."""
    names = set()
    for node in walk_top_level(parse_module(package.__name__)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(list_homes(package)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    # A name that type checkers know; to import it would delay what handles Ctrl-C.
    return {name for name in names - {"TYPE_CHECKING"} if not name.startswith("_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_complete(package):
    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) == list_public_names(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported_and_says_what_it_is(package):
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
        assert getattr(package, name).__module__.startswith(list_homes(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_star_import_gives_exactly_the_public_names(package):
    names = {}
    exec(f"from {package.__name__} import *", names)
    assert set(names) - {"__builtins__"} == set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_hides_a_module(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"'{package.__name__}' .* 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize("name", [name for p in PACKAGES for name in list_modules(p)])
def test_every_module_begins_with_a_sentence(name):
    text = ast.get_docstring(parse_module(name))
    assert text is not None
    assert text.splitlines()[0].endswith(".")
