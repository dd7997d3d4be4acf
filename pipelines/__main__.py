"""`shardmill`, which is also `python -m pipelines`."""

import sys


def main() -> int:
    """Runs the command line; gives its exit code, also if Ctrl-C comes while it is imported."""
    try:
        from pipelines.cli import commands  # noqa: PLC0415 (takes a quarter of a second)

        return commands.main()
    except KeyboardInterrupt:
        print("shardmill: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
