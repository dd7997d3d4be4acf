"""What a process uses of its machine."""

import subprocess
import sys

import numpy as np

from converter import usage
from converter.usage import measure_free_memory, measure_memory, measure_peak_memory


def test_memory_is_that_of_the_process(monkeypatch, tmp_path):
    before = measure_memory()
    assert before > 10**7
    held = np.ones(10_000_000)
    assert measure_memory() > before + 0.5 * held.nbytes
    monkeypatch.setattr(usage, "_STATM", tmp_path / "none")
    peak = measure_memory()
    assert peak == measure_peak_memory() > before
    monkeypatch.setattr(usage, "_STATUS", tmp_path / "none")
    assert measure_peak_memory() >= before
    monkeypatch.setattr(sys, "platform", "darwin")
    assert measure_memory() < peak


def test_the_peak_is_not_that_of_the_process_before():
    held = np.ones(30_000_000)
    command = "from converter.usage import measure_peak_memory; print(measure_peak_memory())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert int(done.stdout) < held.nbytes < measure_peak_memory()


def test_a_file_of_another_form_is_as_good_as_none(monkeypatch, tmp_path):
    monkeypatch.setattr(usage, "_STATM", tmp_path / "statm")
    for content in ("", "12", "12 pages"):
        (tmp_path / "statm").write_text(content)
        assert measure_memory() == measure_peak_memory()


def test_free_memory_is_that_of_the_machine_at_most():
    assert 0 < measure_free_memory() < 1 << 50
