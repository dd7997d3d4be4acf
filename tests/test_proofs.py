"""Proofs: the third that runs changes with the commit, and can be asked for again."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import conftest
import proofs
import pytest

NAMES = [f"tests/test_soak.py::test_{number}" for number in range(300)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, the second one checked out."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for message in ("one", "two"):
        subprocess.run([*command, message], cwd=tmp_path, check=True)
    return tmp_path


def test_each_proof_is_in_one_third():
    counts = Counter(third for name in NAMES for third in (1, 2, 3) if proofs.is_in(name, third))
    assert counts.total() == len(NAMES)
    assert min(counts.values()) > 70


def test_commits_take_turns():
    commits = [f"{number:040x}" for number in range(16**6, 16**6 + 30)]
    assert Counter(map(proofs.choose_third, commits)) == {1: 10, 2: 10, 3: 10}
    assert proofs.choose_third("") == 1


def test_the_commit_is_the_one_that_is_checked_out(repository: Path, tmp_path_factory):
    second = proofs.read_commit(repository)
    assert re.fullmatch("[0-9a-f]{40,64}", second)
    subprocess.run(["git", "checkout", "-q", "HEAD~1"], cwd=repository, check=True)
    assert proofs.read_commit(repository) not in ("", second)


def test_without_git_or_its_folder_there_is_no_commit(tmp_path: Path, monkeypatch):
    assert proofs.read_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert proofs.read_commit() == ""


@pytest.mark.parametrize(
    ("wanted", "third"), [("", None), ("all", None), ("1/3", 1), ("2/3", 2), ("3/3", 3)]
)
def test_a_third_can_be_asked_for(monkeypatch, wanted, third):
    monkeypatch.setenv(proofs.VARIABLE, wanted)
    assert proofs.read_third() == third
    assert bool(proofs.describe_choice()) is (third is not None)


@pytest.mark.parametrize("wanted", ["4/3", "0/3", "1", "samples", "1/3 "])
def test_what_is_none_of_them_is_refused(monkeypatch, wanted):
    monkeypatch.setenv(proofs.VARIABLE, wanted)
    with pytest.raises(pytest.UsageError, match="sample, all, or 1/3"):
        proofs.read_third()


@pytest.mark.parametrize("commit", ["52c6f01" + "0" * 33, ""])
def test_the_head_says_how_to_repeat_a_sample(monkeypatch, commit):
    monkeypatch.setattr(proofs, "read_commit", lambda: commit)
    monkeypatch.setenv(proofs.VARIABLE, "sample")
    third, said = proofs.read_third(), proofs.describe_choice()
    assert ("52c6f010" in said) is bool(commit)
    assert said.endswith(f"{proofs.VARIABLE}={third}/3")
    monkeypatch.setenv(proofs.VARIABLE, said.rpartition("=")[2])
    assert proofs.read_third() == third


class Item:
    """What pytest tells of a test, as far as it matters here."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid, self.path = nodeid, Path(nodeid.partition("::")[0])
        self.kinds: list[str] = []

    def add_marker(self, kind: str) -> None:
        self.kinds.append(kind)

    def get_closest_marker(self, kind: str) -> bool:
        return kind in self.kinds


def collect(monkeypatch: pytest.MonkeyPatch, wanted: str) -> set[str]:
    monkeypatch.setenv(proofs.VARIABLE, wanted)
    items = [Item(name) for name in (*NAMES, "tests/test_sizes.py::test_a", "tests/test_bars.py")]
    conftest.pytest_collection_modifyitems(items)
    return {item.nodeid for item in items}


def test_a_third_leaves_other_proofs_out_and_all_other_tests_in(monkeypatch):
    everything = collect(monkeypatch, "")
    assert len(everything) == len(NAMES) + 2
    thirds = [collect(monkeypatch, f"{third}/3") for third in (1, 2, 3)]
    assert set.union(*thirds) == everything
    assert set.intersection(*thirds) == {"tests/test_sizes.py::test_a", "tests/test_bars.py"}
    assert collect(monkeypatch, "sample") in thirds


def test_pytest_says_it_at_its_head(monkeypatch):
    monkeypatch.setenv(proofs.VARIABLE, "2/3")
    assert conftest.pytest_report_header() == proofs.describe_choice() != ""
