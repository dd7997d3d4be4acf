"""Who may import what: one heavy dependency a folder, and nothing that runs data as code."""

import ast
import collections
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from architecture import list_imports

import converter
import pipelines
import reader

ROOT = Path(converter.__file__).parents[1]
PACKAGES = (converter, pipelines, reader)
HEAVY = {"apache_beam", "tensorflow", "keras"}

FORMAT_MODULES = {"errors", "format", "names", "option_fields", "sizes", "storage", "usage"}
"""What `reader` may use of `converter`."""

CONVERTING_MODULES = {
    "reader.batches.pixel_statistics": {"progress"},
    "reader.inference.given_images": {"image_options", "images"},
    "reader.inference.prepared_images": {"images", "options"},
    "reader.inference.preprocessing": {"image_options", "images", "options"},
}
"""What these alone may use besides: they convert an image for a model, as it was for training; or
they read a whole split, and say how far they are."""

FLOW = (
    "storage", "format", "images", "sources", "planning", "writing", "commits", "upkeep", "exports",
)  # fmt: skip
"""The packages of `converter`: each may use those before it."""

ROOMS = (
    "sampling", "records", "examples", "remote", "plan", "batches", "tfdata", "inference", "bench",
)  # fmt: skip
"""The packages of `reader`, likewise."""

BASE = {"arrays", "packages"}
"""The modules that all of them may use."""

FACES = {"bench": {"shardset", "source"}}
"""What else they use: a measurement reads as a user does."""

STOREYS = ("beam", "pages", "jobs", "view", "cli")
"""The packages of `pipelines`, likewise."""

TENSORFLOW_MODULES = {
    f"reader.tfdata.{name}"
    for name in (
        "dataset",
        "decoding",
        "input_stats",
        "placing",
        "sequence",
        "serializable",
    )
}
KERAS_MODULES = {f"reader.tfdata.{name}" for name in ("input_stats", "resume", "sequence")}

FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def list_modules(package) -> list[str]:
    """The names of a package and of all modules in it."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found)]


def load_modules(*names: str) -> set[str]:
    """The top-level modules of which a process has loaded something to import these.

    What it has from its start does not count: a `.pth` of Google's packages makes `google` then.
    """
    script = (
        "import importlib, json, sys\n"
        "start = set(sys.modules)\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "new = set(sys.modules) - start\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in new})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, check=True
    )
    return set(json.loads(run.stdout))


def test_no_module_of_converter_loads_beam_or_tensorflow():
    names = list_modules(converter)
    assert "converter.writing.shard_writer" in names
    assert not load_modules(*names) & HEAVY


def test_no_module_of_pipelines_loads_tensorflow():
    names = list_modules(pipelines)
    assert "pipelines.beam.worker_main" in names
    assert load_modules(*names) & HEAVY == {"apache_beam"}


def test_only_these_modules_of_reader_load_tensorflow():
    names = set(list_modules(reader)) - TENSORFLOW_MODULES - KERAS_MODULES
    assert "reader.source" in names
    assert not load_modules(*names) & HEAVY


def test_no_module_of_reader_loads_beam():
    loaded = load_modules(*list_modules(reader))
    assert "tensorflow" in loaded
    assert "apache_beam" not in loaded


@pytest.mark.parametrize(
    ("name", "unneeded"),
    [
        ("converter", HEAVY | {"numpy", "PIL", "google"}),
        ("pipelines", HEAVY | {"numpy", "PIL", "google"}),
        ("pipelines.cli.commands", HEAVY | {"numpy", "PIL", "tqdm"}),  # for `shardmill --help`
        ("pipelines.cli.look_commands", HEAVY | {"PIL", "jinja2", "tqdm"}),  # for `inspect`
        ("reader", HEAVY | {"PIL"}),  # encoded images are handed out as they are
    ],
)
def test_importing_a_package_loads_no_more_than_it_needs(name, unneeded):
    before = load_modules()  # by other packages, as an interpreter starts: a namespace, say
    assert not (load_modules(name) - before) & unneeded


def parse_sources() -> Iterator[tuple[str, ast.Module]]:
    """The name and the syntax tree of every module."""
    for package in PACKAGES:
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(path.read_bytes())


SOURCES = dict(parse_sources())
FOLDERS = {name for name in SOURCES if any(other.startswith(f"{name}.") for other in SOURCES)}
IMPORTS = {name: set(list_imports(tree)) for name, tree in SOURCES.items()}


def find_importers(*packages: str) -> set[str]:
    """The packages of ours in which something of these is imported."""
    return {
        name.partition(".")[0]
        for name, imports in IMPORTS.items()
        for imported in imports
        if imported.partition(".")[0] in packages
    }


def list_used(importers: str, package: str) -> set[str]:
    """What is imported from a package by modules whose names begin in some way."""
    return {
        imported.split(".")[1]
        for name, imports in IMPORTS.items()
        for imported in imports
        if name.startswith(importers) and imported.startswith(f"{package}.")
    }


def test_the_sources_looked_at_are_all_there_are():
    names = {name for package in PACKAGES for name in list_modules(package)}
    assert set(SOURCES) == names


def test_imports_are_absolute():
    nodes = (node for tree in SOURCES.values() for node in ast.walk(tree))
    assert all(node.level == 0 for node in nodes if isinstance(node, ast.ImportFrom))


def test_imports_between_the_packages_run_one_way():
    assert find_importers("converter") == {"converter", "pipelines", "reader"}
    assert find_importers("pipelines") == {"pipelines"}
    assert find_importers("reader") <= {"pipelines", "reader"}


def test_only_what_shows_records_imports_the_reader():
    """What runs on workers and converts does without it."""
    importers = {
        name.split(".")[1]
        for name, imports in IMPORTS.items()
        if name.startswith("pipelines.")
        and any(imported.startswith("reader") for imported in imports)
    }
    assert importers <= {"pages", "view", "cli"}


def test_reader_uses_of_converter_the_format_modules_alone():
    for name, imports in IMPORTS.items():
        if name.startswith("reader"):
            used = {other.split(".")[1] for other in imports if other.startswith("converter.")}
            assert used <= FORMAT_MODULES | CONVERTING_MODULES.get(name, set()), name


@pytest.mark.parametrize("package", FLOW)
def test_a_package_of_converter_uses_only_those_before_it(package):
    used = list_used(f"converter.{package}", "converter")
    assert used & {*FLOW} <= {*FLOW[: FLOW.index(package) + 1]}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_reader_uses_only_those_before_it(room):
    used = list_used(f"reader.{room}", "reader")
    assert used <= {*BASE, *FACES.get(room, ()), *ROOMS[: ROOMS.index(room) + 1]}


@pytest.mark.parametrize("storey", STOREYS)
def test_a_package_of_pipelines_uses_only_those_before_it(storey):
    used = list_used(f"pipelines.{storey}", "pipelines")
    assert used <= {*STOREYS[: STOREYS.index(storey) + 1]}


def test_only_one_package_of_pipelines_imports_beam():
    importers = {
        name.split(".")[1]
        for name, imports in IMPORTS.items()
        if name.startswith("pipelines.")
        and any(imported.startswith("apache_beam") for imported in imports)
    }
    assert importers == {"beam"}


def test_no_two_modules_have_the_same_name():
    counts = collections.Counter(name.rpartition(".")[2] for name in SOURCES if name not in FOLDERS)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    "package",
    [
        *(f"converter.{name}" for name in FLOW),
        *(f"reader.{name}" for name in ROOMS),
        *(f"pipelines.{name}" for name in STOREYS),
    ],
)
def test_a_package_says_of_each_module_what_it_is_for(package):
    described = importlib.import_module(package)
    names = [module.name for module in pkgutil.iter_modules(described.__path__)]
    assert [name for name in names if not re.search(rf"\b{name}\b", described.__doc__)] == []


def test_the_rooms_of_reader_are_these():
    folders = {path.parent.name for path in Path(reader.__path__[0]).glob("*/__init__.py")}
    assert folders == {*ROOMS}


def test_the_packages_of_converter_are_these():
    folders = {path.parent.name for path in Path(converter.__path__[0]).glob("*/__init__.py")}
    assert folders == {*FLOW}


def test_each_heavy_dependency_is_imported_in_one_package():
    assert find_importers("apache_beam") == {"pipelines"}
    assert find_importers("tensorflow", "keras") == {"reader"}


def test_tensorflow_is_imported_for_real_in_these_modules():
    eager = {
        name
        for name, tree in SOURCES.items()
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(module.startswith("tensorflow") for module in list_imports(ast.Module([node], [])))
    }
    assert eager == TENSORFLOW_MODULES


def test_only_storage_asks_what_kind_of_location_there_is():
    """A new kind of store is one module: nothing else has to be taught about it."""
    kinds = {"Path", "PosixPath", "DiskPath", "ObjectPath"}
    asked = [
        f"{name}:{node.lineno}"
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "isinstance"
        and kinds & {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
    ]
    assert [place for place in asked if not place.startswith("converter.storage.")] == []


def find_dangers(tree: ast.Module) -> Iterator[str]:
    """Whatever in a module could run data as code."""
    for imported in list_imports(tree):
        if imported.partition(".")[0] in FORBIDDEN_IMPORTS:
            yield f"imports {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in FORBIDDEN_CALLS:
                yield f"calls {ast.unparse(node.func)}"
            for keyword in node.keywords:
                if keyword.arg == "shell" and ast.unparse(keyword.value) != "False":
                    yield "runs a shell"
                if keyword.arg == "allow_pickle":
                    yield "allows pickles"


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_can_run_data_as_code(name):
    assert list(find_dangers(SOURCES[name])) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def load():\n    from marshal import loads",
        "eval('1')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_what_could_run_data_as_code_is_recognised(source):
    assert len(list(find_dangers(ast.parse(source)))) == 1


def test_flask_is_imported_where_pages_are_served_alone():
    served = ("flask", "werkzeug")
    importers = {
        name.rpartition(".")[0]
        for name, imports in IMPORTS.items()
        for imported in imports
        if imported.partition(".")[0] in served
    }
    assert importers == {"pipelines.view"}
