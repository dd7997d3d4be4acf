"""Scripts with which shells complete commands, flags, choices and paths."""

from typing import Final

from pipelines.cli.parsers import make_parser

# What stands for a value that is a path. Those of a store are typed: shells cannot list them.
_PATHS: Final = ("IMAGES", "OUT", "FOLDER", "FILES", "FILE", "PATH", "N|PATH")


def write_script(shell: str) -> str:
    """The script for `bash`, `zsh` or `fish`, which asks no Python when it completes."""
    import shtab  # noqa: PLC0415 (for this command alone)

    parser = make_parser()
    for command in parser.commands.values():
        for action in command.added:
            if action.metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # as shtab asks for it
    script: str = shtab.complete(parser, shell)
    return script
