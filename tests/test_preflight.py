"""Refusals before anything is touched."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import pytest

from converter.errors import UsageError
from pipelines import preflight


def test_a_new_an_empty_and_an_unfinished_output_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / ".shardmill").mkdir(parents=True)
    (tmp_path / "unfinished" / "train-00000-of-00001.tfrecord").touch()
    for out in ("new/deep", "empty", "unfinished"):
        preflight.check_folders(tmp_path / "images", tmp_path / out)


def test_an_output_inside_the_images_is_seen_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with pytest.raises(UsageError, match="lies inside the images"):
        preflight.check_folders(tmp_path / "images", tmp_path / "link" / "out")


def test_folders_that_only_begin_alike_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    preflight.check_folders(tmp_path / "images", tmp_path / "images-256")


def test_this_environment_has_no_other_owner_of_the_import_names() -> None:
    preflight.check_import_names()


def test_another_owner_of_an_import_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def owners() -> Mapping[str, list[str]]:
        return {"reader": ["shardmill", "reader"], "converter": ["shardmill"]}

    monkeypatch.setattr(importlib.metadata, "packages_distributions", owners)
    with pytest.raises(
        UsageError,
        match=r"^the package 'reader' also belongs to the distribution 'reader': install",
    ):
        preflight.check_import_names()
