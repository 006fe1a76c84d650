"""Recorded runs of the random filters: what is collected, and what is refused. About 1 s."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from invertnb.chapters import random_filters as chapter
from invertnb.chapters.random_filters import kept, kept_readers, kept_study, recordings
from invertnb.networks import Labelled, open_labelled, search
from invertnb.networks.training import Recipe, Run


def generator(stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream)


@pytest.fixture(scope="module")
def few() -> Labelled:
    return open_labelled("digits", limit=(240, 60))


def write(folder: Path, architecture: str, recipe: Recipe, data: dict) -> dict:
    """A finished run's record, without the run."""
    epoch = {"loss": 1.0, "train": 0.5, "validation": 0.5, "seconds": 1.0}
    about = {"device": "none", "versions": {"torch": "2"}}
    run = Run(architecture, dataclasses.asdict(recipe), data, 0.5, 0.5, 1, [epoch], [0.1], about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(run)))
    return dataclasses.asdict(run)


@pytest.fixture
def tuned(tmp_path) -> dict[str, dict]:
    """Records of all tried recipes on one set of images."""
    data = {"label": "images", "sha256": "a" * 64, "real": False}
    return {
        point.name: write(
            tmp_path / "tuning" / point.name, str(point.architecture), point.recipe, data
        )
        for point in search.tried()
    }  # fmt: skip


def test_copies_with_one_label_are_not_one_set_of_images(tmp_path, tuned):
    p = chapter.Parameters(study="tuning", runs=str(tmp_path), missing=False)
    assert list(recordings.tuning(p).results["runs"]) == list(tuned)
    first, second = list(tuned)[:2]
    path = tmp_path / "tuning" / second / "run.json"
    copy = tuned[second]["data"] | {"sha256": "b" * 64}
    path.write_text(json.dumps(tuned[second] | {"data": copy}))
    with pytest.raises(ValueError, match=f"one set of images: .*{'a' * 16}.*{'b' * 16}"):
        recordings.tuning(p)
    # One set under two labels is one set.
    renamed = tuned[first]["data"] | {"label": "a copy"}
    path.write_text(json.dumps(tuned[second] | {"data": renamed}))
    recordings.tuning(p)


@pytest.mark.parametrize(
    "change", [{"architecture": "(8)3c-2pmax"}, {"recipe": dataclasses.asdict(Recipe(seed=9))}]
)
def test_a_folder_with_another_run_is_refused(tmp_path, tuned, change):
    name = list(tuned)[2]
    (tmp_path / "tuning" / name / "run.json").write_text(json.dumps(tuned[name] | change))
    with pytest.raises(ValueError, match=f"{name} = .*: expected"):
        recordings.tuning(chapter.Parameters(study="tuning", runs=str(tmp_path), missing=False))


def test_the_recorded_reader_is_the_one_that_was_asked_for(few, tmp_path):
    data = {"label": few.label, "sha256": few.sha256, "real": few.real}
    other = dataclasses.replace(kept_study.RECIPE, epochs=9)
    write(tmp_path / "reader", kept_study.LEARNER, other, data)
    with pytest.raises(ValueError, match="reader: expected the run of"):
        kept_study.recorded(few, generator, tmp_path, progress=False)
    write(tmp_path / "reader", kept_study.LEARNER, kept_study.RECIPE, data)
    with pytest.raises(ValueError, match="reader = 'reader': expected net.safetensors beside"):
        kept_study.recorded(few, generator, tmp_path, progress=False)


def test_random_classifiers_are_calibrated_on_all_classes(few, monkeypatch):
    """Images come class by class, as a tree is read."""
    order = few.train_labels.argsort(stable=True)
    sorted_ = dataclasses.replace(
        few, train=few.train[order], train_labels=few.train_labels[order]
    )
    seen = []
    monkeypatch.setattr(kept_readers, "CALIBRATION", 60)
    calibrate = kept_readers.Classifier.calibrate
    monkeypatch.setattr(
        kept_readers.Classifier, "calibrate",
        lambda net, images: (seen.append(images), calibrate(net, images)),
    )  # fmt: skip
    kept_readers.classifiers(sorted_, kept.RATIOS[:1], generator, 1)
    (images,) = seen
    learn, _ = sorted_.split(30, generator(kept_readers.SPLIT_SEED))
    found = {
        int(sorted_.train_labels[(sorted_.train == image).flatten(1).all(1)][0])
        for image in images
    }
    assert len(images) == 60 < len(learn) and found == set(range(10))
