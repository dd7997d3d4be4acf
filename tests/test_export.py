"""A data set comes back as files, and converting those gives the same data set again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    convert_folder,
    encode_image,
    limit_memory,
    make_image,
    make_profile,
    write_image,
)
from exported import (
    COUNT,
    ENCODINGS,
    SIZE,
    TABLE,
    bring_back,
    convert_again,
    describe_dataset,
    list_tree,
    make_folder,
    make_table,
    read_features,
    read_stored,
    write_mask,
)
from PIL import Image

from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from pipelines import convert, export
from pipelines.cli.commands import main


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.mark.parametrize("name", ENCODINGS)
def test_class_folders_convert_to_the_same_pixels(name, tmp_path):
    out = make_folder(tmp_path, **ENCODINGS[name])
    again = bring_back(out, tmp_path)
    assert describe_dataset(again) == describe_dataset(out)
    assert read_manifest(again).classes == read_manifest(out).classes


@pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
def test_kept_images_keep_the_colours_of_their_profiles(kind, tmp_path):
    for seed in range(4):
        path = tmp_path / "images" / "ab"[seed % 2] / f"{seed}.jpg"
        write_image(path, seed, "JPEG", icc_profile=make_profile())
    options = {"resize": "none", "encoding": "keep", "color_profiles": "ignore"}
    convert_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(**options))
    result = export(tmp_path / "out", tmp_path / "export", kind=kind)
    again = convert_again(result.command, tmp_path / "again")
    assert sorted(read_stored(again, "train")) == sorted(read_stored(tmp_path / "out", "train"))


def test_stored_bytes_are_written_as_they_are(folder, tmp_path):
    export(folder, tmp_path / "export")
    written = [path.read_bytes() for path in (tmp_path / "export" / "train").rglob("*.*")]
    assert sorted(written) == sorted(read_stored(folder, "train"))


def test_paths_are_those_of_the_originals(folder, tmp_path):
    export(folder, tmp_path / "export")
    names = [name for name in list_tree(tmp_path / "export") if name != "labels.txt"]
    stems = {name.partition("/")[2].rpartition(".")[0] for name in names}
    originals = (folder.parent / "images").rglob("*.*")
    assert stems == {
        str(path.relative_to(folder.parent / "images").with_suffix("")) for path in originals
    }
    assert {Path(name).suffix for name in names} == {".JPEG", ".jpg"}


@pytest.mark.parametrize("encoding", ["png", "jpeg", "raw"])
def test_a_table_has_all_columns(encoding, tmp_path):
    out = make_table(tmp_path, encoding=encoding)
    again = bring_back(out, tmp_path)
    assert describe_dataset(again) == describe_dataset(out)
    assert read_manifest(again).classes == read_manifest(out).classes


def test_several_labels_come_back(tmp_path):
    options = {**TABLE, "label_column": None, "labels_column": "tags", "mask_column": None}
    out = make_table(tmp_path, **options)
    again = bring_back(out, tmp_path)
    assert describe_dataset(again) == describe_dataset(out)
    assert not read_manifest(again).labelled


def test_masks_of_a_folder_come_back(tmp_path):
    for seed in range(6):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
        mask = Image.fromarray(np.full((24, 32), seed, np.uint8))
        write_mask(tmp_path / "masks" / "ab"[seed % 2] / f"{seed}.png", mask)
    options = ConvertOptions(image_size=(12, 16), mask_dir="../masks", encoding="png")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    again = bring_back(tmp_path / "out", tmp_path)
    assert describe_dataset(again) == describe_dataset(tmp_path / "out")
    assert (tmp_path / "export" / "train" / "a" / "0.mask.png").exists()


def test_without_labels_there_are_no_class_folders(tmp_path):
    out = make_folder(tmp_path, label_from="none")
    again = bring_back(out, tmp_path)
    assert describe_dataset(again) == describe_dataset(out)
    assert not read_manifest(again).labelled
    assert not (tmp_path / "export" / "labels.txt").exists()


def test_frames_come_back_as_images_of_their_own(tmp_path):
    for number in range(4):
        frames = [make_image(4 * number + seed) for seed in range(3)]
        more = {"save_all": True, "append_images": frames[1:]}
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(frames[0], "GIF", **more))
    options = ConvertOptions(resize="none", encoding="keep", frames="all")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    result = export(tmp_path / "out", tmp_path / "export")
    assert (tmp_path / "export" / "train" / "a" / "0.gif#2.png").exists()
    again = convert_again(result.command, tmp_path / "again")
    assert len(describe_dataset(again)) == 12
    assert describe_dataset(again) == describe_dataset(tmp_path / "out")


def test_classes_of_inner_folders_and_splits_of_outer_ones_come_back(tmp_path):
    for seed in range(12):
        folder = f"{('training', 'dev', 'eval')[seed % 3]}/2024/{'ab'[seed % 2]}"
        write_image(tmp_path / "images" / folder / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(12, 12), label_from="parent")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    result = export(tmp_path / "out", tmp_path / "export")
    assert (tmp_path / "export" / "validation" / "b" / "dev" / "2024" / "b" / "1.jpg").exists()
    again = convert_again(result.command, tmp_path / "again")
    assert describe_dataset(again) == describe_dataset(tmp_path / "out")


def test_how_much_of_an_image_is_real_comes_back_as_columns(tmp_path):
    for seed in range(4):
        data = encode_image(make_image(seed, 200, 300), "JPEG")
        path = tmp_path / "images" / "ab"[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[: len(data) * (10 - seed) // 10])
    options = ConvertOptions(resize="none", encoding="keep", truncated="fill")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    again = bring_back(tmp_path / "out", tmp_path)
    before, after = (
        [row[:3] for row in describe_dataset(out)] for out in (tmp_path / "out", again)
    )
    assert before == after
    stored = sorted(row["image/decoded_rows"] for _, row in read_features(tmp_path / "out"))
    assert sorted(row["decoded_rows"] for _, row in read_features(again)) == stored
    assert stored[0][0] < stored[-1][0] == 200


def test_an_updated_data_set_comes_back(tmp_path):
    out = make_folder(tmp_path)
    for seed in range(100, 103):
        write_image(tmp_path / "images" / "new" / f"{seed}.png", seed)
    settings = {"image_size": SIZE, "validation_split": 0.3, "num_shards": 3}
    convert(tmp_path / "images", out, ConvertOptions(**settings), mode="update", workers=1)
    again = bring_back(out, tmp_path)
    assert len(describe_dataset(again)) == COUNT + 3
    assert describe_dataset(again) == describe_dataset(out)


def test_a_background_class_keeps_its_number(tmp_path):
    out = make_folder(tmp_path, label_offset=1)
    again = bring_back(out, tmp_path)
    assert describe_dataset(again) == describe_dataset(out)
    assert read_manifest(again).classes[0] == "background"


@pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
def test_one_split_alone(kind, folder, tmp_path):
    result = export(folder, tmp_path / "export", kind=kind, split="validation")
    assert list(result.splits) == ["validation"]
    assert result.splits["validation"].images == read_manifest(folder).splits["validation"].records
    names = list_tree(tmp_path / "export").keys() - {"labels.txt"}
    assert all(name.startswith("validation") for name in names)
    if kind == "folders":
        again = convert_again(result.command, tmp_path / "again")
        assert describe_dataset(again) == describe_dataset(folder, "validation")


@pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
def test_the_same_data_set_gives_the_same_bytes(kind, table, tmp_path, monkeypatch):
    first = export(table, tmp_path / "one", kind=kind)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    second = export(table, tmp_path / "other", kind=kind)
    assert list_tree(tmp_path / "one") == list_tree(tmp_path / "other")
    assert first.splits == second.splits


@pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
def test_neither_locale_nor_umask_changes_a_byte(kind, table, tmp_path):
    export(table, tmp_path / "here", kind=kind)
    latin = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Asia/Tokyo"}
    words = [sys.executable, "-m", "pipelines", "export", str(table), str(tmp_path / "there")]
    subprocess.run(
        [*words, "--as", kind, "--quiet"], env={**os.environ, **latin}, check=True, umask=0o077
    )
    assert list_tree(tmp_path / "there") == list_tree(tmp_path / "here")


@pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
def test_counts_are_those_of_the_files(kind, table, tmp_path):
    result = export(table, tmp_path / "export", kind=kind)
    tree = list_tree(tmp_path / "export")
    for split, files in result.splits.items():
        own = [data for name, data in tree.items() if name.startswith(split)]
        assert files.images == read_manifest(table).splits[split].records
        assert (files.files, files.bytes) == (len(own), sum(map(len, own)))
    marker = json.loads((tmp_path / "export" / ".shardmill-export.json").read_bytes())
    assert marker["splits"]["train"]["images"] == result.splits["train"].images


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_files_have_the_size_asked_for(kind, folder, tmp_path):
    result = export(folder, tmp_path / "export", kind=kind, shard_bytes=6_000)
    info = read_manifest(folder).splits["train"]
    assert result.splits["train"].files == -(-info.bytes // 6_000) > 1
    assert result.splits["train"].images == info.records


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "zip"}, "kind 'zip'"),
        ({"split": "all"}, "split 'all'"),
        ({"shard_bytes": 9}, "folders have no shards"),
        ({"shard_bytes": 0, "kind": "parquet"}, "shard bytes 0"),
        ({"on_damage": "ignore"}, "on damage 'ignore'"),
        ({"workers": 2}, "'workers' is unknown"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(settings, match, folder, tmp_path):
    with pytest.raises(UsageError, match=match):
        export(folder, tmp_path / "export", **settings)
    assert not (tmp_path / "export").exists()


def run(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def test_the_command_prints_counts_and_how_to_convert_again(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "export", "--no-progress") == 0
    printed, errors = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith(f"exported {COUNT} images in {COUNT} files")
    assert [line.split()[0] for line in lines[1:3]] == ["train", "validation"]
    command = lines[3].partition("again: ")[2]
    assert errors == ""
    again = convert_again(command, tmp_path / "again")
    assert describe_dataset(again) == describe_dataset(folder)


def test_the_command_can_cut_tars_by_size(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "export", "--as", "webdataset", "--shard-size", "5kB") == 0
    assert capsys.readouterr().err == ""
    assert len(list((tmp_path / "export").glob("train-*.tar"))) > 2


def test_quiet_prints_nothing_and_json_one_object(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "one", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run(folder, tmp_path / "two", "--json", "--as", "parquet", "--split", "train") == 0
    printed, errors = capsys.readouterr()
    found = json.loads(printed)
    assert (found["kind"], errors, found["splits"].keys()) == ("parquet", "", {"train"})
    assert found["damaged"] == {"records": 0, "errors": []}
    assert found["folder"] == str(tmp_path / "two")


def test_damaged_records_are_named(tmp_path, capsys):
    out = make_folder(tmp_path)
    shard = read_manifest(out).shards[0]
    data = bytearray((out / shard.name).read_bytes())
    data[-9] ^= 1
    (out / shard.name).write_bytes(data)
    assert run(out, tmp_path / "export") == 1
    assert f"{shard.name}: damaged record" in capsys.readouterr().err
    assert run(out, tmp_path / "export", "--on-damage", "skip", "--no-progress") == 0
    printed = capsys.readouterr().out
    assert "left out   1 damaged record" in printed
    assert f"{shard.name}: damaged record" in printed


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["{out}"], "FOLDER"),
        (["{out}", "{new}", "--as", "zip"], "'zip'"),
        (["{out}", "{new}", "--shard-size", "5 apples"], "'5 apples' is not a size"),
        (["{out}", "{new}", "--shard-size", "5MB"], "folders have no shards"),
        (["{out}", "{new}", "--split", "all"], "split 'all'"),
        (["{out}", "{new}", "--spilt", "all"], "--split"),
        (["{out}", "{out}"], "inside the data set"),
        (["{out}", ""], "a path is empty"),
        (["{out}", "{new}", "--json", "--quiet"], "not allowed with"),
    ],
)
def test_wrong_usage_is_one_line(arguments, shown, folder, tmp_path, capsys):
    code = run(*(word.format(out=folder, new=tmp_path / "new") for word in arguments))
    printed, errors = capsys.readouterr()
    assert (code, errors.count("\n")) == (2, 1)
    assert bool(printed) is ("--json" in arguments)  # as an object, too
    assert shown in errors
    assert not (tmp_path / "new").exists()


def test_data_sets_of_several_sizes_are_pointed_to(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "sizes" / "24x32")
    assert run(tmp_path / "sizes", tmp_path / "export") == 2
    assert "24x32" in capsys.readouterr().err


def test_exporting_loads_neither_beam_nor_tensorflow(folder, tmp_path):
    script = (
        "import sys; from pipelines.cli.commands import main; "
        "code = main(['export', *sys.argv[1:]]); "
        "sys.exit(code or bool({'apache_beam', 'tensorflow', 'pyarrow'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", script, str(folder), str(tmp_path / "export"), "--quiet"]
    assert subprocess.run(words, check=False).returncode == 0


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Of 60 MB of pixels, an export holds a few images."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 577, 577, 3), np.uint8)
    for number, pixels in enumerate(noise):
        path = tmp_path / "images" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=0)
    options = ConvertOptions(resize="none", encoding="keep", shard_bytes=200_000_000)
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    for kind in ("folders", "webdataset", "parquet"):
        export(tmp_path / "out", tmp_path / f"warm-{kind}", kind=kind)
        # pyarrow's own memory is not traced: 8 MiB of a row group.
        with limit_memory(30_000_000):
            export(tmp_path / "out", tmp_path / kind, kind=kind)
