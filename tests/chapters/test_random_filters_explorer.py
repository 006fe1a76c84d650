"""The explorer over recorded runs: what it shows is what was recorded, and nothing in its place."""

import dataclasses

import pytest

from invertnb.chapters.random_filters import explorers
from invertnb.chapters.random_filters.explorers import ABSENT, PAPER, ROWS, Study, asked
from invertnb.networks import search
from invertnb.notebook import Recorded, load_recorded

SHORT = dataclasses.asdict(search.SHORT["learned"])


@pytest.fixture(scope="module")
def recorded():
    return load_recorded("random_filters")


def made(width, size, depth, row, tests, **changed):
    """A recording with runs of these test accuracies, by seed."""
    label, points = asked(width, size, depth, row)
    runs = {}
    for point, test in zip(points, tests, strict=False):
        runs[point.name] = {
            "architecture": str(point.architecture),
            "recipe": dataclasses.asdict(point.recipe), "validation": test / 2, "test": test,
            "best": 1, "history": {"train": [0.3, 0.4], "validation": [0.5, 0.45]},
            "about": {"device": "abacus"},
        } | changed  # fmt: skip
    return {label: Recorded(label, {}, {"runs": runs, "note": "", "data": {"label": "beads"}})}


def test_every_setting_of_the_page_and_few_frames():
    explorer = explorers.explorer()
    points = {tuple(point.values()) for point in explorer.grid()}
    assert points == {(w, s, d) for w in ("64", "256", PAPER) for s in (3, 5, 7) for d in (1, 2, 3)}


def test_the_runs_asked_for_are_those_that_are_recorded(recorded):
    """All 36 + 18 names, and what is there has the recipe that is asked for."""
    names = {"grid": set(), "table1": set()}
    for width in ("64", "256", PAPER):
        for size, depth, row in ((s, d, r) for s in (3, 5, 7) for d in (1, 2, 3) for r in ROWS):
            label, points = asked(width, size, depth, row)
            names[label] |= {point.name for point in points}
            cell = Study(recorded).cell(width, size, depth, row)
            assert bool(cell.runs) != bool(cell.why) and "stale" not in cell.why
    assert {label: len(each) for label, each in names.items()} == {"grid": 36, "table1": 18}
    assert all(set(recorded[label].results["runs"]) <= names[label] for label in names)


def test_a_view_has_the_numbers_of_the_record(recorded):
    run = recorded["grid"].results["runs"]["random-64x3c-2pmax-4pave-seed0"]
    values = explorers.explorer().render(width="64", size=3, depth=1).values
    assert values["random"] == "(64)3c-2pmax-4pave"
    shown = f"{100 * run['validation']:.1f} %, {100 * run['test']:.1f} %"
    assert values["random: validation, test"] == shown
    assert values["features that the classifier sees"] == f"{64 * 4 * 4:,}"
    # 64 filters of 3 x 3 x 3 at 32 x 32 places.
    assert values["multiplications for an image"] == f"{64 * 27 * 1024 / 1e6:.1f} million"
    assert values["trained"].startswith("5 epochs, seed 0, ")


def test_means_over_the_seeds_that_are_there():
    cell = Study(made(PAPER, 5, 1, "learned", (0.5, 0.7))).cell(PAPER, 5, 1, "learned")
    assert cell.accuracies() == "30.0 %, 60.0 %"
    assert cell.trained() == "12 epochs, seeds 0, 1, abacus"
    both = explorers.values([cell, explorers.Cell(None, why="no")])
    assert both["random"] == both["random: validation, test"] == ABSENT
    assert both["trained"] == f"12 epochs, seeds 0, 1, abacus (learned) / {ABSENT} (random)"


@pytest.mark.parametrize("size", (3, 7))
def test_at_the_papers_widths_there_is_table_5_and_nothing_else(recorded, size):
    cell = Study(recorded).cell(PAPER, size, 1, "random")
    assert cell.runs == () and cell.architecture is None and "Table 5" in cell.why
    assert cell.accuracies() == cell.features() == cell.multiplications() == ABSENT


