"""Conversions from and to object stores: the same bytes as here, whatever happens on the way."""

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from conftest import convert_folder, drop_companions, write_folder, write_image
from servers import Server, upload_tree

from converter.commits import receipts
from converter.commits.commit import commit, list_finished
from converter.commits.receipts import ReceiptReader
from converter.commits.replacements import clean, replace_dataset, settle_folder
from converter.errors import OutputError, StoreError, UsageError
from converter.format.metadata import describe_dataset
from converter.options import ConvertOptions
from converter.planning.plan import Plan, Shard, read_plan, write_plan
from converter.sources.originals import read_ahead
from converter.sources.scan import scan_images
from converter.storage import gcs, object_requests, s3
from converter.storage.files import Layout, name_index
from converter.storage.location import Location
from converter.storage.object_requests import create_object, list_objects, put_object
from converter.storage.objects import ObjectPath
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import Job, read_receipt, receipt_path, write_shard
from pipelines import convert, verify
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose

OPTIONS = ConvertOptions(source="folders", image_size=(24, 24), num_shards=3, validation_split=0.25)
OTHER = ConvertOptions(source="folders", image_size=(16, 16), num_shards=2)
FLAGS = ("--image-size=24", "--num-shards=3", "--validation-split=0.25", "--no-progress")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, an image twice, one that is none, and what the rules leave out."""
    root = tmp_path_factory.mktemp("images")
    for number in range(8):
        write_image(root / "ant" / f"{number}.png", number)
        write_image(root / "bee é" / "deep" / f"{number} #%.png", 50 + number)
    write_image(root / "bee é" / "twin.png", 3)
    (root / "ant" / "bad.jpg").write_bytes(b"no image")
    (root / "ant" / "empty.png").write_bytes(b"")
    (root / "ant" / "letter.txt").write_bytes(b"text")
    (root / "ant-b.png").write_bytes(b"beside")
    for name in (".git/a/b.png", "ant/.hidden.png", "ant/@eaDir/x.png", "cat/Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"clutter")
    return root


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data set that the folder gives."""
    out = tmp_path_factory.mktemp("expected") / "out"
    convert_folder(images, out, OPTIONS)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def written(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion that is finished but for the commit."""
    out = tmp_path_factory.mktemp("written") / "out"
    write(images, out)
    return out


@pytest.fixture
def plan(server: Server, written: Path) -> Plan:
    """The same conversion in a store."""
    return read_plan(upload_tree(written, new_out(server)))


@pytest.fixture
def stored(server: Server, images: Path) -> ObjectPath:
    """The same images in a store."""
    return upload_tree(images, server.path("images"))


def read_tree(out: Location) -> dict[str, bytes]:
    if isinstance(out, Path):
        return drop_companions({path.name: path.read_bytes() for path in out.iterdir()})
    found = {path.relative_to(out): path.read_bytes() for path, _ in list_objects(out)}
    return drop_companions(found)


def new_out(server: Server) -> ObjectPath:
    return server.path(uuid.uuid4().hex)


def write(images: Location, out: Location) -> Plan:
    """All of a conversion but Beam and the commit."""
    plan = plan_only(images, out)
    job = Job(images=images, out=out, options=OPTIONS, columns=plan.columns)
    for shard in plan.shards:
        write_shard(shard, job)
    return plan


def plan_only(images: Location, out: Location) -> Plan:
    draft = propose(images, OPTIONS, always_sample=False).draft
    return write_plan(draft, OPTIONS, images=images, out=out)


def test_a_prefix_is_scanned_as_a_folder_is(stored, images):
    assert scan_images(stored, OPTIONS) == scan_images(images, OPTIONS)


def test_images_of_a_store_give_the_same_data_set_here(stored, expected, tmp_path):
    commit(write(stored, tmp_path / "out"))
    assert read_tree(tmp_path / "out") == expected


def test_a_folder_gives_the_same_data_set_in_a_store(server, images, expected):
    out = new_out(server)
    commit(write(images, out))
    assert read_tree(out) == expected


def test_faults_on_the_way_change_no_byte(server, stored, expected):
    out = new_out(server)
    server.set_faults(faults=0.3, kinds="refuse,reset,cut,short,lose", seed=9)
    commit(write(stored, out))
    counts = server.set_faults()
    assert all(counts[kind] > 0 for kind in ("refuse", "reset", "cut", "short", "lose"))
    assert read_tree(out) == expected


def test_many_images_are_asked_for_at_the_same_time(server, stored, images):
    planned = [(entry, "") for entry in scan_images(stored, OPTIONS).entries]
    server.set_faults(latency=0.2)
    begun = time.monotonic()
    reading = read_ahead(planned, stored, stored, 1 << 20)
    read = [(item[0].path, reads.image()) for item, reads in reading]
    seconds = time.monotonic() - begun
    assert read == [(entry.path, (images / entry.path).read_bytes()) for entry, _ in planned]
    assert seconds < 0.4 * 0.2 * len(planned)


def test_no_more_is_read_ahead_than_there_is_room_for(server, stored, monkeypatch):
    monkeypatch.setattr("converter.sources.originals.AHEAD_BYTES", 1)
    planned = [(entry, "") for entry in scan_images(stored, OPTIONS).entries]
    server.set_faults()
    reading = read_ahead(planned, stored, stored, 1 << 20)
    next(reading)[1].image()
    assert server.set_faults()["GET"] == 1
    reading.close()


def test_an_image_that_is_gone_by_now_is_left_out(server, images):
    out, prefix = new_out(server), upload_tree(images, server.path(uuid.uuid4().hex))
    plan = plan_only(prefix, out)
    (prefix / "ant" / "0.png").unlink()
    put_object(prefix / "ant" / "1.png", b"changed")
    job = Job(images=prefix, out=out, options=OPTIONS)
    receipts = [write_shard(shard, job) for shard in plan.shards]
    rejects = [reject for receipt in receipts for reject in receipt.rejects]
    assert {reject["path"]: reject["code"] for reject in rejects} == {
        "ant/0.png": "vanished",
        "ant/1.png": "changed",
        "ant/bad.jpg": "not_an_image",
        "ant/empty.png": "empty",
    }


def test_finished_shards_are_known_by_receipt_and_checksum(plan):
    out = plan.out
    assert list_finished(plan) == list(plan.shards)
    name, other = plan.shards[0].name, plan.shards[1].name
    data = (out / name).read_bytes()
    put_object(out / name, data[:-1] + bytes([data[-1] ^ 1]))
    (out / other).unlink()
    assert list_finished(plan) == list(plan.shards[2:])


RAW = ConvertOptions(source="folders", image_size=(200, 300), encoding="raw", num_shards=4)


@pytest.fixture
def sent(server: Server, images: Path) -> Plan:
    """Three megabytes in four shards that were written into a store."""
    draft = propose(images, RAW, always_sample=False).draft
    plan = write_plan(draft, RAW, images=images, out=new_out(server))
    for shard in plan.shards:
        write_shard(shard, Job.of_plan(plan))
    return plan


def resume(server: Server, plan: Plan) -> tuple[list[Shard], dict[str, int]]:
    """The shards that need not be written again, and what it took to find out."""
    server.set_faults()
    finished = list_finished(plan)
    return finished, server.set_faults()


def test_what_a_store_says_of_a_shard_is_believed_and_no_shard_is_read(server, sent):
    sizes = sent.out.list_sizes()
    finished, asked = resume(server, sent)
    assert finished == list(sent.shards)
    assert asked["GET"] == 2 + len(sent.shards)  # two listings, and a receipt a shard
    assert (
        sum(asked[method] for method in ("HEAD", "PUT", "POST", "DELETE") if method in asked) == 0
    )
    assert asked["bytes"] < 20_000 < 3_000_000 < sum(sizes.values())
    states = sent.out.list_states()
    assert {name: size for name, (size, _) in states.items()} == sizes
    receipt = read_receipt(receipt_path(Layout(sent.out), sent.shards[0]))
    assert states[sent.shards[0].name] == (receipt.bytes, receipt.tag)
    assert states[name_index(sent.shards[0].name)] == (receipt.index_bytes, receipt.index_tag)


@pytest.mark.parametrize("name", [str, name_index], ids=["shard", "index"])
def test_a_shard_that_was_changed_in_the_store_is_not_finished(server, sent, name):
    path = sent.out / name(sent.shards[1].name)
    data = path.read_bytes()
    put_object(path, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    finished, _ = resume(server, sent)
    assert finished == [sent.shards[0], *sent.shards[2:]]
    put_object(path, data)  # the very same bytes again
    assert resume(server, sent)[0] == list(sent.shards)


def test_a_shard_of_which_a_store_says_nothing_is_read(server, sent, monkeypatch):
    for module in (s3, gcs):
        monkeypatch.setattr(module, "_read_tag", lambda _: "")
    finished, asked = resume(server, sent)
    assert finished == list(sent.shards)
    assert asked["bytes"] > sum(sent.out.list_sizes().values()) > 3_000_000
    path = sent.out / sent.shards[1].name
    data = path.read_bytes()
    put_object(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert resume(server, sent)[0] == [sent.shards[0], *sent.shards[2:]]


def test_a_shard_of_which_a_store_says_something_else_is_read(s3_server, images, monkeypatch):
    monkeypatch.setattr(s3.S3Store, "max_put_bytes", 1 << 20)
    out = new_out(s3_server)
    options = dataclasses.replace(RAW, num_shards=1)
    draft = propose(images, options, always_sample=False).draft
    plan = write_plan(draft, options, images=images, out=out)
    for shard in plan.shards:
        write_shard(shard, Job.of_plan(plan))
    tags = {name: tag for name, (_, tag) in out.list_states().items() if "-" in tag}
    assert tags  # an object that was sent in parts has no MD5 of the whole
    finished, asked = resume(s3_server, plan)
    assert (finished, asked["bytes"] < 20_000) == (list(plan.shards), True)
    # As a tool that copies objects leaves it: the same bytes, in one part.
    monkeypatch.undo()
    for name in tags:
        put_object(out / name, (out / name).read_bytes())
    finished, asked = resume(s3_server, plan)
    assert (finished, asked["bytes"] > 1 << 20) == (list(plan.shards), True)


def test_a_weak_tag_and_none_say_nothing():
    said = ('"9af-3"', "9af", 'W/"9af"', None)
    assert [s3._read_tag({"ETag": tag} if tag else {}) for tag in said] == ["9af-3", "9af", "", ""]
    assert [gcs._read_tag(item) for item in ({"md5Hash": "x="}, {"md5Hash": None}, {})] == [
        "x=", "", "",
    ]  # fmt: skip


def test_an_answer_that_was_lost_costs_no_reading_either(server, images, monkeypatch):
    out = new_out(server)
    server.set_faults(faults=0.3, kinds="lose,refuse", only="tf", seed=3)
    draft = propose(images, RAW, always_sample=False).draft
    plan = write_plan(draft, RAW, images=images, out=out)
    for shard in plan.shards:
        write_shard(shard, Job.of_plan(plan))
    finished, asked = resume(server, plan)
    assert (finished, asked["bytes"] < 20_000) == (list(plan.shards), True)


def test_merged_receipts_take_few_requests(server, sent, monkeypatch):
    monkeypatch.setattr(receipts, "MERGED_RECEIPTS", 2)
    reader = ReceiptReader(Layout(sent.out), sent.shards)
    server.set_faults()
    assert len(list(reader.read_new())) == 4
    asked = server.set_faults()
    assert (asked["GET"], asked["DELETE"]) == (1 + 4, 4)
    assert list(reader.read_new()) == []
    assert server.set_faults()["GET"] == 1
    finished, asked = resume(server, sent)
    assert (finished, asked["GET"]) == (list(sent.shards), 2 + 2)
    manifest = commit(sent)
    assert [shard.name for shard in manifest.shards] == [shard.name for shard in sent.shards]
    assert verify_dataset(sent.out) == []


def test_of_two_commits_one_wins(plan, monkeypatch):
    def lose_race(*arguments, **more):
        put_object(Layout(plan.out).manifest, b"of the winner")
        return describe_dataset(*arguments, **more)

    monkeypatch.setattr("converter.commits.commit.describe_dataset", lose_race)
    with pytest.raises(OutputError, match=r"manifest\.json exists already"):
        commit(plan)
    assert Layout(plan.out).manifest.read_bytes() == b"of the winner"


def test_verify_finds_what_is_wrong_in_a_store(plan, images, stored):
    out = plan.out
    commit(plan)
    assert verify_dataset(out, originals=stored) == []
    assert verify_dataset(out, quick=True) == []
    names = [shard.name for shard in plan.shards]
    data = bytearray((out / names[0]).read_bytes())
    data[100] ^= 1
    put_object(out / names[0], bytes(data))
    (out / names[1]).unlink()
    put_object(out / "letter.txt", b"foreign")
    (stored / "ant" / "5.png").unlink()
    put_object(stored / "ant" / "5.png", (images / "ant" / "6.png").read_bytes())
    found = {(fault.file, fault.detail.partition(":")[0]) for fault in verify_dataset(out)}
    put_object(stored / "ant" / "5.png", (images / "ant" / "5.png").read_bytes())
    assert (names[0], "its checksum does not match") in found
    assert (names[1], "is missing") in found
    assert ("letter.txt", "does not belong to the data set") in found
    quick = verify_dataset(out, quick=True)
    assert {fault.file for fault in quick} == {names[1], "letter.txt"}


def test_verify_as_a_job_finds_in_a_store_what_threads_find(plan):
    out, local = plan.out, ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
    commit(plan)
    assert verify(out, beam_args=local) == []
    data = bytearray((out / plan.shards[0].name).read_bytes())
    data[100] ^= 1
    put_object(out / plan.shards[0].name, bytes(data))
    (out / name_index(plan.shards[1].name)).unlink()
    faults = verify(out, beam_args=local)
    assert faults == verify_dataset(out)
    assert {fault.file for fault in faults} >= {
        plan.shards[0].name, name_index(plan.shards[1].name),
    }  # fmt: skip


def test_what_was_left_behind_is_removed_on_demand(plan):
    out = plan.out
    put_object(Layout(out).lock, b"{}")
    with pytest.raises(UsageError, match="neither a data set"):
        clean(out / "nothing")
    clean(out, break_lock=True)
    assert list_finished(plan) == list(plan.shards)
    clean(out, unfinished=True)
    assert not out.exists()


def test_an_outage_in_the_middle_is_one_line(server, stored, monkeypatch):
    out = new_out(server)
    plan = plan_only(stored, out)
    # On a busy machine a second is too little for the requests that are not refused.
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "4")
    server.set_faults(faults=1, kinds="refuse", only="ant")
    with pytest.raises(StoreError, match=r"images/ant/.* cannot be reached for") as caught:
        for shard in plan.shards:
            write_shard(shard, Job(images=stored, out=out, options=OPTIONS))
    assert "\n" not in str(caught.value)
    assert not Layout(out).manifest.exists()


@pytest.fixture(scope="module")
def other(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set of the same images, with its plan."""
    out = tmp_path_factory.mktemp("other") / "out"
    commit(write_folder(images, out, OTHER), keep_work=True)
    return out


def stage(other: Path, out: ObjectPath) -> dict[str, bytes]:
    """Puts a data set where it waits to take the place of the one in `out`; what it is."""
    upload_tree(other, Layout(out).stage)
    return {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()}


@pytest.mark.parametrize("calls", [1, 2, 3, 4, None])
def test_a_replacement_goes_on_wherever_it_was_killed(
    s3_server, written, other, monkeypatch, calls
):
    s3_server.set_faults()
    out = upload_tree(written, new_out(s3_server))
    commit(read_plan(out))
    put_object(out / "letter.txt", b"foreign")
    old = read_tree(out)
    new = stage(other, out)
    steps = itertools.count(1)

    def die(do):
        def step(*arguments):
            if next(steps) == calls:
                raise KeyboardInterrupt
            do(*arguments)

        return step

    for name in ("remove_files", "copy_files", "remove_tree"):
        monkeypatch.setattr(ObjectPath, name, die(getattr(ObjectPath, name)))
    monkeypatch.setattr(object_requests, "create_object", die(create_object))
    with contextlib.suppress(KeyboardInterrupt):
        replace_dataset(out)
    tree = read_tree(out)
    whole = {"manifest.json": b"", **tree}["manifest.json"]
    if whole:
        wanted = new if whole == new["manifest.json"] else old
        assert wanted.items() <= tree.items()
    assert settle_folder(out) is (calls is not None)
    assert read_tree(out) == {**new, "letter.txt": b"foreign"}
    assert not Layout(out).stage.exists()


def test_a_foreign_object_is_not_replaced(s3_server, written, other):
    s3_server.set_faults()
    out = upload_tree(written, new_out(s3_server))
    commit(read_plan(out))
    before = read_tree(out)
    put_object(out / "train-00000-of-00002.tfrecord", b"foreign")
    stage(other, out)
    with pytest.raises(OutputError, match="does not belong"):
        replace_dataset(out)
    assert read_tree(out) == {**before, "train-00000-of-00002.tfrecord": b"foreign"}


MILL = """
import sys
from converter.storage.locate import locate
from test_stores import write
write(*map(locate, sys.argv[1:]))
"""


def test_a_kill_in_the_middle_loses_nothing(s3_server, images, expected):
    s3_server.set_faults()
    stored, out = upload_tree(images, s3_server.path("images")), new_out(s3_server)
    s3_server.set_faults(latency=0.05)
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", MILL, str(stored), str(out)], env={**os.environ, "PYTHONPATH": path}
    )
    while process.poll() is None and not Layout(out).receipts.is_dir():
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Layout(out).manifest.exists()
    s3_server.set_faults()
    plan = plan_only(stored, out)
    finished = list_finished(plan)
    assert 0 < len(finished) < len(plan.shards)
    for shard in (shard for shard in plan.shards if shard not in finished):
        write_shard(shard, Job(images=stored, out=out, options=OPTIONS))
    commit(plan)
    assert read_tree(out) == expected
    assert b"canary" not in b"".join(read_tree(out).values())


