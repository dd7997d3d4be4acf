"""Every block of Python and of commands in the docs and the README runs as it stands there."""

import contextlib
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import docs_blocks
import pytest
from conftest import make_environment
from docs_blocks import LANGUAGES, PAGES, ROOT, Block, compare, read_page, run_page, split_commands
from docs_making import NEEDS, make_converted, make_photos
from servers import upload_tree

from converter.errors import UsageError
from converter.storage.locate import parse_address

MOST = {
    "installs packages": 20,
    "needs a cluster": 8,
    "needs the checkout": 10,
    "waits for you": 6,
    "needs Colab": 4,
    "one command for each kind of data": 1,
    "needs PyTorch": 2,
    "takes a minute": 1,
    "downloads images": 1,
    "downloads weights": 2,
    "tests/test_frameworks.py runs it": 1,
}
"""Why a block may not be run, and how many there may be: a new one has to be asked for here."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """Each folder that a page may need, made once."""
    root = tmp_path_factory.mktemp("docs")
    make_photos(root / "all")
    make_converted(root / "all")
    for name, make in NEEDS.items():
        (root / name).mkdir()
        (root / name / "photos").symlink_to(root / "all" / "photos")
        make(root / name)
        (root / name / "photos").unlink()
    return root


@pytest.fixture
def store(request):
    """Makes buckets of the names in the docs, with `photos` in them."""

    def fill(scheme: str, folders: Path) -> None:
        server = request.getfixturevalue(f"{scheme}_server")
        server.set_faults()
        for bucket in ("bucket", "other"):
            make_bucket(scheme, server.port, bucket)
            for need, name in (("all", "photos"), ("sources", "shards")):
                upload_tree(folders / need / name, parse_address(f"{scheme}://{bucket}/{name}"))

    return fill


def make_bucket(scheme: str, port: int, name: str) -> None:
    url = f"http://127.0.0.1:{port}"
    body = f'{{"name": "{name}"}}'.encode()
    of_json = {"Content-Type": "application/json"}
    asked = (
        urllib.request.Request(f"{url}/{name}", method="PUT")
        if scheme == "s3"
        else urllib.request.Request(f"{url}/storage/v1/b?project=p", body, of_json, method="POST")
    )
    with contextlib.suppress(urllib.error.HTTPError):  # it is there from the last page
        urllib.request.urlopen(asked, timeout=30).close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page, folders, store, tmp_path, monkeypatch):
    text = (ROOT / page).read_text()
    blocks, marks = read_page(text)
    if not any(block.language in ("python", "sh") for block in blocks):
        return
    shutil.copytree(folders / "all", tmp_path, dirs_exist_ok=True)
    if makes_its_own(blocks):
        shutil.rmtree(tmp_path / "photos-256")
    for need in filter(None, marks.get("needs", "").split(", ")):
        if need in ("s3", "gs"):
            store(need, folders)
        elif need in NEEDS:
            shutil.copytree(folders / need, tmp_path, dirs_exist_ok=True)
        else:
            pytest.importorskip(need)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "own process" in marks:
        run_alone(page)
    else:
        run_page(page, text)
        forget_models()


def makes_its_own(blocks: Sequence[Block]) -> bool:
    """Whether a page converts to `photos-256` before it reads it."""
    texts = (b.text for b in blocks if "not run" not in b.marks and "photos-256" in b.text)
    return re.match(r"shardmill convert .*photos-256\b", next(texts, "")) is not None


def run_alone(page: str) -> None:
    done = subprocess.run(
        [sys.executable, docs_blocks.__file__, page],
        check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200,
        env=make_environment(JAX_PLATFORMS="cpu"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def forget_models() -> None:
    """Leaves Keras as it was, for the pages that follow."""
    if "keras" in sys.modules:
        import keras

        keras.config.set_dtype_policy("float32")
        keras.utils.clear_session()


def test_the_recipe_for_a_kill_survives_one(folders, tmp_path):
    shutil.copytree(folders / "all" / "photos-256", tmp_path / "photos-256")
    blocks, _ = read_page((ROOT / "docs" / "recipes" / "resume.md").read_text())
    (program,) = (block.text for block in blocks if block.language == "python")
    (tmp_path / "train.py").write_text(program)
    command = [sys.executable, "-u", "train.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=make_environment(), **pipes) as training:
        assert any("Epoch 3/8" in line for line in training.stdout)
        training.kill()
    done = subprocess.run(
        command, cwd=tmp_path, env=make_environment(), check=False, timeout=200, **pipes
    )
    assert done.returncode == 0, done.stdout
    assert "resuming at epoch 2, step 0 of 5, from checkpoints" in done.stdout
    assert "Epoch 3/8" in done.stdout
    assert "Epoch 2/8" not in done.stdout


def test_blocks_that_are_not_run_are_few_and_each_has_a_reason():
    blocks = [block for page in PAGES for block in read_page((ROOT / page).read_text())[0]]
    found = Counter(block.marks["not run"] for block in blocks if "not run" in block.marks)
    assert {reason: count for reason, count in found.items() if count > MOST.get(reason, 0)} == {}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page):
    blocks, _ = read_page((ROOT / page).read_text())
    assert {block.language for block in blocks} <= LANGUAGES


def run(text: str) -> None:
    run_page("page", text)


def test_blocks_of_a_page_share_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("```python\na = 1\n```\nand\n```python\nimport os\nos.mkdir(str(a + 1))\n```")
    assert Path("2").is_dir()


def test_a_failure_names_page_and_line():
    with pytest.raises(AssertionError, match="page, line 4: ZeroDivisionError"):
        run("one\n\n```python\n1 / 0\n```")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("```sh\nfalse\n```", "'1', not ''"),
        ("```sh\nshardmill inspect missing\n```", "'1', not ''"),
        ("<!-- fails: 1 -->\n```sh\nshardmill inspekt missing\n```", "'2', not '1'"),
        ("<!-- fails: KeyError -->\n```python\n{}\n```", "'', not 'KeyError'"),
        ("<!-- not run: never -->\n```sh\nshardmill convert a b --qualty=3\n```", "qualty"),
        ("<!-- not run: never -->\n```python\nfor\n```", "SyntaxError"),
        ("```sh\necho one\n```\n<!-- shows -->\n```text\ntwo\n```", "printed was:\none"),
        ("```python\nimport warnings\nwarnings.warn('', FutureWarning)\n```", "FutureWarning"),
        ("```python\nimport warnings\nwarnings.warn('', DeprecationWarning)\n```", "DeprecationW"),
        ("```python\nimport logging\nlogging.getLogger('tensorflow').warning('x is deprecated')\n"
         "```", "x is deprecated"),
    ],
)  # fmt: skip
def test_what_a_page_must_not_do_fails(text, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, UsageError), match=match):
        run(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<!-- not run: why -->\nwords\n```sh\nls\n```", "has to follow"),
        ("<!-- runs not -->\n", "is no mark"),
        ("so\n\n    shardmill convert a b\n", "between fences"),
        ("```sh\nls\n", "no end"),
    ],
)
def test_a_mark_or_a_block_in_the_wrong_place_is_refused(text, match):
    with pytest.raises(AssertionError, match=match):
        read_page(text)


def test_a_block_that_is_meant_to_fail_may(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("<!-- fails: 1 -->\n```sh\nshardmill inspect missing\n```")
    run("<!-- fails: KeyError -->\n```python\n{}[1]\n```")


def test_commands_of_a_shell_are_run_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("```sh\necho 'a b' > made  # for later\ncat made | tr b \\\n  c\n```\n"
        "<!-- shows -->\n```text\na …\n```")  # fmt: skip
    assert Path("made").read_text() == "a b\n"


def test_alternatives_find_the_folder_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kept").mkdir()
    run("<!-- alternatives -->\n```sh\nmkdir out\nmkdir out\nrmdir kept\n```")
    assert list(Path().iterdir()) == []


def test_the_command_is_that_of_this_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = "\n<!-- shows -->\n```text\nshardmill " + __import__("converter").__version__ + "\n```"
    run("```sh\nshardmill --version\n```" + shown)
    run("```sh\nshardmill --version | cat\n```" + shown)


def test_a_directive_is_not_a_block_but_those_in_it_are():
    blocks, _ = read_page("````{tab-item} x\n```sh\nls\n```\n````\n```{toctree}\nstart\n```\n")
    assert [(block.language, block.text, block.line) for block in blocks] == [("sh", "ls\n", 3)]


def test_commands_are_split_as_a_shell_splits_them():
    assert split_commands("# one\na \\\n  b  # c\n\nd\n") == ["a    b  # c", "d"]
    assert docs_blocks.split_words("a 'b c' {x,y} --d=e*  # f") == ["a", "b c", "{x,y}", "--d=e*"]
    assert docs_blocks.split_words("shardmill x --where 'a > 3'") == [
        "shardmill", "x", "--where", "a > 3",
    ]  # fmt: skip
    assert docs_blocks.split_words("a | b") is None
    assert docs_blocks.split_words("a $b") is None


def test_dots_stand_for_any_text():
    compare("one … three\n…", "one two\n three\nfour\n")
    with pytest.raises(AssertionError, match="printed was"):
        compare("one … three", "one two\n")
