"""What a scan or a conversion left out, and which classes it renamed, for people and programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from converter.class_names import is_renamed, parse_renames
from converter.format.manifest import Totals
from converter.inventory import CHOICES, REJECT_CODES, SKIP_RULES, Inventory
from converter.names import fit_message

_MAX_RENAMES: Final = 3  # that are listed


def list_choices(inventory: Inventory) -> Iterator[str]:
    """A line on each option that leaves images out by choice."""
    counts = Counter(file.code for file in inventory.skipped)
    for code in CHOICES:
        if counts[code]:
            yield f"  {counts[code]:>9,}  {code:<18} {SKIP_RULES[code]}"


def list_skipped(inventory: Inventory) -> Iterator[str]:
    """A line on each reason for which files are left out; names one, unless by choice."""
    counts = Counter(file.code for file in inventory.skipped)
    first = {file.code: file.path for file in reversed(inventory.skipped)}
    for code, meaning in SKIP_RULES.items():
        if counts[code]:
            example = "" if code in CHOICES else f": {first[code]}"
            yield fit_message(f"  {counts[code]:>9,}  {code:<18} {meaning}{example}")


def list_renames(names: Sequence[str] | None) -> Iterator[str]:
    """How many classes become how many, and the first that get another name."""
    if not names or not is_renamed(tuple(names)):
        return
    renames = parse_renames(tuple(names))
    changed = [f"{old} -> {new}" for old, new in renames.items() if old != new]
    first = ", ".join(changed[:_MAX_RENAMES]) + (", …" if len(changed) > _MAX_RENAMES else "")
    after = len({*renames.values()})
    yield fit_message(f"  classes {len(renames):,} -> {after:,} by --classes: {first}")


def describe_left_out(totals: Totals) -> str:
    """How many files were rejected and skipped, by code, in a line."""
    lines = []
    for what, reasons in (("rejected", totals.rejected), ("skipped", totals.skipped)):
        detail = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        lines.append(f"{sum(reasons.values()):,} {what}" + (f" ({detail})" if reasons else ""))
    return ", ".join(lines)


def list_reasons(totals: Totals) -> Iterator[str]:
    """A line on each code of files that a conversion left out, the commonest first."""
    meanings = {**REJECT_CODES, **SKIP_RULES}
    for reasons in (totals.rejected, totals.skipped):
        for code, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>9,}  {code:<18} {meanings.get(code, '')}".rstrip()


def count_left_out(inventory: Inventory) -> dict[str, int]:
    """How many files a scan left out, by code."""
    counts = Counter(file.code for file in (*inventory.skipped, *inventory.rejected))
    return dict(sorted(counts.items()))
