"""`shardmill`, which is also `python -m pipelines`."""

# A part of the interpreter itself; `signal` imports more.
import _signal  # type: ignore[import-not-found]
import os
import sys

_STARTING = b"\rstarting"
_WIPED = b"\r        \r"
_SILENT = {"--help", "-h", "--help-all", "--quiet", "--json", "--no-progress", "completion"}


def main() -> int:
    """Runs the command line; gives its exit code, also if Ctrl-C comes while it is imported."""
    # For the first milliseconds, in which Ctrl-C would print where Python was.
    if _signal.getsignal(_signal.SIGINT) == _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from pipelines.cli.interrupts import interrupts  # noqa: PLC0415 (first, and at once)

    try:
        interrupts.watch()
        _show(_STARTING)
        from pipelines.cli import commands  # noqa: PLC0415 (takes a tenth of a second, or many)

        _show(_WIPED)
        code = commands.main()
    except KeyboardInterrupt:
        code = interrupts.end(sys.argv[1:])
    interrupts.finish(code)
    return code


def _show(text: bytes) -> None:
    """Writes to the terminal of a command with a bar, which shows the same word once it can."""
    if len(sys.argv) > 2 and os.isatty(2) and _SILENT.isdisjoint(sys.argv):
        try:  # noqa: SIM105 (`contextlib` is not imported yet)
            os.write(2, text)
        except OSError:
            pass  # a terminal that is closed


if __name__ == "__main__":
    sys.exit(main())
