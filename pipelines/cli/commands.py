"""Runs one command of `shardmill`, and turns its errors into one line and an exit code.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over the limit of rejected
images, 130 interrupted. An error is one line; `--debug` shows the traceback.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Final

from converter.errors import ShardmillError
from converter.names import fit_message
from pipelines.cli import terminal
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.help_pages import format_overview
from pipelines.cli.interrupts import interrupts

_HOMES: Final = {
    "bench": "benching",
    **dict.fromkeys(("inspect", "view", "report", "completion"), "look_commands"),
}
"""The modules of commands that are not in `job_commands`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with terminal.outlast_readers():
        if not arguments:
            print(format_overview(), end="")
            return 2
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            return interrupts.end(arguments)
        except (ShardmillError, OSError) as error:
            if interrupts.number:  # a signal to all processes ended a worker, too
                return interrupts.end(arguments)
            if "--debug" in arguments:
                raise
            return _explain(error, as_json="--json" in arguments)


def _run(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    quiet = getattr(options, "quiet", False)
    terminal.set_up_logs(debug=options.debug, quiet=quiet)
    with terminal.show_warnings(quiet=quiet):
        return _find_command(options.command)(options)


def _find_command(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of a command."""
    # Imported only now, because `--help` does without any, and `inspect` without the jobs.
    home = importlib.import_module(f"pipelines.cli.{_HOMES.get(name, 'job_commands')}")
    found: Callable[[argparse.Namespace], int] = getattr(home, f"run_{name}")
    return found


def _explain(error: ShardmillError | OSError, *, as_json: bool) -> int:
    """Prints an error as a line, and for a program also as an object; returns the exit code."""
    if isinstance(error, ShardmillError):
        message, code = str(error), error.exit_code
    else:
        message, code = f"{error.filename or 'system'}: {error.strerror}", 1
    if as_json:
        kind = error.__class__.__name__
        described = {"kind": kind, "message": fit_message(message), "exit_code": code}
        terminal.print_json({"error": described})
    return terminal.fail(f"error: {message}", code)
