"""The report on real data sets: by convert and by its command, also where something is wrong."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from browser import open_browser
from conftest import convert_folder, read_tree, run_conversion, write_folder, write_image

from converter.commits.run_log import read_runs
from converter.errors import DatasetError, LockedError, UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.storage.disk import DiskPath
from converter.storage.files import COMPANIONS, REPORT, RUN_LOG, Layout
from converter.upkeep.verification import verify_dataset
from pipelines import report
from pipelines.cli.commands import main
from pipelines.jobs import reporting
from pipelines.jobs.request import ReportWarning
from pipelines.pages import reject_pictures
from pipelines.pages.reject_pictures import draw_rejects
from pipelines.pages.survey import LeftOut

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3, validation_split=0.25)
IN_MEMORY = ["--direct_running_mode=in_memory"]


def make_images(root: Path) -> Path:
    for seed in range(40):
        write_image(root / "images" / ("cats", "dogs")[seed % 2] / f"{seed}.png", seed)
    (root / "images" / "cats" / "bad.jpg").write_bytes(b"no image")
    cut = (root / "images" / "cats" / "0.png").read_bytes()
    (root / "images" / "dogs" / "cut.png").write_bytes(cut[: len(cut) // 2])
    return root / "images"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data set that convert wrote, and its images beside it."""
    root = tmp_path_factory.mktemp("made")
    run_conversion(make_images(root), root / "out", OPTIONS, IN_MEMORY)
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "images", tmp_path / "images")
    return DiskPath(shutil.copytree(made / "out", tmp_path / "out"))


def test_convert_writes_a_report_and_a_log_that_are_no_part_of_the_data_set(made):
    out = made / "out"
    text = (out / REPORT).read_text()
    assert text.startswith("<!doctype html>")
    assert "2 images could not be converted" in text
    (run,) = read_runs(out)
    assert (run.kind, run.shards_written, run.shards_kept) == ("convert", 4, 0)
    assert (run.images_read, run.originals.images) == (42, 40)
    assert run.originals.formats == {"png": 40}
    assert run.originals.sizes == {"32x24": 40}
    assert {*run.phases_msec} == {"scan", "convert", "commit"}
    assert run.worker_peak_bytes > 10**7
    assert str(made / "images") in run.command
    assert not {*COMPANIONS} & {*read_manifest(out).files}
    assert verify_dataset(out) == []


def test_every_other_file_is_still_a_stranger(copy):
    for name in ("report.htm", "run.json", "report.html.bak"):
        (copy / name).touch()
    assert sorted(fault.file for fault in verify_dataset(copy)) == sorted(
        ["report.htm", "run.json", "report.html.bak"]
    )


