"""The bar follows the receipts."""

from pathlib import Path

import pytest
from conftest import write_folder, write_image

from converter.options import ConvertOptions
from converter.storage.files import Layout
from converter.writing.shard_writer import receipt_path
from pipelines.beam.remaining import ReceiptWatch


def test_each_receipt_is_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(9):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    (tmp_path / "images" / "a" / "bad.png").write_bytes(b"bad")
    plan = write_folder(
        tmp_path / "images", tmp_path / "out", ConvertOptions(image_size=(8, 8), num_shards=2)
    )
    path = receipt_path(Layout(plan.out), plan.shards[0])
    receipt = path.read_bytes()
    path.unlink()
    watch = ReceiptWatch(plan, bar=True)

    watch.poll()
    path.write_bytes(b"damaged")
    watch.poll()
    assert watch.written + watch.rejected == plan.shards[1].records
    path.write_bytes(receipt)
    watch.poll()
    assert (watch.written, watch.rejected) == (9, 1)
    watch.close()

    last = capsys.readouterr().err.split("\r")[-1]
    assert "converting: 100%" in last
    assert "10/10" in last
    assert "2/2 shards, 1 rejected" in last


def test_no_bar_is_drawn_unless_asked(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_folder(image_folder, tmp_path / "out", ConvertOptions(image_size=(8, 8)))
    watch = ReceiptWatch(plan, bar=False)
    watch.poll()
    watch.close()
    assert watch.written == 72
    assert capsys.readouterr().err == ""
