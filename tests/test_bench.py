"""`shardmill bench`: what it measures, what it prints, and what it says limits reading."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import convert_folder, write_image
from PIL import Image

from converter import ConvertOptions, DatasetError, ShardmillError, UsageError
from converter.format.manifest import read_manifest
from converter.usage import measure_memory
from pipelines.cli.benching import describe_bench, summarize_bench
from pipelines.cli.commands import main
from reader import open_shards
from reader.bench import contenders, rounds
from reader.bench.bare_reads import drop_cached, prepare_disk, prepare_store
from reader.bench.limits import find_limit, judge
from reader.bench.meter import measure_reading, repeat, watch
from reader.bench.rounds import Bench, BenchOptions, Figures, read_answer, run_bench, take_medians
from reader.plan.memory import Buffers
from reader.records.indexed_file import RecordFile

KINDS = {
    "jpeg": {"encoding": "jpeg", "image_size": (16, 20)},
    "png": {"encoding": "png", "image_size": (16, 20)},
    "webp": {"encoding": "webp", "image_size": (16, 20)},
    "raw": {"encoding": "raw", "image_size": (16, 20)},
    "kept": {"encoding": "keep", "resize": "none"},
}
MEASURED = (
    "images_per_s", "cores", "cpu_ms_per_image", "first_batch_s", "added_bytes", "process_bytes",
)  # fmt: skip
RECORDS = 10
RAW = b"\0" * 50_000_000


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Ten images of two sizes, converted once in each way."""
    root = tmp_path_factory.mktemp("bench")
    for seed in range(RECORDS):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    write_image(root / "images" / "b" / "wide.png", 3)
    Image.new("RGB", (40, 16)).save(root / "images" / "b" / "wide.png")
    for kind, options in KINDS.items():
        convert_folder(root / "images", root / kind, ConvertOptions(**options, num_shards=2))
    return root


def make_figures(rate=1000.0, cores=2.0, cpu_ms=1.0, **more):
    return Figures(
        title="x", images_per_s=rate, slowest=rate, fastest=rate, cores=cores,
        cpu_ms_per_image=cpu_ms, **more,
    )  # fmt: skip


def make_bench(folder, *, calls=2, cores=2, **figures):
    """A bench in which everything is usual but these figures."""
    usual = {
        "load_dataset": make_figures(),
        "load_dataset_uint8": make_figures(1100),
        "batches": make_figures(1200),
        "decoder": make_figures(1300, cpu_ms=0.8),
        "bytes": make_figures(20_000, cores=0.3),
    }
    buffers = Buffers(calls=calls, prefetch_batches=1)
    return Bench(
        shards=open_shards(folder), options=BenchOptions(), buffers=buffers, cores=cores,
        figures={**usual, **figures},
    )  # fmt: skip


def test_watching_counts_images_time_and_memory():
    def read():
        held = bytearray(RAW)
        yield 3
        del held
        yield 4

    before = measure_memory()
    stretch = watch(read())
    assert stretch.images == 7
    assert stretch.peak_bytes - before > len(RAW) * 0.9
    assert 0 < stretch.first_seconds < stretch.seconds


def test_watching_ends_in_time_and_goes_on_where_it_was():
    counts = repeat(lambda: iter([1, 2, 3]))
    first = watch(counts, seconds=0)
    assert first.images == 1
    assert watch(counts, seconds=0).images == 2
    assert watch(iter(())).first_seconds is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("load_dataset", "batches", "decoder", "bytes")
        for kind in KINDS
        if (name, kind) not in {("batches", "kept"), ("decoder", "raw")}  # they are absent, below
    ],
)
def test_each_contender_reads_each_kind_of_image(name, kind, sets):
    options = {"batch_size": 4, "shuffle": True, "dtype": "uint8"}
    if kind == "kept":
        options["image_size"] = (8, 8)
    folder = str(sets / kind)
    epoch = contenders.CONTENDERS[name](folder, "train", **options)()
    assert sum(epoch()) == pytest.approx(RECORDS + 1)
    assert sum(epoch()) == pytest.approx(RECORDS + 1)


