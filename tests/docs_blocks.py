"""The blocks of a page of the docs: found, and run one after another.

`python tests/docs_blocks.py PAGE` runs those of a page that wants a process of its own.
CONTRIBUTING.md says what the marks mean.
"""

import contextlib
import dataclasses
import io
import linecache
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from conftest import make_environment

from pipelines.beam.runners import parse_options
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.commands import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in page.parts
)
LANGUAGES = {"python", "sh", "text", "csv", "json", "yaml", "mermaid", "docker", "html"}
MARKS = ("not run", "fails", "shows", "alternatives", "needs", "own process")

_FENCE = re.compile(r" *(`{3,})(.*)")
_MARK = re.compile(r"^ *<!-- ([a-z ]+?)(?:: (.+))? -->$")
_PUZZLING = re.compile("deprecated|could not be transformed|retracing")
# In a shell, `shardmill` is this checkout.
_OURS = f'shardmill() {{ {shlex.quote(sys.executable)} -m pipelines "$@"; }}; '
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
_BEAM_JOBS = ("convert", "verify", "repair")


@dataclasses.dataclass(frozen=True)
class Block:
    """Text between two fences.

    Attributes:
        language: as its first fence says.
        text: what is in it.
        line: the number of its first line in the page, from 1.
        marks: those before it, with their values.
    """

    language: str
    text: str
    line: int
    marks: dict[str, str]


def read_page(text: str) -> tuple[list[Block], dict[str, str]]:
    """Finds the blocks of a page, and the marks that concern the whole of it."""
    blocks, marks, general = [], {}, {}
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if found := _MARK.match(line):
            name, value = found[1], found[2] or ""
            assert name in MARKS, f"line {number}: {name!r} is no mark: {', '.join(MARKS)}"
            (general if name in ("needs", "own process") else marks)[name] = value
        elif (fence := _FENCE.match(line)) and fence[2] and not fence[2].startswith("{"):
            inside = [inner for _, inner in _read_to(lines, fence[1])]
            content = textwrap.dedent("\n".join(inside)) + "\n"
            blocks.append(Block(fence[2].strip(), content, number + 1, marks))
            marks = {}
        elif line.strip() and not fence:
            assert not marks, f"line {number}: a block has to follow the mark {[*marks]}"
            assert not re.match(r" {4,}(shardmill|pip|python|from|import) ", line), (
                f"line {number}: put code between fences, so that it is run"
            )
    return blocks, general


def _read_to(lines: Iterator[tuple[int, str]], fence: str) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if line.strip() == fence:
            return
        yield number, line
    raise AssertionError(f"a block that {fence} begins has no end")


def split_commands(text: str) -> list[str]:
    """The commands of a shell: lines, or several that a backslash joins."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def split_words(command: str) -> list[str] | None:
    """The words of a command; None if only a shell understands it."""
    scanner = shlex.shlex(command, posix=True, punctuation_chars=True)
    scanner.wordchars += "{},:@%+!^"
    tokens = [*scanner]
    if "$" in command or any(set(token) <= set("();<>|&") for token in tokens if token):
        return None
    return shlex.split(command, comments=True)


def parse_block(block: Block) -> None:
    """Compiles a block that is not run; of one for the shell, parses its commands of ours."""
    if block.language == "python":
        compile(block.text, "page", "exec")
    for command in split_commands(block.text) if block.language == "sh" else ():
        words = split_words(command)
        if words and words[0] == "shardmill" and "…" not in words:
            _parse_command(words[1:])


def _parse_command(words: list[str]) -> None:
    with contextlib.suppress(SystemExit):  # of --help and --version
        arguments = parse_arguments(words)
        runner = [f"--runner={arguments.runner}"] if getattr(arguments, "runner", None) else []
        if arguments.command in _BEAM_JOBS:
            parse_options([*runner, *arguments.rest])


def run_page(name: str, text: str) -> None:
    """Runs all blocks of a page in the current folder.

    Raises:
        AssertionError: a block does not do what the page says.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    _forget_tracings()
    for block in read_page(text)[0]:
        with _named(f"{name}, line {block.line}"):
            if "not run" in block.marks:
                parse_block(block)
            elif block.language in ("python", "sh"):
                printed = _run(block, name, namespace)
            if "shows" in block.marks:
                compare(block.text, printed)


