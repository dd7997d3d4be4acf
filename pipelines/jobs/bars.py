"""Follows the phases of a job: how long each takes, and a bar for those who watch.

On a terminal it is a bar of tqdm that leaves nothing behind, in a notebook a line that is written
over in place, and elsewhere a line every ten seconds.
"""

import contextlib
import datetime as dt
import importlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, Protocol

from tqdm import tqdm

from converter import progress
from converter.progress import Phase
from pipelines.jobs.bar_texts import (
    Pace,
    describe,
    describe_end,
    fit_parts,
    join_parts,
    label,
    list_parts,
)

DRAW_S: Final = 0.2  # how often the state is looked at
LOG_S: Final = 10.0  # between two lines of a log; a phase as long as that has one at its end
NOTEBOOK_S: Final = 1.0

BAR_COLUMNS: Final = 8  # at least; a narrower bar says nothing


class Display(Protocol):
    """Shows a phase."""

    def draw(self, pace: Pace) -> None:
        """Shows how far a phase is; called several times a second."""

    def end(self, pace: Pace) -> None:
        """Called once at the end of each phase."""

    def close(self) -> None:
        """Called once at the end of the job."""


class Progress:
    """The phases of a job.

    Attributes:
        started: when it began.
        phase: the present one.
    """

    def __init__(self, display: Display | None) -> None:
        self.started = dt.datetime.now(dt.timezone.utc)
        self.phase = Phase("start")
        self._seconds: dict[str, float] = {}  # of phases that have ended
        self._pace = Pace(self.phase)
        self._display = display
        self._lock = threading.RLock()
        self._ended = threading.Event()
        if display is not None:
            # A thread, so that a phase that counts nothing yet is seen to be alive.
            threading.Thread(target=self._draw_often, name="draw_progress", daemon=True).start()

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took so far, by its name, in the order of their beginning."""
        with self._lock:
            name, spent = self.phase.name, time.monotonic() - self.phase.started
            spent *= not self._ended.is_set()
            return {**self._seconds, name: self._seconds.get(name, 0.0) + spent}

    def enter(self, phase: Phase) -> None:
        """Ends a phase, and begins the next one."""
        with self._lock:
            self._end_phase()
            self.phase, self._pace = phase, Pace(phase)
            self._draw()

    def close(self) -> None:
        """Ends the last phase."""
        with self._lock:
            self._end_phase()
            self._ended.set()
            if self._display is not None:
                with contextlib.suppress(OSError):
                    self._display.close()

    def _end_phase(self) -> None:
        self._seconds = self.seconds
        if self._display is not None:
            with contextlib.suppress(OSError):  # a terminal was closed, which must not end a job
                self._look()
                self._display.end(self._pace)

    def _draw_often(self) -> None:
        while not self._ended.wait(DRAW_S):
            with self._lock:
                if not self._ended.is_set():
                    self._draw()

    def _draw(self) -> None:
        if self._display is not None:
            with contextlib.suppress(OSError):
                self._look()
                self._display.draw(self._pace)

    def _look(self) -> None:
        if self.phase.poll is not None:
            self.phase.poll()
        self._pace.look(time.monotonic())


@contextlib.contextmanager
def follow(*, shown: bool) -> Iterator[Progress]:
    """Follows what this thread does in the block, and draws it if `shown`.

    In the block of another `follow`, that one goes on.
    """
    outer = getattr(progress.find_listener(), "__self__", None)
    if isinstance(outer, Progress):
        yield outer
        return
    followed = Progress(choose_display() if shown else None)
    with progress.listen(followed.enter):
        try:
            yield followed
        finally:
            followed.close()


def choose_display() -> Display:
    """The display that suits standard error."""
    if "ipykernel" in sys.modules and type(sys.stderr).__module__.startswith("ipykernel"):
        return NotebookLine()
    return TerminalBar() if sys.stderr.isatty() else LogLines()


class TerminalBar:
    """A bar of tqdm, as wide as the terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._measure: Any = None  # gives columns and rows
        self._phase: Phase | None = None

    def draw(self, pace: Pace) -> None:
        phase = pace.phase
        if self._bar is None or phase is not self._phase:
            self.close()
            self._phase = phase
            self._bar = tqdm(leave=False, dynamic_ncols=True, delay=1e9)
            self._bar.delay = 0  # it is drawn below, once it has its text
            self._measure, self._bar.dynamic_ncols = self._bar.dynamic_ncols, None
        bar = self._bar
        # A terminal may have no size yet, such as one of a container: tqdm takes that for -1.
        columns, _ = self._measure(bar.fp)
        bar.ncols = columns if columns > 0 else 80
        bar.bar_format = lay_out(pace, bar.ncols)
        bar.total, bar.n = phase.total or None, phase.done  # a total may be known only later
        bar.refresh()

    def end(self, pace: Pace) -> None:
        """The bar of the next phase takes its place."""

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def lay_out(pace: Pace, columns: int) -> str:
    """A line of that many columns, as a `bar_format` of tqdm, which draws the bar in it."""
    head, parts = label(pace.phase), list_parts(pace)
    room = columns - len(head)
    fitting = fit_parts(parts, room - BAR_COLUMNS - 3)
    # The time that is left matters more than a picture of it.
    if pace.phase.total and {part for part in parts if part[0] <= 1} <= {*fitting}:
        return _escape(head) + "|{bar}| " + _escape(join_parts(fitting))
    return _escape((head + join_parts(fit_parts(parts, room)))[:columns])


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


class LogLines:
    """A line every ten seconds, for files and pipes."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def draw(self, pace: Pace) -> None:
        if time.monotonic() - self._last >= LOG_S:
            self._write(describe(pace))

    def end(self, pace: Pace) -> None:
        if pace.seconds >= LOG_S:
            self._write(describe_end(pace))

    def close(self) -> None:
        pass

    def _write(self, line: str) -> None:
        self._last = time.monotonic()
        print(line, file=sys.stderr, flush=True)


class NotebookLine:
    """Lines of a notebook, one for each phase, which are written over in place."""

    # tqdm's own widget needs ipywidgets, and a saved notebook shows it as an error.

    def __init__(self) -> None:
        display: Any = importlib.import_module("IPython.display").display
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)
        self._last = 0.0
        self._ended: dict[str, str] = {}

    def draw(self, pace: Pace) -> None:
        if time.monotonic() - self._last >= NOTEBOOK_S:
            self._last = time.monotonic()
            self._show(describe(pace))

    def end(self, pace: Pace) -> None:
        if pace.phase.done:
            self._ended[pace.phase.name] = describe_end(pace)

    def close(self) -> None:
        self._show()

    def _show(self, *last: str) -> None:
        text = "\n".join((*self._ended.values(), *last))
        self._handle.update({"text/plain": text}, raw=True)
