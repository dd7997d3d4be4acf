"""The list of planted bugs fits the code of today."""

import ast

import pytest
from faults.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=range(len(MUTANTS)))
def test_a_bug_can_be_planted_and_is_still_python(mutant, tmp_path):
    path = tmp_path / mutant.file
    path.parent.mkdir(parents=True)
    path.write_text((ROOT / mutant.file).read_text())
    mutant.plant(tmp_path)
    ast.parse(path.read_text())
    assert all((ROOT / "tests" / f"test_{name}.py").exists() for name in mutant.tests.split())


def test_there_are_fifty():
    assert len(set(MUTANTS)) == len(MUTANTS) == 50
