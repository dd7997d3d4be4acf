"""What a command says stays short and printable, whatever it is given."""

import argparse
import itertools
import json

import pytest
from conftest import encode_image, make_image, write_image
from damaging import find_flaw
from forging import forge, make_payload
from test_tables import write_table

from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.planning.plan import list_left_out
from pipelines.cli.commands import main
from pipelines.cli.parsers import make_parser
from pipelines.jobs.preview import propose
from reader import open_shards

LONG = "x" * 6000

ARGUMENTS = {
    "long": LONG,
    "digits": "7" * 6000,
    "escapes": "\x1b[2J\n\udcff" * 1500,
    "blanks": "a bc " * 1200,
    "quotes": "'\"\\" * 2000,
    "list": ",".join(["x" * 90] * 70),
}

PARSER = make_parser()

COMMANDS: dict[str, argparse.ArgumentParser] = next(
    action.choices for action in PARSER._actions if isinstance(action.choices, dict)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two images, and a data set of theirs."""
    place = tmp_path_factory.mktemp("place")
    for seed in range(2):
        write_image(place / "images" / "ab"[seed] / f"{seed}.png", seed)
    payloads = [make_payload(encode_image(make_image(seed), "PNG"), seed) for seed in range(2)]
    forge(place / "set", {"train-0": payloads})
    return place


def list_command_lines(command, given):
    """Every option with a value, and every position."""
    actions = [
        action for action in COMMANDS[command]._actions if action.dest not in ("help", "debug")
    ]
    usual = [given[action.dest] for action in actions if not action.option_strings]
    if command == "repair":
        usual += ["--images", given["images"]]
    for action in actions:
        for flag in action.option_strings:
            yield lambda value, flag=flag: [command, *usual, f"{flag}={value}"]
            yield lambda value, flag=flag: [command, *usual, flag, value]
    for number in range(len(usual)):
        yield lambda value, number=number: [command, *usual[:number], value, *usual[number + 1 :]]
    yield lambda value: [command, *usual, value]
    yield lambda value: [command, *usual, f"--{value}"]
    yield lambda value: [command, *usual, f"-{value}"]
    yield lambda value: [value, command, *usual]
    yield lambda value: [f"--{value}", command, *usual]
    yield lambda value: [f"{command}{value}", *usual]


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pasted_argument_is_never_repeated_as_a_whole(
    command, name, place, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    # What makes sense is not done: only what is said of nonsense is of interest here.
    monkeypatch.setattr("pipelines.jobs.convert.run_conversions", refuse)
    monkeypatch.setattr("pipelines.cli.job_commands.repair", refuse)
    monkeypatch.setattr("pipelines.cli.job_commands.export", refuse)
    given = {"images": str(place / "images"), "out": str(tmp_path / "out"), "files": "*.none"}
    given["shell"] = "bash"
    given["folder"] = str(tmp_path / "export")
    if command not in ("convert", "plan"):
        given["out"] = str(place / "set")
    said = 0
    for make in list_command_lines(command, given):
        arguments = make(ARGUMENTS[name])
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse prints its help
            code = end.code
        lines = capsys.readouterr().err.splitlines()
        assert (code == 0) or lines, arguments
        flaws = [flaw for line in lines if (flaw := find_flaw(line))]
        assert not flaws, [word[:99] for word in arguments]
        said += len(lines)
    assert said > 5


def refuse(*arguments, **options):
    raise KeyboardInterrupt


CELLS = {
    "long": LONG,
    "binary": encode_image(make_image(1), "PNG") * 200,
    "text that is binary": (bytes(range(256)) * 200).decode("latin-1"),
    "not UTF-8": "\udcff" * 6000,
    "escapes": "\x1b[2J\n" * 1500,
    "blanks": "a bc " * 1200,
    "list": "[" + '"x", ' * 2000,
    "nested": "[" * 5000,
    "digits": "9" * 6000,
}

COLUMNS = (
    "path", "label", "labels", "split", "boxes", "group", "mask", "caption", "target", "keep",
)  # fmt: skip


def encode_cell(cell):
    """A cell for Parquet, where a column of text is binary, too, if one of its cells is."""
    return cell if isinstance(cell, bytes) else to_bytes(cell)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cell_of_a_table_is_never_shown_as_a_whole(cell, suffix, place, tmp_path, capsys):
    if isinstance(cell, bytes) and suffix != ".parquet":
        cell = cell.decode("utf-8", "surrogateescape") if suffix == ".csv" else str(cell)
    said = 0
    for column, places in itertools.product(COLUMNS, ([0], [0, 1])):
        rows = [{"path": f"{'ab'[n]}/{n}.png", "label": "ab"[n], column: "1"} for n in range(2)]
        rows[0].setdefault(column, "1")
        for number in places:
            rows[number][column] = cell
        if suffix == ".parquet":
            rows = [{name: encode_cell(cell) for name, cell in row.items()} for row in rows]
        path = write_table(tmp_path / f"table{suffix}", rows)
        option = [] if column in ("path", "label") else [f"--{column}-column={column}"]
        main(["plan", str(path), str(tmp_path / "out"), *option, "--label-column=label",
              f"--table-root={place / 'images'}"])  # fmt: skip
        printed = capsys.readouterr()
        lines = printed.err.splitlines() + printed.out.splitlines()
        assert not [flaw for line in lines if (flaw := find_flaw(line))], column
        said += len(lines)
    assert said > 2


@pytest.mark.parametrize("cell", [cell for cell in CELLS.values() if isinstance(cell, str)])
def test_neither_is_it_repeated_in_what_is_said_of_a_rejected_row(cell, place, tmp_path):
    (tmp_path / "images").symlink_to(place / "images")
    columns = {"path": "a/0.png", "label": "a", "mask": "a/0.png", "boxes": "[]"}
    rows = [columns, *(columns | {name: cell} for name in columns if name != "label")]
    table = write_table(tmp_path / "table.csv", rows)
    options = ConvertOptions(
        image_size=8, table_root="images", mask_column="mask", boxes_column="boxes"
    )
    draft = propose(table, options, always_sample=False).draft
    details = [line["detail"] for line in list_left_out(draft)]
    assert details
    assert not [flaw for detail in details if (flaw := find_flaw(detail))]


def test_a_name_in_a_header_is_never_shown_as_a_whole(place, tmp_path, capsys):
    path = tmp_path / "table.csv"
    for cell in CELLS.values():
        name = cell.decode("latin-1") if isinstance(cell, bytes) else cell
        for header in (
            ["path", name, name],
            [name, "label"],
            ["path", "label", *[name + str(n) for n in range(9)]],
        ):
            rows = "".join(json.dumps(word).replace('\\"', '""') + "," for word in header)
            path.write_bytes(f"{rows[:-1]}\n".encode("utf-8", "surrogateescape"))
            main(["plan", str(path), str(tmp_path / "out"), "--keep-column=none"])
            lines = capsys.readouterr().err.splitlines()
            assert lines
            assert not [flaw for line in lines if (flaw := find_flaw(line))]


HOSTILE_NAMES = {
    "long": LONG.encode(),
    "binary": bytes(range(256)) * 300,
    "escapes": b"\x1b[2J\n" * 1500,
    "blanks": b"a bc " * 1200,
    "quotes": b"'\"\\" * 2000,
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_what_a_record_says_of_its_origin_is_never_shown_as_a_whole(name, tmp_path, capsys):
    picture = encode_image(make_image(1), "PNG")
    broken = picture[:60] + b"\0\0" + picture[62:]
    folder = forge(
        tmp_path / "set",
        {"train-0": [make_payload(broken, 0, source_id=name, filename=name, class_text=name)]},
    )
    batches = open_shards(folder).batches("train", shuffle=False, batch_size=1, on_damage="skip")
    with pytest.raises(Exception, match="record") as caught:
        list(batches)
    messages = [str(caught.value), *map(str, batches.damage.errors.values())]
    assert main(["verify", str(folder)]) == 1
    messages += capsys.readouterr().out.splitlines()
    main(["inspect", str(folder)])
    messages += capsys.readouterr().err.splitlines()
    assert len(messages) > 2
    assert not [flaw for text in messages if (flaw := find_flaw(text))]
