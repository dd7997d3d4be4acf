"""The report as HTML: one file that loads nothing, and in which nothing from a data set runs.

Jinja2 escapes every value, and a Content-Security-Policy lets only the style and the script of this
file through, by their hashes. It works without the script, too: that sorts, filters and copies.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from converter.sizes import format_bytes, format_count
from pipelines.pages.bottleneck import explain_bottleneck
from pipelines.pages.charts import ORIGINAL_CHARTS, Chart, chart_phases, chart_records
from pipelines.pages.contact_sheet import ALL, Sample
from pipelines.pages.findings import list_findings
from pipelines.pages.survey import Survey
from pipelines.pages.texts import format_percent, format_time, show_path, show_reason, show_text

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC_ROWS: Final = 200
"""Classes whose rows are in the page as HTML; the script makes those behind them when asked."""

_MAX_ROW_BYTES: Final = 1_000_000  # of all the rows behind them
_COMMENTS: Final = re.compile(r"/\*.*?\*/\s*", re.DOTALL)
_MAX_TEXT: Final = 5_000  # such as a command
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


class Row(NamedTuple):
    """A class in the table: its records by split, and in all."""

    name: str
    counts: tuple[int, ...]
    total: int


class Group(NamedTuple):
    """Samples of a class, with the number of its records; None where it is not known."""

    name: str
    records: int | None
    samples: Sequence[Sample]


def render_report(
    survey: Survey,
    groups: Mapping[int, Sequence[Sample]],
    reject_pictures: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Args:
        survey: what is known.
        groups: samples by class number.
        reject_pictures: data: addresses of left-out files by path; None if the originals were not
            looked for.
    """
    style = _COMMENTS.sub("", _read("theme.css") + _read("report.css"))
    script = _read("report.js")
    rows, more = list_rows(survey)
    shown = [_name_group(survey, label, samples) for label, samples in groups.items()]
    run = survey.runs[-1] if survey.runs else None
    return _environment().get_template("report.html").render(
        survey=survey,
        policy=write_policy(style, script),
        style=_trust(style),
        script=_trust(script),
        findings=list_findings(survey),
        rows=rows[:STATIC_ROWS],
        more_rows=_trust(more),
        listed=len(rows),
        groups=shown,
        paired=all(len(group.samples) == 1 for group in shown) and len(shown) > 1,
        charts=_chart_originals(survey),
        record_charts=chart_records(survey),
        phases=chart_phases(run),
        advice=explain_bottleneck(run.steps_msec, run.phases_msec.get("convert", 0)) if run else "",
        run=run,
        pictures=reject_pictures or {},
        sought=reject_pictures is not None,
    )  # fmt: skip


def write_policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page with this style and this script, and nothing else."""
    digests = (hashlib.sha256(text.encode()).digest() for text in (style, script))
    styles, scripts = (base64.b64encode(digest).decode() for digest in digests)
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{styles}'; "
        f"script-src 'sha256-{scripts}'; base-uri 'none'; form-action 'none'"
    )


def list_rows(survey: Survey) -> tuple[list[Row], str]:
    """The rows of classes, the largest first, and those behind `STATIC_ROWS` as JSON.

    Rows that would make the page too large are left out.
    """
    columns = [split.labels for split in survey.splits]
    rows = [
        Row(show_text(name), counts, sum(counts))
        for name, counts in zip(survey.classes, zip(*columns, strict=True), strict=False)
    ]
    rows.sort(key=lambda row: -row.total)
    room, lines = _MAX_ROW_BYTES, []
    for row in rows[STATIC_ROWS:]:
        line = json.dumps([row.name, *row.counts], ensure_ascii=False, separators=(",", ":"))
        room -= len(line.encode()) + 1
        if room < 0:
            break
        lines.append(line)
    # Within <script>, a `<` of a name could end it.
    text = "[" + ",".join(lines).replace("<", "\\u003c") + "]"
    return rows[: STATIC_ROWS + len(lines)], text


def _name_group(survey: Survey, label: int, samples: Sequence[Sample]) -> Group:
    if label == ALL:
        return Group("", None, samples)
    if not 0 <= label < len(survey.classes):  # of a forged record
        return Group(f"class {label}", None, samples)
    counts = survey.label_counts
    return Group(survey.classes[label], counts[label] if counts else None, samples)


def _chart_originals(survey: Survey) -> list[Chart]:
    if survey.originals is None or not survey.originals.images:
        return []
    return [make(survey.originals) for make in ORIGINAL_CHARTS]


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 (Jinja2: 0.1 s)

    environment = Environment(
        loader=PackageLoader("pipelines", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "bytes": format_bytes,
        "counted": format_count,
        "number": lambda value: f"{value:,}",
        "cut": show_text,
        "cut_path": show_path,
        "cut_reason": show_reason,
        "seconds": format_time,
        "share": lambda part, whole: f"{100 * part / max(1, whole):.2f}",
        "percent": format_percent,
        "option": _format_option,
        "options": _keep_options_whole,
        "address": _trust,
    }
    return environment


def _finalize(value: Any) -> Any:
    # Markup is ours: the style, the script, the rows of classes, and pictures in base64.
    return show_text(value, _MAX_TEXT) if type(value) is str else value


def _trust(text: str) -> Any:
    from markupsafe import Markup  # noqa: PLC0415

    return Markup(text)  # noqa: S704 (files of this package, JSON without `<`, base64, escaped text)


def _keep_options_whole(text: str) -> Any:
    """Escaped text in which no line ends after the hyphens of an option."""
    from markupsafe import escape  # noqa: PLC0415

    shown = str(escape(show_text(text, _MAX_TEXT)))
    return _trust(_OPTION.sub(r'<span class="whole">\g<0></span>', shown))


@functools.cache
def _read(name: str) -> str:
    from importlib.resources import files  # noqa: PLC0415

    return files("pipelines.pages").joinpath(name).read_text("utf-8")


def _format_option(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = "x" if len(value) == 2 and all(isinstance(each, int) for each in value) else ", "
        return shown.join(map(str, value[:20])) + (", …" if len(value) > 20 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and not value.strip():
        return repr(value)  # a separator, say
    return f"{value:,}" if isinstance(value, int | float) else str(value)
