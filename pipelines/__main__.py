"""`shardmill`, which is also `python -m pipelines`."""

# A part of the interpreter itself; `signal` imports more.
import _signal  # type: ignore[import-not-found]
import sys


def main() -> int:
    """Runs the command line; gives its exit code, also if Ctrl-C comes while it is imported."""
    # For the first milliseconds, in which Ctrl-C would print where Python was.
    if _signal.getsignal(_signal.SIGINT) == _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from pipelines.cli.interrupts import interrupts  # noqa: PLC0415 (first, and at once)

    try:
        interrupts.watch()
        from pipelines.cli import commands  # noqa: PLC0415 (takes a tenth of a second)

        code = commands.main()
    except KeyboardInterrupt:
        code = interrupts.end(sys.argv[1:])
    interrupts.finish(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
