"""Verification: whatever happens to a file of a data set is found, and the file is named."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, make_image

from converter.errors import DatasetError
from converter.indexes import name_index
from converter.manifest import Manifest, read_manifest
from converter.options import ConvertOptions
from converter.verification import Fault, verify_dataset

FILES = [
    "dataset_info.json",
    "features.json",
    "image.class.label.labels.txt",
    "labels.txt",
    "manifest.json",
    "rejects.jsonl",
    "train-00000-of-00002.tfindex",
    "train-00000-of-00002.tfrecord",
    "train-00001-of-00002.tfindex",
    "train-00001-of-00002.tfrecord",
]
ONE, TWO = "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 images of 2x2 pixels in 2 shards; read only."""
    images = tmp_path_factory.mktemp("images")
    for seed in range(6):
        (images / "ab"[seed % 2]).mkdir(exist_ok=True)
        image = encode_image(make_image(seed, 2, 2), "PNG")
        (images / "ab"[seed % 2] / f"{seed}.png").write_bytes(image)
    (images / "skipped.png").touch()
    out = tmp_path_factory.mktemp("tiny") / "set"
    convert_folder(images, out, ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=2))
    return out


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def find_files(folder: Path) -> set[str]:
    """The files that faults are reported of; a damaged manifest is an error of its own."""
    try:
        return {fault.file for fault in verify_dataset(folder)}
    except DatasetError as error:
        return {"manifest.json"} if f"{folder}/manifest.json is " in str(error) else set()


