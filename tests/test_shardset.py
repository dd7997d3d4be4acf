"""Opening a data set: what is known from the manifest, and what has to lie there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converter import DatasetError, UsageError
from converter.format.manifest import SplitInfo
from converter.names import show_name
from converter.storage.disk import DiskPath
from reader import ReadOptions, ShardSet, load_dataset, mix_datasets, open_shards, open_tfrecords


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy of the data set that a test may change."""
    return shutil.copytree(converted, tmp_path / "set")


def run_without_tensorflow(script: str, *arguments: object) -> str:
    """The output of a script in a process where TensorFlow is not installed."""
    blocker = """if True:
        import sys
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("tensorflow", "keras"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
    """
    command = [sys.executable, "-c", f"{blocker}\n{script}", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_a_data_set_says_what_it_holds(converted):
    shards = open_shards(converted)
    content = json.loads((converted / "manifest.json").read_bytes())
    assert shards.class_names == ["ant", "bee", "cat with hat"]
    assert shards.splits == {
        name: SplitInfo(
            records=split["records"],
            bytes=split["bytes"],
            shards=split["shards"],
            labels=tuple(split["labels"]),
        )
        for name, split in content["splits"].items()
    }
    assert list(shards.splits) == ["train", "validation"]


def test_a_data_set_is_shown_as_one_line(converted):
    shards = open_shards(converted)
    held = "train 52 records, validation 20; 3 classes; 16x20 png"
    assert repr(shards) == f"ShardSet('{show_name(str(converted))}': {held})"
    deep = ShardSet(DiskPath("/") / ("x" * 200) / "set", shards.manifest)
    assert repr(deep) == f"ShardSet('…{'x' * 115}/set': {held})"


def test_opening_reads_nothing_but_the_manifest(damaged):
    for path in damaged.glob("train-*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert open_shards(damaged).splits["train"].records > 0


def test_changing_the_list_of_class_names_does_not_change_the_data_set(converted):
    shards = open_shards(converted)
    shards.class_names.clear()
    assert shards.class_names == ["ant", "bee", "cat with hat"]


@pytest.mark.parametrize("convert", [str, Path])
def test_a_relative_folder_stays_the_same_folder(converted, monkeypatch, convert):
    monkeypatch.chdir(converted.parent)
    shards = open_shards(convert(converted.name))
    monkeypatch.chdir("/")
    assert shards == ShardSet(converted, shards.manifest)
    assert shards.source("train")[0].format == "png"


@pytest.mark.parametrize("open_folder", [open_shards, load_dataset])
def test_a_folder_without_a_manifest_is_no_data_set(damaged, open_folder):
    (damaged / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=f"^{damaged} is no finished"):
        open_folder(damaged)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda at: load_dataset(at, batch_size="64"), "batch_size '64' is not a whole number: at"),
        (lambda at: load_dataset(at, seed=1.5), "seed 1.5 is not a whole number: 0 to"),
        (lambda at: load_dataset(at, image_size="big"), "image_size 'big' is not a pair (height"),
        (lambda at: load_dataset(at, subset=["train"]), "subset ['train'] is unknown: choose one"),
        (lambda at: load_dataset(at, input_context=2), "input_context 2 is not a tf.distribute.In"),
        (lambda at: load_dataset(at, cache_bytes=1.5), "cache_bytes 1.5 is not a whole number: at"),
        (
            lambda at: open_shards(at).dataset("train", {"batch_size": 4}),
            "options {'batch_size': 4} is not ReadOptions(…), nor None",
        ),
        (lambda at: mix_datasets([at]), "weights [DiskPath("),
        (lambda at: open_tfrecords(5), "files 5 is not a path or a list of paths"),
        (lambda at: open_tfrecords([at, 5]), "files [DiskPath("),
        (lambda at: open_tfrecords(at, ["x"]), "features ['x'] is not a dict, as for tf.io.parse"),
        (
            lambda at: open_shards(at).source("train")["a.png"],
            "record 'a.png' is not a number",
        ),
        (lambda at: open_shards(at).source("train")[1.5], "record 1.5 is not a number: give one"),
        (
            lambda at: open_shards(at).source("train").by_id(7),
            "source_id 7 is not a path, as",
        ),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused_in_one_line(converted, ask, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}") as error:
        ask(converted)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ReadOptions.__dataclass_fields__)
