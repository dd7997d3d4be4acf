"""Runs one command of `shardmill`, and turns its errors into one line and an exit code.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over the limit of rejected
images, 130 interrupted. An error is one line; `--debug` shows the traceback.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from converter.errors import ShardmillError
from converter.names import fit_message
from pipelines.cli import benching, job_commands, look_commands, terminal
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.help_pages import format_overview
from pipelines.cli.interrupts import interrupts
from pipelines.jobs.preview import SpaceWarning
from pipelines.jobs.request import ReportWarning

_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "plan": job_commands.run_plan,
    "convert": job_commands.run_convert,
    "inspect": look_commands.run_inspect,
    "view": look_commands.run_view,
    "bench": benching.run_bench,
    "report": look_commands.run_report,
    "verify": job_commands.run_verify,
    "repair": job_commands.run_repair,
    "clean": job_commands.run_clean,
    "export": job_commands.run_export,
    "index": job_commands.run_index,
    "completion": look_commands.run_completion,
}


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
    with terminal.show_warnings(SpaceWarning, ReportWarning, quiet=quiet):
        return _COMMANDS[options.command](options)


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