def vouch(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest` with the hashes of what lies there, as whoever wants to harm would do."""
    shards = []
    for shard in manifest.shards:
        data, index = ((folder / n).read_bytes() for n in (shard.name, name_index(shard.name)))
        shards.append(
            dataclasses.replace(
                shard,
                sha256=hashlib.sha256(data).hexdigest(),
                index_bytes=len(index),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
    manifest = dataclasses.replace(manifest, shards=tuple(shards))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


def test_a_whole_data_set_has_no_fault(tiny, converted):
    assert sorted(path.name for path in tiny.iterdir()) == FILES
    assert verify_dataset(tiny) == []
    assert verify_dataset(converted) == []


def test_shards_are_announced_in_order(converted):
    announced = []
    verify_dataset(converted, on_shard=announced.append)
    assert announced == list(read_manifest(converted).shards)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_found_in_their_file(copy, name):
    path = copy / name
    data = path.read_bytes()
    # Every byte of the short files, every seventh of the others, and each bit of a byte in turn.
    for number, position in enumerate(range(0, len(data), 1 if len(data) < 300 else 7)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << number % 8
        path.write_bytes(damaged)
        assert find_files(copy) == {name}, position


@pytest.mark.parametrize("name", FILES)
def test_cuts_and_additions_are_found_in_their_file(copy, name):
    path = copy / name
    data = path.read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert find_files(copy) == {name}, size
    path.write_bytes(data + b"\n")
    assert find_files(copy) == {name}


@pytest.mark.parametrize("name", sorted(set(FILES) - {"manifest.json"}))
def test_a_missing_file_is_found(copy, name):
    (copy / name).unlink()
    assert verify_dataset(copy) == [Fault(name, "is missing")]


def test_a_missing_manifest_is_an_error(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"is no finished data set: there is no manifest\.json"):
        verify_dataset(copy)


@pytest.mark.parametrize(
    "name", ["train-00002-of-00003.tfrecord", "notes.txt", "manifest.json.bak", ".hidden", "ü"]
)
def test_an_extra_file_is_found(copy, name):
    (copy / name).touch()
    assert verify_dataset(copy) == [Fault(name, "does not belong to the data set")]


def test_a_left_over_work_folder_is_found(copy):
    (copy / ".shardmill").mkdir()
    assert verify_dataset(copy) == [Fault(".shardmill", "is left over from a conversion")]


@pytest.mark.parametrize("suffixes", [(".tfrecord",), (".tfrecord", ".tfindex")])
def test_swapped_shards_are_found(copy, suffixes):
    for suffix in suffixes:
        one, two = (Path(copy / name).with_suffix(suffix) for name in (ONE, TWO))
        one.rename(copy / "aside")
        two.rename(one)
        (copy / "aside").rename(two)
    assert {ONE, TWO} <= find_files(copy)


def test_the_index_of_another_shard_is_found(copy):
    source = copy / name_index(TWO)
    source.write_bytes(source.read_bytes().replace(b"0 ", b"1 ", 1))
    shutil.copy(source, copy / name_index(ONE))
    assert find_files(copy) == {name_index(ONE), name_index(TWO)}


def test_a_file_of_another_run_is_found(copy, tiny):
    (copy / "labels.txt").write_bytes(b"b\na\n")
    detail = "its checksum does not match: bytes were changed"
    assert verify_dataset(copy) == [Fault("labels.txt", detail)]
    shutil.copy(tiny / "labels.txt", copy / "labels.txt")
    assert verify_dataset(copy) == []


def test_a_folder_in_place_of_a_file_is_found(copy):
    (copy / ONE).unlink()
    (copy / ONE).mkdir()
    assert find_files(copy) == {ONE}


def test_a_damaged_record_is_named(copy):
    path = copy / ONE
    data = bytearray(path.read_bytes())
    start = int((copy / name_index(ONE)).read_bytes().splitlines()[1].split()[0])
    data[start + 20] ^= 1
    path.write_bytes(data)
    assert verify_dataset(copy) == [
        Fault(ONE, "its checksum does not match: bytes were changed"),
        Fault(
            ONE,
            f"damaged record at byte {start} (record 1): checksum of the payload does not match",
        ),
    ]


def test_an_index_that_the_manifest_vouches_for_is_compared_all_the_same(copy):
    lines = (copy / name_index(ONE)).read_bytes().splitlines()
    sizes = [int(line.split()[1]) for line in lines]
    wrong = [sizes[0] + 1, sizes[1] - 1, *sizes[2:]]
    offsets = [sum(wrong[:number]) for number in range(len(wrong))]
    (copy / name_index(ONE)).write_text(
        "".join(f"{offset} {size}\n" for offset, size in zip(offsets, wrong, strict=True))
    )
    vouch(copy, read_manifest(copy))
    assert verify_dataset(copy) == [
        Fault(name_index(ONE), "does not match the records of its shard")
    ]
    (copy / name_index(ONE)).write_bytes(b"no index\n")
    vouch(copy, read_manifest(copy))
    assert verify_dataset(copy) == [Fault(name_index(ONE), "b'no index' is not a line of an index")]


def test_records_that_the_manifest_vouches_for_are_checked_all_the_same(copy):
    data = bytearray((copy / ONE).read_bytes())
    data[-1] ^= 1
    (copy / ONE).write_bytes(data)
    vouch(copy, read_manifest(copy))
    [fault] = verify_dataset(copy)
    assert fault.file == ONE
    assert fault.detail.endswith("(record 2): checksum of the payload does not match")


def test_records_are_counted(copy):
    manifest = read_manifest(copy)
    one, two = manifest.shards
    shards = (dataclasses.replace(one, records=2), dataclasses.replace(two, records=4))
    vouch(copy, dataclasses.replace(manifest, shards=shards))
    assert verify_dataset(copy) == [
        Fault(ONE, "holds 3 records, expected 2"),
        Fault(TWO, "holds 3 records, expected 4"),
    ]


def test_every_fault_is_listed_in_the_order_of_the_manifest(copy):
    (copy / ONE).unlink()
    (copy / name_index(TWO)).write_bytes(b"")
    (copy / "labels.txt").unlink()
    (copy / "extra").touch()
    assert [fault.file for fault in verify_dataset(copy)] == [
        ONE, name_index(TWO), "labels.txt", "extra",
    ]  # fmt: skip