def test_a_missing_run_is_not_recorded_and_no_other_stands_for_it():
    found = made("64", 3, 2, "random", (0.4,))
    assert Study(found).cell("64", 3, 2, "random").runs
    for other in (("64", 3, 2, "learned"), ("64", 5, 2, "random"), ("256", 3, 2, "random")):
        cell = Study(found).cell(*other)
        assert cell.runs == () and cell.why == "missing from 'grid'"
        assert cell.accuracies() == cell.trained() == ABSENT
        assert str(cell.architecture) == str(search.uniform(int(other[0]), *other[1:3]))
    assert "35 of these 36 runs are missing" in Study(found).caption()


def test_the_picture_has_the_curves_and_says_how_few_epochs():
    study = Study(made("64", 3, 2, "random", (0.4,)))
    (ax,) = explorers.draw([study.cell("64", 3, 2, row) for row in ROWS]).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.3, 0.4], [0.5, 0.45], [0.4]]
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 2], [1, 2], [1]]
    assert ax.get_xlabel() == "epoch, of 5 only"
    learned, random = (text.get_text() for text in ax.texts)
    assert learned == f"learned: {ABSENT}, missing from 'grid'" and ABSENT not in random


def test_rows_that_were_trained_for_other_times():
    found = made(PAPER, 3, 3, "learned", (0.8,))
    both = made(PAPER, 3, 3, "random", (0.6,))["table1"].results["runs"]
    found["table1"].results["runs"].update(both)
    (ax,) = explorers.draw([Study(found).cell(PAPER, 3, 3, row) for row in ROWS]).axes
    assert ax.get_xlabel() == "epoch, of 16 (learned) and 7 (random)"


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"recipe": SHORT | {"epochs": 6}}, "has epochs 6, not 5"),
        ({"architecture": "(64)3c"}, "has another architecture"),
        ({"history": {"train": [0.1], "validation": []}}, "different lengths"),
        ({"history": {"train": [0.1]}}, "lacks 'validation'"),
        ({"about": {}}, "lacks 'device'"),
    ],
    ids=("recipe", "architecture", "lengths", "curve", "device"),
)
def test_a_stale_recording_is_told_and_not_shown(changed, what):
    cell = Study(made("64", 3, 1, "learned", (0.5,), **changed)).cell("64", 3, 1, "learned")
    assert cell.runs == () and cell.why.startswith("'grid' is stale")
    assert what in cell.why and "--set study=grid --record" in cell.why


@pytest.mark.parametrize("results", ({}, {"runs": []}, {"runs": {}}, []), ids=str)
def test_results_of_any_other_form_are_no_exception(results):
    study = Study({"grid": Recorded("grid", {}, results)})
    cell = study.cell("64", 3, 1, "random")
    assert cell.runs == () and cell.why and study.caption().startswith(explorers.CAPTION)


def test_without_recordings_it_says_how_to_make_them(monkeypatch):
    monkeypatch.setattr(explorers, "load_recorded", lambda chapter: {})
    explorer = explorers.explorer()
    for width, study in (("64", "grid"), (PAPER, "table")):
        (ax,) = explorer.render(width=width, size=3, depth=2).picture.axes
        assert all(f"--set study={study} --record" in text.get_text() for text in ax.texts)
    assert explorer.caption == explorers.CAPTION


def test_a_damaged_file_is_told_in_the_caption(monkeypatch):
    def broken(chapter):
        raise ValueError("grid.json: expected JSON")

    monkeypatch.setattr(explorers, "load_recorded", broken)
    assert explorers.explorer().caption.endswith("cannot be read: grid.json: expected JSON.")


def test_the_note_of_the_recordings_stands_in_the_caption_once(recorded):
    caption = explorers.explorer().caption
    assert caption.count(recorded["grid"].results["note"]) == 1
    assert f"{recorded['grid'].results['data']['label']}." in caption