def test_of_two_converters_on_one_prefix_one_does_the_work(s3_server, images):
    s3_server.set_faults()
    out = new_out(s3_server)
    with (
        out.lock(),
        pytest.raises(Exception, match="being written by process"),
    ):
        convert(images, out, OPTIONS)
    assert not out.exists()
    out.remove_tree()


def test_an_outage_under_beam_is_one_line_and_the_same_command_goes_on(
    s3_server, images, tmp_path, capsys, monkeypatch
):
    s3_server.set_faults()
    stored = upload_tree(images, s3_server.path("images"))
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1.5")
    s3_server.set_faults(faults=1, kinds="refuse", only="images/ant")
    out = new_out(s3_server)
    flags = [*FLAGS, "--workers=1", "--dedupe=off"]
    assert main(["convert", str(stored), str(out), *flags]) == 1
    s3_server.set_faults()
    said = capsys.readouterr().err.strip()
    assert said.startswith("shardmill: error: s3://")
    assert "cannot be reached for" in said
    assert "\n" not in said
    assert "canary" not in said
    monkeypatch.undo()
    assert main(["convert", str(stored), str(out), *flags]) == 0
    convert_folder(images, tmp_path / "out", dataclasses.replace(OPTIONS, dedupe="off"))
    assert read_tree(out) == read_tree(tmp_path / "out")