def _forget_tracings() -> None:
    """Lets TensorFlow count the tracings of this page alone: it warns of 5 in 10 calls of `fit`."""
    module = sys.modules.get("tensorflow.python.eager.polymorphic_function.polymorphic_function")
    if module:
        module._frequent_tracing_detector_manager._detectors.clear()


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error


def compare(promised: str, printed: str) -> None:
    """Compares what a page shows with what was printed; `…` stands for any text."""
    lines = "\n".join(line.rstrip() for line in promised.strip().splitlines())
    pattern = ".*?".join(map(re.escape, lines.split("…")))
    shown = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    assert re.fullmatch(pattern, shown, re.DOTALL), f"printed was:\n{shown}"


def _run(block: Block, name: str, namespace: dict[str, object]) -> str:
    out, notes = io.StringIO(), io.StringIO()
    failure = ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(notes):
        try:
            if block.language == "sh":
                commands = split_commands(block.text)
                run_commands(commands, apart="alternatives" in block.marks)
            else:
                run_python("\n" * (block.line - 1) + block.text, name, namespace)
        except subprocess.CalledProcessError as error:
            failure = str(error.returncode)
        except Exception as error:
            failure = type(error).__name__
            if failure != block.marks.get("fails"):
                raise
    expected = block.marks.get("fails", "")
    told = f"{notes.getvalue()}{out.getvalue()}"
    assert failure == expected, f"ended with {failure!r}, not {expected!r}:\n{told}"
    return out.getvalue()


def run_python(source: str, name: str, namespace: dict[str, object]) -> None:
    """Runs code, in which warnings are errors, and so are those of TensorFlow in its log."""
    # Where TensorFlow looks for the code of a function that it compiles.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    with warnings.catch_warnings(), _watch_logs() as messages:
        warnings.simplefilter("error")
        # As Python shows them: those of the page itself, not those between libraries.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
        exec(compile(source, name, "exec", dont_inherit=True), namespace)
    assert not messages, messages


@contextlib.contextmanager
def _watch_logs() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    handler.addFilter(lambda record: _PUZZLING.search(record.getMessage()))
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl", "jax")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield messages
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def run_commands(commands: Sequence[str], *, apart: bool = False) -> None:
    """Runs commands: our own in this process, as starting each costs seconds; others by a shell.

    With `apart`, each finds the folder as the first one did.
    """
    for command in commands:
        before = set(Path().iterdir())
        words = split_words(command)
        if words and words[0] == "shardmill":
            code = run_ours(words[1:])
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", _OURS + command],
                check=False, text=True, capture_output=True,
                env=make_environment(PATH=_PATH), timeout=200,
            )  # fmt: skip
            print(done.stdout, end="")
            print(done.stderr, end="", file=sys.stderr)
            code = done.returncode
        if code:
            raise subprocess.CalledProcessError(code, command)
        for made in set(Path().iterdir()) - before if apart else ():
            shutil.rmtree(made)


def run_ours(arguments: list[str]) -> int:
    """Runs `shardmill`; Beam's local workers are threads of this process."""
    near = ["--direct_running_mode=in_memory"]
    away = any(word.startswith(("--workers", "--runner", "--help")) for word in arguments)
    try:
        return main([*arguments, *(near if arguments[0] in _BEAM_JOBS and not away else [])])
    except SystemExit as end:  # --help, --version
        return int(end.code or 0)


if __name__ == "__main__":
    run_page(sys.argv[1], (ROOT / sys.argv[1]).read_text())