def test_an_archive_of_many_images_is_not_listed_for_pictures(made, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(made / "images", ".")
    images = DiskPath(tmp_path / "images.tar")
    left_out = [
        LeftOut(
            code="decode_error", meaning="", count=1, asked=False, examples=(("cats/0.png", ""),)
        )
    ]
    assert [*draw_rejects(left_out, images, OPTIONS, 40)] == ["cats/0.png"]
    monkeypatch.setattr(reject_pictures, "_MAX_SCANNED", 39)
    monkeypatch.setattr(reject_pictures, "make_lookup", None)
    assert draw_rejects(left_out, images, OPTIONS, 40) == {}
    monkeypatch.setattr(reject_pictures, "Originals", None)
    assert draw_rejects([], images, OPTIONS, 40) == {}  # not even looked for


def test_the_rejects_of_convert_have_pictures_where_they_decode(made):
    text = (made / "out" / REPORT).read_text()
    left_out = text[text.index('id="left-out"') :]
    assert "bad.jpg" in left_out
    assert "dogs/cut.png" in left_out
    assert "--images IMAGES" not in left_out


def test_a_path_out_of_the_images_shows_no_picture(copy, tmp_path):
    write_image(tmp_path / "secret.png", 5)
    (copy.parent / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    lines = [
        {"path": path, "code": "decode_error", "detail": ""}
        for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "cats/0.png")
    ]
    (copy / "rejects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = report(copy, images=tmp_path / "images")
    assert [*found.reject_pictures] == ["cats/0.png"]


def test_an_update_appends_a_line_and_writes_the_report_again(copy, tmp_path):
    write_image(tmp_path / "images" / "cats" / "new.png", 99)
    before = (copy / REPORT).read_bytes()
    run_conversion(tmp_path / "images", copy, OPTIONS, IN_MEMORY, mode="update")
    first, second = read_runs(copy)
    assert (first.kind, second.kind) == ("convert", "update")
    assert 0 < second.shards_written < 4
    assert second.command.endswith("--update")
    assert (copy / REPORT).read_bytes() != before
    assert verify_dataset(copy) == []
    assert report(copy).survey.originals.images == 40


def test_a_folder_in_place_of_the_report_stays_and_holds_nothing_up(copy, tmp_path):
    (copy / REPORT).unlink()
    (copy / REPORT).mkdir()
    (copy / REPORT / "mine").touch()
    with pytest.warns(ReportWarning, match=r"report\.html"):
        run_conversion(tmp_path / "images", copy, OPTIONS, IN_MEMORY, mode="overwrite")
    assert (copy / REPORT / "mine").exists()
    assert verify_dataset(copy) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_replacement_begins_a_new_log(copy, tmp_path):
    other = ConvertOptions(image_size=(8, 8), encoding="png")
    run_conversion(tmp_path / "images", copy, other, IN_MEMORY, mode="overwrite")
    (run,) = read_runs(copy)
    assert run.options["image_size"] == [8, 8]
    assert verify_dataset(copy) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_resumed_run_knows_the_originals_of_the_run_before(tmp_path, monkeypatch):
    images = make_images(tmp_path)
    plan = write_folder(images, tmp_path / "out", OPTIONS)
    from converter.writing.shard_writer import Job
    from pipelines.beam.transforms import mill_shards

    list(mill_shards(plan.shards, Job.of_plan(plan)))  # with their costs, as a worker does
    for path in (tmp_path / "out").glob("train-00000*"):
        path.unlink()
    run_conversion(images, tmp_path / "out", OPTIONS, IN_MEMORY)
    (run,) = read_runs(tmp_path / "out")
    assert (run.shards_written, run.shards_kept) == (1, 3)
    assert run.images_read < 42
    assert run.originals.images == 40


def test_several_sizes_have_a_report_each(tmp_path):
    images = make_images(tmp_path)
    arguments = ["--image-size=8", "--image-size=12", *IN_MEMORY, "--no-progress"]
    assert main(["convert", str(images), str(tmp_path / "out"), *arguments]) == 0
    for size in ("8x8", "12x12"):
        (run,) = read_runs(tmp_path / "out" / size)
        assert run.originals.images == 40
        assert (tmp_path / "out" / size / REPORT).is_file()


def test_a_report_in_a_store(server, tmp_path):
    out = server.path("reported")
    run_conversion(make_images(tmp_path), out, OPTIONS, IN_MEMORY)
    assert verify_dataset(out) == []
    assert b"<!doctype html>" in (out / REPORT).read_bytes()
    assert len(read_runs(out)) == 1
    report(out, tmp_path / "page.html")
    assert "cats" in (tmp_path / "page.html").read_text()


def test_a_conversion_does_not_fail_because_its_report_does(tmp_path, monkeypatch, capsys):
    images = make_images(tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(reporting, "_make", fail)
    with pytest.warns(ReportWarning, match="no ink"):
        run_conversion(images, tmp_path / "out", OPTIONS, IN_MEMORY)
    assert verify_dataset(tmp_path / "out") == []
    assert not (tmp_path / "out" / REPORT).exists()
    arguments = ["--image-size=8", *IN_MEMORY, "--no-progress"]
    assert main(["convert", str(images), str(tmp_path / "other"), *arguments]) == 0
    printed = capsys.readouterr()
    assert "no ink" in printed.err
    assert "report:" not in printed.out


def test_half_a_report_of_a_killed_run_is_removed_by_the_next(copy, tmp_path):
    Layout(copy).work.mkdir()
    (Layout(copy).work / f"{REPORT}.0123abcd").write_bytes(b"<!doc")
    run_conversion(tmp_path / "images", copy, OPTIONS, IN_MEMORY)
    assert not Layout(copy).work.exists()


def test_the_command_writes_the_page_and_says_the_gravest(copy, tmp_path, capsys):
    (copy / REPORT).unlink()
    tree = read_tree(copy)
    assert main(["report", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"report: {copy / REPORT}"
    assert "  2 images could not be converted" in lines
    assert (copy / REPORT).is_file()
    assert main(["report", str(copy), "--out", str(tmp_path / "a.html"), "--quiet"]) == 0
    assert (tmp_path / "a.html").read_bytes() == (copy / REPORT).read_bytes()
    assert capsys.readouterr().out == ""
    assert read_tree(copy) == tree
    assert not Layout(copy).work.exists()


def test_its_facts_are_json(copy, capsys):
    assert main(["report", str(copy), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["report"] == str(copy / REPORT)
    assert facts["classes"] == ["cats", "dogs"]
    assert sum(split["records"] for split in facts["splits"]) == 40
    assert [each["code"] for each in facts["left_out"]]


def test_what_cannot_be_reported_is_one_line(copy, tmp_path, capsys):
    manifest = (copy / "manifest.json").read_text()
    newer = tmp_path / "newer"
    shutil.copytree(copy, newer)
    (newer / "manifest.json").write_text(manifest.replace('"1.0"', '"2.0"'))
    damaged = tmp_path / "damaged"
    shutil.copytree(copy, damaged)
    (damaged / "manifest.json").write_text(manifest[:-40])
    write_folder(tmp_path / "images", tmp_path / "unfinished", OPTIONS)
    for folder, said in (
        ("newer", "format version 2.0"), ("damaged", "is damaged"), ("nowhere", "manifest.json"),
        ("unfinished", "4 of 4 shards are"),
    ):  # fmt: skip
        assert main(["report", str(tmp_path / folder)]) == 1
        printed = capsys.readouterr()
        assert said in printed.err
        assert len(printed.err.splitlines()) == 1
    with pytest.raises(UsageError, match="is a folder"):
        report(copy, tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        report(copy, tmp_path / "none" / "report.html")
    with pytest.raises(UsageError, match="does not exist"):
        report(copy, images=tmp_path / "gone")


def test_it_is_not_written_while_someone_writes(copy, tmp_path):
    import socket

    Layout(copy).work.mkdir()
    owner = {"host": f"not-{socket.gethostname()}", "pid": 1, "since": "now", "boot": "x"}
    Layout(copy).lock.write_text(json.dumps(owner))
    with pytest.raises(LockedError):
        report(copy)
    assert report(copy, tmp_path / "page.html").survey.written == 40


@pytest.mark.parametrize("name", [RUN_LOG, "notes.jsonl", "rejects.jsonl"])
def test_a_damaged_file_beside_is_a_sentence_and_nothing_else(copy, name):
    (copy / name).write_bytes(b"{]" * 50)
    found = report(copy)
    (error,) = found.survey.unread
    assert name in error
    assert found.survey.written == 40
    assert "A file cannot be read" in (copy / REPORT).read_text()


@pytest.mark.parametrize("name", [RUN_LOG, "notes.jsonl", "rejects.jsonl"])
def test_a_pipe_beside_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    found = report(copy)
    assert [error for error in found.survey.unread if name in error] == [*found.survey.unread]
    assert len(found.survey.unread) == (name != RUN_LOG)  # a log may be missing


@pytest.mark.parametrize(
    "line",
    [
        {"code": [], "names": [], "total": 1},
        {"code": "duplicate", "names": [{}], "total": 1},
        {"code": "duplicate", "names": ["a"], "total": float("nan")},
        {"code": "duplicate", "names": ["a"], "total": "<b>"},
    ],
)
def test_a_forged_note_is_a_sentence(copy, line):
    (copy / "notes.jsonl").write_text(json.dumps(line) + "\n")
    (error,) = report(copy).survey.unread
    assert "notes.jsonl" in error


def test_endless_notes_are_not_read(copy):
    (copy / "notes.jsonl").unlink()
    with open(copy / "notes.jsonl", "wb") as file:
        file.truncate(1 << 40)
    (error,) = report(copy).survey.unread
    assert "notes.jsonl" in error


@pytest.mark.parametrize("path", ["a\x00b.png", "a\x00/b.png", "\ud800.png"])
def test_a_reject_that_is_no_name_has_no_picture(copy, tmp_path, path):
    reject = {"path": path, "code": "decode_error", "detail": "x"}
    (copy / "rejects.jsonl").write_text(json.dumps(reject) + "\n")
    assert report(copy, images=tmp_path / "images").reject_pictures == {}


def test_a_hostile_log_is_shown_and_never_followed(copy, tmp_path):
    line = json.loads((copy / RUN_LOG).read_text())
    secret = tmp_path / "secret"
    write_image(secret / "cats" / "bad.jpg", 3, "JPEG")
    line["command"] = f"shardmill convert {secret} out; <script>alert(1)</script>"
    (copy / RUN_LOG).write_text(json.dumps(line) + "\n")
    found = report(copy)
    assert found.reject_pictures is None
    text = (copy / REPORT).read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


def test_a_damaged_shard_is_shown_as_damaged(copy):
    shard = next(copy.glob("train-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:100])
    found = report(copy)
    assert found.survey.records.damage
    assert "Records are damaged" in (copy / REPORT).read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_data_set_is_reported_elsewhere(copy, tmp_path):
    copy.chmod(0o500)
    with pytest.raises(DatasetError | OSError):
        report(copy)
    assert report(copy, tmp_path / "page.html")


def test_names_of_any_kind_are_inert_in_a_browser(tmp_path):
    names = [
        "<script>document.title='run'<\u2215script>", "قطط", "😀",
        "'\"><img src=x onerror=alert(1)>",
    ]  # fmt: skip
    for seed, name in enumerate(names * 3):
        write_image(tmp_path / "images" / name / f"{name[:20]} {seed}.png", seed)
    convert_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(image_size=(16, 16)))
    report(tmp_path / "out")
    url = (tmp_path / "out" / REPORT).as_uri()
    with open_browser(width=380) as browser:
        page = browser.open(url)
        assert page.title() == "out \u2013 report"
        assert browser.complaints == []
        assert [each for each in browser.requests if not each.startswith("data:")] == [url]
        assert page.locator("#samples figure img").count() == 12
        shown = page.eval_on_selector_all("#classes bdi", "all => all.map(e => e.textContent)")
        assert sorted(shown) == sorted(names)
