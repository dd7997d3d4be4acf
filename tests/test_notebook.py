"""docs/colab.ipynb: it runs from its first cell to its last, and shows what a real run gave."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import make_environment
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "colab.ipynb"
PRIVATE = re.compile(r"/(?:work|home|root|tmp|usr|content)/|[\w.-]+@[\w.-]+|0x[0-9a-f]{8,}")


def list_outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def read_text(notebook):
    return "".join(output.get("text", "") for output in list_outputs(notebook))


def count_pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in list_outputs(notebook))


@pytest.fixture
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_runs_on_a_few_photos(committed, tmp_path, monkeypatch):
    """450 photos take 354 MB as float32: the old way dies within 300, and the new one does not."""
    binaries = Path(sys.executable).parent
    path = os.pathsep.join([str(binaries), os.environ.get("PATH", "")])
    for name, value in make_environment(PHOTO_COUNT="450", LIMIT_MB="300", PATH=path).items():
        monkeypatch.setenv(name, value)
    for cell in committed.cells:
        if "outputs" in cell:
            cell["outputs"] = []
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(committed, timeout=240, kernel_name="python3", resources=folder).execute()
    text = read_text(committed)
    assert re.search(r"the old way died: [\d,]+ images read, [12]\d\d MB taken", text)
    assert re.search(r"the plain way finished: 900 images read", text)
    assert re.search(r"the new way finished: 7\d\d images read, [\d,]+ MB taken", text)
    assert "wrote 450 images to photos-256" in text
    assert "input wait" in text
    assert count_pictures(committed) == 1


def test_its_outputs_are_of_a_whole_run(committed):
    text = read_text(committed)
    assert "the old way died" in text
    assert "the plain way finished" in text
    assert "the new way finished" in text
    assert count_pictures(committed) == 1
    codes = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [*range(1, len(codes) + 1)]
    kinds = {output.output_type for output in list_outputs(committed)}
    assert kinds <= {"stream", "display_data", "execute_result"}


def test_its_outputs_tell_nothing_of_the_machine(committed):
    found = [PRIVATE.findall(json.dumps(output)) for output in list_outputs(committed)]
    shown = [match for matches in found for match in matches if len(match) < 100]
    assert shown == []


def test_it_is_small_and_names_the_placeholder_that_the_page_explains(committed):
    assert NOTEBOOK.stat().st_size < 300_000
    source = "\n".join(cell.source for cell in committed.cells)
    assert "git+REPOSITORY" in source
    assert "git+REPOSITORY" in (ROOT / "docs" / "install.md").read_text()


def test_its_links_lead_to_pages_that_exist(committed):
    source = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", source)
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []
