"""A hundred thousand files, planned by local processes and by the launcher."""

import math

from benchmarks.corpora import write_pixels

from converter.options import ConvertOptions
from converter.planning.plan import digest_plan, write_plan
from converter.planning.planning_job import BUCKET_IMAGES
from pipelines.beam import runners
from pipelines.jobs.planners import choose_planner
from pipelines.jobs.preview import propose
from pipelines.jobs.request import RunSettings, make_requests

FILES = BUCKET_IMAGES + 1_000  # more than one bucket


def test_a_hundred_thousand_files_are_planned_alike(tmp_path):
    images, out = write_pixels(tmp_path, FILES), tmp_path / "out"
    options = ConvertOptions(image_size=8, validation_split=0.1, source="folders")
    (request,) = make_requests(images, {out: options}, RunSettings(plan_on="runner", workers=2))
    planner = choose_planner([request], runners.parse_options([]))
    assert planner is not None
    with out.lock():
        draft = planner([request], math.inf)[out].draft
        plan = write_plan(draft, options, images=request.root, out=out)
    assert plan.records == FILES
    expected = propose(images, options, always_sample=False).draft
    assert plan.digest == digest_plan(expected, options)
