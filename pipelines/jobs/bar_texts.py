"""What a bar says: rates, time left and counts of a phase, as much as fits into a line."""

import collections
from typing import Final

from converter.progress import Phase
from converter.sizes import format_bytes

DOING: Final = {
    "start": "starting",
    "scan": "scanning",
    "plan": "planning",
    "check": "checking",
    "compare": "comparing",
    "convert": "converting",
    "commit": "committing",
    "verify": "verifying",
    "export": "exporting",
    "index": "indexing",
    "search": "searching",
    "measure": "measuring",
    "report": "reporting",
}
"""What a phase is called while it runs."""

LABEL_COLUMNS: Final = max(map(len, DOING.values()))

# Over how long a rate is measured: long enough for shards that are reported as a whole, short
# enough to follow a change of the images.
_WINDOW_S: Final = 15.0


class Pace:
    """How fast a phase goes, measured over the last seconds."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self._seen = collections.deque([(phase.started, phase.before, 0)])

    def look(self, now: float) -> None:
        """Takes the present state into account."""
        if self._seen[0][0] == self.phase.started:  # what an earlier run did tells nothing
            self._seen[0] = self.phase.started, self.phase.before, 0
        self._seen.append((now, self.phase.done, self.phase.bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def seconds(self) -> float:
        """Since the phase began."""
        return self._seen[-1][0] - self.phase.started

    @property
    def rates(self) -> tuple[float, float]:
        """Units and bytes a second; 0 if unknown."""
        (start, done, size), (now, done_now, size_now) = self._seen[0], self._seen[-1]
        span = max(now - start, 1e-9)
        return max(0, done_now - done) / span, max(0, size_now - size) / span

    @property
    def seconds_left(self) -> float | None:
        """Until the phase is done; None if unknown."""
        rate = self.rates[0]
        if self.phase.total is None or not rate:
            return None
        return max(0, self.phase.total - self.phase.done) / rate


def label(phase: Phase) -> str:
    """The name of a phase, in a column that all phases share, and the share that is done."""
    name = DOING[phase.name].ljust(LABEL_COLUMNS)
    return f"{name} {100 * phase.done // phase.total:3}% " if phase.total else f"{name} "


def list_parts(pace: Pace) -> list[tuple[int, str]]:
    """What there is to say about a phase, in order, each with its rank: 0 matters most."""
    phase, (rate, byte_rate) = pace.phase, pace.rates
    count = f"{phase.done:,}" if phase.total is None else f"{phase.done:,}/{phase.total:,}"
    found = " found" if phase.name == "scan" and phase.unit == "images" else ""
    parts = [(0, f"{count} {phase.unit}{found}")] if phase.total is not None or phase.done else []
    if rate:
        parts.append((2, f"{format_rate(rate)}/s"))
    if byte_rate:
        parts.append((4, f"{format_bytes(int(byte_rate))}/s"))
    if phase.rejected:
        parts.append((3, f"{phase.rejected:,} rejected"))
    left = pace.seconds_left
    if left is None or not phase.done:
        parts.append((1, format_seconds(pace.seconds)))
    elif phase.done < (phase.total or 0):
        parts.append((1, f"{format_seconds(left)} left"))
    if phase.note:
        parts.append((5, phase.note))
    return parts


def fit_parts(parts: list[tuple[int, str]], columns: int) -> list[tuple[int, str]]:
    """Those that matter most, as many as fit, in order; at least one."""
    kept = list(parts)
    while len(kept) > 1 and len(join_parts(kept)) > columns:
        kept.remove(max(kept))
    return kept


def join_parts(parts: list[tuple[int, str]]) -> str:
    """Joins what `list_parts` gave."""
    return ", ".join(text for _, text in parts)


def describe(pace: Pace) -> str:
    """A line about a phase that is running, for a log."""
    phase = pace.phase
    share = f"{100 * phase.done // phase.total}%, " if phase.total else ""
    return f"{DOING[phase.name]}: {share}{join_parts(list_parts(pace))}"


def describe_end(pace: Pace) -> str:
    """A line about a phase that has ended."""
    phase = pace.phase
    count = f"{phase.done:,} {phase.unit} " if phase.done else ""
    rejected = f", {phase.rejected:,} rejected" if phase.rejected else ""
    return f"{DOING[phase.name]}: {count}in {format_seconds(pace.seconds)}{rejected}"


def format_seconds(seconds: float) -> str:
    """Minutes and seconds, as `1:05`, with hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_rate(rate: float) -> str:
    """A rate with as many digits as mean something."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