def test_figures_of_a_contender_are_json(sets):
    build = contenders.prepare_bytes(str(sets / "png"), "train")
    figures = json.loads(json.dumps(measure_reading(build, 0.05)))
    assert figures.keys() <= {field.name for field in dataclasses.fields(Figures)}
    assert figures["images_per_s"] > RECORDS
    assert figures["process_bytes"] > figures["added_bytes"] >= 0


def test_the_bare_disk_reads_every_byte_of_every_record(sets, monkeypatch):
    shards, read = open_shards(sets / "jpeg"), []
    pread = contenders.os.pread
    monkeypatch.setattr(
        contenders.os, "pread", lambda *given: read.append(pread(*given)) or read[-1]
    )
    assert sum(prepare_disk(shards.folder, shards.manifest, "train")()()) == RECORDS + 1
    assert sum(map(len, read[-RECORDS - 1 :])) == shards.splits["train"].bytes


def test_pieces_of_objects_are_counted_as_fractions_of_images(sets, monkeypatch):
    monkeypatch.setattr("reader.bench.bare_reads.PIECE_BYTES", 700)
    shards = open_shards(sets / "jpeg")
    counts = [*prepare_store(shards.folder, shards.manifest, "train")()()]
    assert len(counts) > 2
    assert sum(counts) == pytest.approx(RECORDS + 1)


def test_dropping_a_file_from_memory_leaves_it_whole(sets):
    manifest = read_manifest(sets / "jpeg")
    file = RecordFile.of_shard(sets / "jpeg", manifest.shards[0])
    before = file.path.read_bytes()
    drop_cached(file)
    assert file.path.read_bytes() == before


def test_a_sample_holds_all_of_a_small_split_and_ends_early_in_a_large_one(sets, monkeypatch):
    source = open_shards(sets / "png").source("train")
    assert sorted(contenders.read_sample(source)) == sorted(record.encoded for record in source)
    monkeypatch.setattr(contenders, "SAMPLE_BYTES", 1)
    monkeypatch.setattr(contenders, "SAMPLE_STEP", 2)
    assert len(contenders.read_sample(source)) == 2


@pytest.fixture(scope="session")
def measured(sets):
    """A whole run, with processes: one round, a tenth of a second each."""
    titles = []
    options = BenchOptions(batch_size=4, seconds=0.1, rounds=1)
    return run_bench(sets / "png", options, titles.append), titles


def test_a_run_measures_each_contender_in_a_process(measured):
    bench, titles = measured
    assert titles == [*rounds.TITLES.values()]
    assert bench.figures.keys() == rounds.TITLES.keys()
    assert all(found.absent is None for found in bench.figures.values())
    assert all(found.images_per_s > 0 for found in bench.figures.values())
    # Half a gigabyte is TensorFlow, which the others never load.
    sizes = {name: found.process_bytes for name, found in bench.figures.items()}
    assert max(sizes["batches"], sizes["bytes"]) < 200e6 < sizes["load_dataset"]
    assert bench.records == RECORDS + 1


def test_a_run_is_printed_as_a_table_of_80_columns(measured):
    bench, _ = measured
    lines = [*summarize_bench(bench, judge(bench))]
    assert max(map(len, lines[1:])) <= 80
    assert lines[0].endswith("split train, 11 images of 16x20 as png")
    rows = [line for line in lines for title in rounds.TITLES.values() if line.startswith(title)]
    assert len(rows) == len(rounds.TITLES)
    assert re.search(
        r"load_dataset, float32 +[\d,]+ +\d\.\d +[\d.]+ +[\d.]+ \wB +[\d.]+ s$", rows[0]
    )


