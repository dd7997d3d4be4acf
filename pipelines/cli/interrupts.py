"""Ends a command within two seconds after Ctrl-C, SIGTERM or a closed terminal.

It imports next to nothing, because it has to be there before anything else is.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time

TYPE_CHECKING = False  # without `typing`, which takes 15 ms, in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# How long it may take to end in good order: to give back locks, and to end workers.
PATIENCE_S = 1.0

# What an interruption means for a command that changes something, and how to go on.
_LATE = {
    "convert": "finished shards are kept, run the same command again to go on",
    "repair": "repaired files are kept, run the same command again to go on",
    "export": "an export appears only once it is whole, run the same command again to start over",
    "index": "finished indexes are kept, run the same command again to go on",
    "clean": "run the same command again to go on",
}
_EARLY = {"convert": "before it converted an image, run the same command again"}
_REPORTING = "all images are converted, run the same command again, and shardmill report after it"
_READ_ONLY = "nothing was changed, run the same command again"
_BEFORE = ("start", "scan", "plan", "check", "compare")


class Interrupts:
    """What signals have asked of this process.

    Attributes:
        number: the first signal; 0 without any.
        phase: in which phase of the job it came.
    """

    def __init__(self) -> None:
        self.number = 0
        self.phase = "start"
        self._patience_s = PATIENCE_S
        self._said = False

    def watch(self) -> None:
        """Turns the first of `SIGNALS` that comes, if it is not ignored, into KeyboardInterrupt."""
        for number in SIGNALS:
            # `nohup` ignores one, and a shell another for what it starts in the background.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        # The very last that this process does, when the outcome is settled.
        atexit.register(self._ignore)

    @staticmethod
    def _ignore() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if self.number:  # a second Ctrl-C must not break what the first one has begun
            return
        self.number = number
        # Imported by others, when there is anything to be known.
        progress = sys.modules.get("converter.progress")
        if get_phase := getattr(progress, "get_phase", None):
            self.phase = get_phase().name
            self._patience_s += get_phase().cancel_s
        # `threading` takes a lock to start one, which the interrupted code may hold.
        _thread.start_new_thread(self._insist, ())
        raise KeyboardInterrupt

    def _insist(self) -> None:
        # An exception is lost in some imports and callbacks, and a thread may be waited for.
        time.sleep(self._patience_s)
        # In a thread of its own: a pipe that is full takes no more lines.
        _thread.start_new_thread(self.end, (sys.argv[1:],))
        time.sleep(0.1)
        os._exit(self.code)

    @property
    def code(self) -> int:
        """The exit code that a shell has for the signal."""
        return 128 + (self.number or signal.SIGINT)

    def end(self, arguments: Sequence[str]) -> int:
        """Says, once, how to go on; gives the exit code."""
        if not self._said:
            self._said = True
            line = f"shardmill: interrupted: {describe(arguments, self.phase)}"
            try:  # noqa: SIM105 (without `contextlib`, for the same reason)
                # The start wipes off what is left of a bar.
                print(f"\r\x1b[K{line}" if os.isatty(2) else line, file=sys.stderr, flush=True)
            except (OSError, ValueError):
                pass  # a terminal that is closed
            self._said = bool(self.number)  # a program may call `main` again
        return self.code

    def finish(self, code: int) -> None:
        """Ends this process at once if it was interrupted, or is from now on."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._interrupt:
                signal.signal(number, lambda *_: os._exit(code))
        if self.number:
            # Nothing is waited for: no thread of Beam, no download.
            os._exit(code)


def describe(arguments: Sequence[str], phase: str) -> str:
    """What an interruption in some phase means, and how to go on."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if phase == "report" and command == "convert":
        return _REPORTING
    if phase in _BEFORE and command in _EARLY:
        return _EARLY[command]
    return _LATE.get(command, _READ_ONLY)


interrupts = Interrupts()
"""Those of this process."""