def test_no_option_takes_an_object_of_any_type(option):
    for value in (object(), [object()], np.zeros(3)):
        with pytest.raises(UsageError, match=option.removeprefix("validation_")):
            ReadOptions(**{option: value})


@pytest.mark.parametrize("split", ["test", 5, None, ["train"], {}])
@pytest.mark.parametrize("method", [ShardSet.source, ShardSet.dataset, ShardSet.class_weight])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(converted, method, split):
    message = f"^no split {re.escape(repr(split))}: .* train, validation$"
    with pytest.raises(DatasetError, match=message):
        method(open_shards(converted), split)


@pytest.mark.parametrize("method", [ShardSet.source, ShardSet.dataset])
@pytest.mark.parametrize("suffix", ["tfrecord", "tfindex"])
def test_a_missing_file_is_found_at_opening(damaged, method, suffix):
    path = damaged / f"train-00001-of-00003.{suffix}"
    path.unlink()
    with pytest.raises(DatasetError, match=f"^{path} is missing$"):
        method(open_shards(damaged), "train")


@pytest.mark.parametrize("method", [ShardSet.source, ShardSet.dataset])
@pytest.mark.parametrize("suffix", ["tfrecord", "tfindex"])
@pytest.mark.parametrize("change", ["last record", "last byte", "everything", "one byte more"])
def test_a_file_of_another_size_is_found_at_opening(damaged, method, suffix, change):
    path = damaged / f"train-00001-of-00003.{suffix}"
    data = path.read_bytes()
    last_line = path.with_suffix(".tfindex").read_text().splitlines()[-1]
    # Cut before the last record, a shard is a valid TFRecord file: only its size tells.
    last_record = {"tfrecord": int(last_line.split()[1]), "tfindex": len(last_line) + 1}[suffix]
    path.write_bytes(
        {
            "last record": data[:-last_record],
            "last byte": data[:-1],
            "everything": b"",
            "one byte more": data + b"\0",
        }[change]
    )
    found = path.stat().st_size
    with pytest.raises(
        DatasetError, match=f"^{re.escape(str(path))} has {found} bytes, expected {len(data)}: "
    ):
        method(open_shards(damaged), "train")


def test_a_folder_in_the_place_of_a_shard_is_found_at_opening(damaged):
    path = damaged / "train-00001-of-00003.tfrecord"
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        open_shards(damaged).dataset("train")


def test_a_missing_shard_is_found_when_the_data_set_is_opened(damaged):
    path = damaged / "train-00001-of-00003.tfrecord"
    path.unlink()
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))} is missing$"):
        open_shards(damaged)


def test_class_weights_make_all_classes_count_the_same(converted):
    shards = open_shards(converted)
    counts = shards.splits["train"].labels
    weights = shards.class_weight("train")
    assert {round(weight * counts[label], 9) for label, weight in weights.items()} == {
        round(sum(counts) / 3, 9)
    }


def test_a_damaged_shard_is_found_before_tensorflow_is_even_imported(damaged):
    (damaged / "train-00002-of-00003.tfrecord").unlink()
    script = """if True:
        from converter import DatasetError
        from reader import load_dataset
        try:
            load_dataset(sys.argv[1])
        except DatasetError as error:
            print(error)
    """
    path = damaged / "train-00002-of-00003.tfrecord"
    assert run_without_tensorflow(script, damaged) == f"{path} is missing\n"


def test_without_tensorflow_the_error_says_what_to_install(converted):
    script = """if True:
        from converter import ShardmillError
        from reader import load_dataset, open_tfrecords
        asked = (
            lambda: load_dataset(sys.argv[1]),
            lambda: load_dataset(sys.argv[1], serializable=True),
            lambda: open_tfrecords(f"{sys.argv[1]}/train-*").dataset(),
        )
        for ask in asked:
            try:
                ask()
            except ShardmillError as error:
                print(type(error).__name__, error, sep=": ")
    """
    assert run_without_tensorflow(script, converted) == 3 * (
        "ShardmillError: reading as a tf.data.Dataset needs TensorFlow: pip install tensorflow\n"
    )