def test_a_run_as_json_has_every_figure(measured):
    bench, _ = measured
    printed = json.loads(json.dumps(describe_bench(bench, judge(bench))))
    assert printed["figures"]["batches"]["images_per_s"] > 0
    assert printed["batch_size"] == 4
    assert printed["limit"] in {"others", "memory", "disk", "decoder", "cpu", "python"}
    assert printed["advice"]


@pytest.mark.parametrize(
    ("limit", "changes", "free_bytes"),
    [
        ("decoder", {}, 1 << 40),
        ("cpu", {"decoder": make_figures(1300, cpu_ms=0.1)}, 1 << 40),
        ("python", {"load_dataset": make_figures(cores=1.0)}, 1 << 40),
        ("memory", {"calls": 1}, 1 << 40),
        ("others", {"decoder": make_figures(cores=0.7)}, 1 << 40),
        ("disk", {"bytes": make_figures(900)}, 10),
        ("decoder", {"bytes": make_figures(900)}, 1 << 40),
        ("decoder", {"bytes": make_figures(900)}, None),
    ],
)
def test_what_limits_is_found(limit, changes, free_bytes, sets):
    bench = make_bench(sets / "png", **changes)
    assert find_limit(bench, free_bytes) == limit


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "decoder limits: 2.0 of 2 cores"),
        ({}, "fewer than 1,000 images/s"),
        ({"load_dataset_uint8": make_figures(2000)}, "2,000 instead of 1,000"),
        ({"bytes": make_figures(900)}, "alone gives 900 images/s"),
        ({"calls": 1}, "1 thread can decode"),
        ({"load_dataset": make_figures(cores=0.5)}, "0.5 of 2 cores"),
        ({"decoder": make_figures(cores=0.7)}, "2 cores got 0.7"),
    ],
)
def test_the_verdict_names_figures(changes, words, sets):
    bench = make_bench(sets / "png", **changes)
    assert words in " ".join(judge(bench, 1 << 40).sentences)


def test_without_tensorflow_batches_are_judged(sets):
    absent = Figures(title="x", absent=rounds.NO_TENSORFLOW)
    bench = make_bench(sets / "png", load_dataset=absent, load_dataset_uint8=absent, decoder=absent)
    verdict = judge(bench, 1 << 40)
    assert verdict.limit == "decoder"
    assert "fewer than 1,200 images/s" in verdict.sentences[-1]
    lines = [*summarize_bench(bench, verdict)]
    assert sum("not measured: TensorFlow is not installed" in line for line in lines) == 3


@pytest.fixture
def answers(monkeypatch):
    """What each contender answers, in place of its process."""
    said = {name: dict.fromkeys(MEASURED, 5.0) for name in rounds.TITLES}
    monkeypatch.setattr(rounds, "_run_contender", lambda name, *_: said[name])
    return said


def test_a_missing_package_is_named_once_and_not_tried_again(sets, answers):
    for name in ("load_dataset", "load_dataset_uint8", "decoder"):
        answers[name] = {"missing": "tensorflow"}
    bench = run_bench(sets / "jpeg", BenchOptions())
    assert {name for name, found in bench.figures.items() if found.absent} == {
        "load_dataset", "load_dataset_uint8", "decoder",
    }  # fmt: skip
    assert bench.figures["batches"].images_per_s == 5
    answers["batches"] = {"missing": "simplejpeg"}
    with pytest.raises(ShardmillError, match="simplejpeg is not installed"):
        run_bench(sets / "jpeg", BenchOptions())


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [("raw", "decoder", rounds.RAW), ("kept", "batches", rounds.UNSIZED)],
)
def test_what_cannot_be_measured_says_why(kind, name, reason, sets, answers):
    bench = run_bench(sets / kind, BenchOptions(batch_size=4))
    assert [found.absent for found in bench.figures.values() if found.absent] == [reason]
    assert bench.figures[name].absent == reason
    assert any("resized to 224x224" in line for line in summarize_bench(bench, judge(bench))) == (
        kind == "kept"
    )


