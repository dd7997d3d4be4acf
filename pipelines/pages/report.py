"""The report on a data set: reads what is stored, and makes `report.html` of it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from converter.commits.commit import read_notes
from converter.commits.run_log import read_runs
from converter.errors import DatasetError, StoreError
from converter.format.manifest import Manifest, read_manifest
from converter.options import ConvertOptions
from converter.storage.location import Location
from pipelines.pages.contact_sheet import ContactSheet, draw_samples
from pipelines.pages.page import render_report
from pipelines.pages.reject_pictures import draw_rejects, read_rejects
from pipelines.pages.survey import Survey, survey_dataset

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report: its facts, and what else its page shows.

    Attributes:
        survey: the facts.
        sheet: samples.
        reject_pictures: of left-out files by path; None if the originals were not looked for.
    """

    survey: Survey
    sheet: ContactSheet
    reject_pictures: Mapping[str, str] | None

    def to_html(self) -> bytes:
        """The page, in UTF-8."""
        return render_report(self.survey, self.sheet.groups, self.reject_pictures).encode()

    def to_json(self) -> dict[str, Any]:
        """The facts, as JSON has them."""
        facts: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.survey)))
        return facts


def make_report(folder: Location, images: Location | None = None) -> Report:
    """Reads a finished data set, and all that is known about it.

    Takes seconds, whatever its size: of a large one, records are drawn at random.

    Args:
        folder: the data set's.
        images: what was converted, to show rejected files; None to do without.

    Raises:
        DatasetError: there is no finished data set, or its manifest is damaged or of a newer
            version. What else is damaged is part of the report.
        StoreError: the store does not answer.
    """
    manifest, unread = read_manifest(folder), list[str]()

    def read(reader: Callable[[Location], _T]) -> _T | None:
        try:
            return reader(folder)
        except (DatasetError, StoreError) as error:
            unread.append(str(error))
            return None

    sheet = draw_samples(folder, manifest)
    survey = survey_dataset(
        str(folder),
        manifest,
        rejects=read(read_rejects) or {},
        notes=read(read_notes) or (),
        runs=read(read_runs) or (),
        records=sheet.facts,
        unread=unread,
    )
    return Report(survey=survey, sheet=sheet, reject_pictures=_draw(survey, manifest, images))


def _draw(survey: Survey, manifest: Manifest, images: Location | None) -> dict[str, str] | None:
    if images is None:
        return None
    options = ConvertOptions.from_json(manifest.options)
    return draw_rejects(survey.left_out, images, options, survey.scanned)