def test_figures_are_medians_and_memory_is_the_most():
    runs = [dict.fromkeys(MEASURED, value) for value in (5, 1, 3)]
    found = take_medians("x", runs)
    assert (found.slowest, found.images_per_s, found.fastest) == (1, 3, 5)
    assert (found.first_batch_s, found.added_bytes) == (3, 5)


@pytest.mark.parametrize("package", ["tensorflow", "simplejpeg"])
def test_a_contender_without_its_package_says_which(package, sets, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "simplejpeg":
        monkeypatch.delitem(sys.modules, "reader.batches.decoders", raising=False)
        monkeypatch.delitem(sys.modules, "reader.batches.batch_reader", raising=False)
        monkeypatch.delitem(sys.modules, "reader.batches.iterator", raising=False)
    name = "decoder" if package == "tensorflow" else "batches"
    asked = {"name": name, "folder": str(sets / "jpeg"), "split": "train", "seconds": 0.01}
    monkeypatch.setattr(sys, "argv", ["", json.dumps(asked)])
    contenders.main()
    assert json.loads(capsys.readouterr().out) == {"missing": package}


def test_a_damaged_record_is_one_line(sets, tmp_path, capsys, monkeypatch):
    out = tmp_path / "set"
    out.mkdir()
    for path in (sets / "jpeg").iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    shard = next(iter(read_manifest(out).shards)).name
    data = bytearray((out / shard).read_bytes())
    data[40] ^= 255
    (out / shard).write_bytes(data)
    asked = {"name": "batches", "folder": str(out), "split": "train", "seconds": 0.01}
    monkeypatch.setattr(sys, "argv", ["", json.dumps(asked)])
    contenders.main()
    answer = capsys.readouterr().out
    done = subprocess.CompletedProcess([], 0, answer, "")
    with pytest.raises(ShardmillError, match=f"{shard}: damaged record") as raised:
        read_answer("batches()", done)
    assert raised.value.exit_code == DatasetError.exit_code


@pytest.mark.parametrize(
    ("code", "how"), [(-9, "ended with signal 9: it said nothing"), (3, "ended with code 3")]
)
def test_a_contender_that_dies_is_named(code, how):
    with pytest.raises(ShardmillError, match=how):
        read_answer("batches()", subprocess.CompletedProcess([], code, "", ""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds=0"], "seconds 0 is out of range"),
        (["--seconds=1e9"], "at most 3,600"),
        (["--batch-size=0"], "batch_size 0"),
        (["--split=x"], "'x'"),
        (["--max-ram=1kB"], "max_ram 1.0 kB is too small"),
        (["--image-size=0"], "image_size"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_anything_runs(arguments, message, sets, capsys):
    assert main(["bench", str(sets / "png"), *arguments]) in {1, 2}
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_empty_split_is_refused(tmp_path):
    write_image(tmp_path / "images" / "train" / "a" / "good.png", 1)
    (tmp_path / "images" / "validation" / "a").mkdir(parents=True)
    (tmp_path / "images" / "validation" / "a" / "bad.png").write_bytes(b"bad")
    convert_folder(tmp_path / "images", tmp_path / "set", ConvertOptions())
    with pytest.raises(UsageError, match="holds no records"):
        run_bench(tmp_path / "set", BenchOptions(split="validation"))
    with pytest.raises(DatasetError):
        run_bench(tmp_path, BenchOptions())


def test_the_command_prints_one_object(sets, answers, capsys):
    assert main(["bench", str(sets / "jpeg"), "--json", "--seconds=3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["seconds"] == 3
    assert np.isclose(printed["figures"]["load_dataset"]["images_per_s"], 5)
    assert main(["bench", str(sets / "jpeg"), "--no-progress"]) == 0
    assert "images/s" in capsys.readouterr().out
