"""Table 1: small networks, recorded cells, the choice of Table 5, verdicts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from invertnb.chapters import random_filters as chapter
from invertnb.chapters.random_filters import figures, inputs, recordings, table1, verdicts
from invertnb.networks.labelled import open_labelled
from invertnb.networks.search import EPOCHS, LEARNED, RANDOM, TABLE5, TRIED
from invertnb.networks.training import Recipe
from invertnb.notebook import Recorded, load_recorded


def run(architecture="(8)3c-2pmax", learned=True, seed=0, test=0.5, validation=0.5, best=2, held=5000):
    """A recorded run."""
    recipe = dataclasses.asdict(Recipe(learned=learned, seed=seed, validation=held))
    history = {name: [0.4, 0.5] for name in recordings.CURVES}
    about = {"device": "a device", "versions": {"torch": "2"}}
    return {
        "architecture": architecture, "recipe": recipe, "test": test, "validation": validation,
        "best": best, "history": history, "coherence": [0.5], "about": about,
    }  # fmt: skip


def recorded(label, runs, **more):
    return {label: Recorded(label, {}, {"runs": {str(i): each for i, each in enumerate(runs)}, **more})}


@pytest.fixture(scope="module")
def small():
    data = open_labelled("digits").first(200, 100, generator=torch.Generator().manual_seed(0))
    given = inputs.Inputs(data, range(2), 4, "cpu", {})
    return table1.compute(given, chapter.Parameters().generator)


def test_small_networks_of_both_rows_by_depth_and_seed(small):
    assert [(row, depth) for row, runs in small.runs.items() for depth in runs] == [
        (row, depth) for row in ("random", "learned") for depth in (1, 2, 3)
    ]
    for row, by_depth in small.runs.items():
        for depth, runs in by_depth.items():
            assert [each.recipe["seed"] for each in runs] == [0, 1]
            assert {each.recipe["learned"] for each in runs} == {row == "learned"}
            assert {each.architecture.count("c") for each in runs} == {depth}
            assert small.accuracies(row, depth) == [100 * each.test for each in runs]
    assert small.longest <= table1.SMALL.epochs and not small.real
    assert small.data.startswith("handwritten digits")


def test_seeds_are_other_networks(small):
    for by_depth in small.runs.values():
        for first, second in by_depth.values():
            losses = [[epoch["loss"] for epoch in each.history] for each in (first, second)]
            assert losses[0] != losses[1]


def test_cells_gather_the_seeds_of_an_architecture_of_their_row():
    network = TABLE5["learned"][1]
    runs = [run(network, True, 0, 0.80), run(network, True, 1, 0.84), run(network, False), run()]
    (cell,) = table1.cells(recorded("table1", runs))
    assert (cell.row, cell.depth, cell.name, cell.paper) == ("learned", 2, "2 layers", 83.3)
    assert cell.mean == pytest.approx(82.0)
    assert cell.spread == pytest.approx(2 * 2**0.5)  # deviations of 2 over one degree of freedom
    assert table1.cells({}) == []


def test_one_seed_has_no_spread_and_no_verdict_hides_it():
    (cell,) = table1.cells(recorded("table1", [run(TABLE5["random"][0], False, test=0.66)]))
    assert cell.spread is None
    results = {"table1": Recorded("table1", {}, {"note": "a remark"})}
    found = verdicts._value(SimpleNamespace(inputs=SimpleNamespace(recorded=results)), cell)
    assert found["value"] == 66.0 and "spread" not in found and "1 seed," in found["note"]
    assert found["note"].endswith("; a remark")


@pytest.mark.parametrize("best, expected", [(2, True), (1, True), (0, False)])
def test_a_cell_is_late_if_the_last_epochs_are_the_best(best, expected):
    (cell,) = table1.cells(recorded("table1", [run(TABLE5["random"][0], False, best=best)]))
    assert cell.late is expected


def test_overfitting_is_the_worst_run_in_points():
    runs = [run(TABLE5["random"][0], False, seed=seed) for seed in range(2)]
    runs[1]["history"] = dict(runs[1]["history"], train=[0.1, 0.9], validation=[0.5, 0.6])
    (cell,) = table1.cells(recorded("table1", runs))
    assert cell.overfit == pytest.approx(30)


def test_choices_compare_at_the_largest_width_with_all_sizes():
    one = [run(f"(64){size}c-2pmax-4pave", True, validation=v) for size, v in ((3, 0.5), (5, 0.6), (7, 0.4))]
    wide = [run("(256)3c-2pmax-4pave", True, validation=0.9)]  # the others are missing
    (choice,) = table1.choices(recorded("grid", one + wide))
    assert (choice.width, choice.best, choice.published) == (64, 5, 5)
    assert choice.margin == 0 and choice.images == 5000
    assert list(verdicts.chosen(choice)["readings"].values()) == [True]


def test_the_noise_of_a_difference_by_hand():
    choice = table1.Choice("learned", 2, 64, {3: 50.0, 5: 60.0, 7: 40.0}, 3, 100)
    # Two standard errors: 2 sqrt((.6 * .4 + .5 * .5) / 100), in points.
    assert choice.noise == pytest.approx(200 * (0.49 / 100) ** 0.5)
    assert choice.margin == pytest.approx(10)
    assert list(verdicts.chosen(choice)["readings"].values()) == [True]
    more = dataclasses.replace(choice, images=1000)
    assert more.noise < 10
    assert list(verdicts.chosen(more)["readings"].values()) == [False]
    assert verdicts.chosen(more)["value"] is None  # widths were not compared


def test_a_cell_without_runs_waits_for_a_gpu():
    data = SimpleNamespace(cells=[], choices=[], inputs=SimpleNamespace(recorded={}))
    assert {found["value"] for _, found in verdicts.table1(data)} == {None}
    assert {found["value"] for _, found in verdicts.table5(data)} == {None}
    assert len(list(verdicts.table1(data))) == len(list(verdicts.table5(data))) == 6


def test_the_closed_form_is_a_reading_of_random_cells_with_all_filters():
    network = TABLE5["random"][0]
    fits = [{"filters": 2048, "test": 0.7}, {"filters": 4, "test": 0.1}]
    results = {"runs": {"a": {"architecture": network, "fits": fits}}}
    assert verdicts.closed(results, 1) == [70.0] and verdicts.closed(results, 2) == []
    found = Recorded("closed", {}, results)
    data = SimpleNamespace(cells=[], inputs=SimpleNamespace(recorded={"closed": found}))
    by_claim = dict(verdicts.table1(data))
    assert list(by_claim["table1.random.1 layer"]["readings"].values()) == [(70.0, None)]
    assert by_claim["table1.learned.1 layer"]["readings"] == {}


def test_recorded_runs_are_of_the_recipes_in_the_code():
    """What is recorded is what `invertnb run random_filters --record` would make again."""
    found = load_recorded("random_filters")
    for name, each in found["tuning"].results["runs"].items():
        row, key = name.split("-")
        assert Recipe(**each["recipe"]) == TRIED[row][key]
    for each in found["table1"].results["runs"].values():
        row = "learned" if each["recipe"]["learned"] else "random"
        depth = each["architecture"].count("c")
        epochs = EPOCHS[row][depth - 1]
        base = LEARNED if row == "learned" else RANDOM
        assert Recipe(**each["recipe"]) == dataclasses.replace(base, epochs=epochs, seed=each["recipe"]["seed"])
        assert each["best"] <= len(each["history"]["validation"]) == epochs
        top = each["history"]["validation"][each["best"] - 1]
        assert top == max(each["history"]["validation"]) == pytest.approx(each["validation"], abs=1e-4)


def test_recipes_were_chosen_by_validation():
    runs = load_recorded("random_filters")["tuning"].results["runs"]
    for row, chosen in (("learned", LEARNED), ("random", RANDOM)):
        own = {name: each["validation"] for name, each in runs.items() if name.startswith(row)}
        best = max(own, key=own.__getitem__)
        assert TRIED[row][best.split("-")[1]] == chosen


def test_a_recording_collects_what_is_finished_and_refuses_an_empty_folder(tmp_path, refuses):
    p = chapter.Parameters(study="table", runs=str(tmp_path), missing=False)
    refuses(lambda: chapter.recording(p), "runs", "finished runs")


def test_figures_draw(small):
    found = load_recorded("random_filters")
    data = SimpleNamespace(
        small=small, cells=table1.cells(found), choices=table1.choices(found),
        inputs=SimpleNamespace(recorded=found),
    )  # fmt: skip
    drawn = [figures.draw_table1(data), figures.draw_curves(data), figures.draw_small(data)]
    assert all(each._repr_png_()[:4] == b"\x89PNG" for each in drawn)
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    paper = next(line for label, line in lines.items() if label.startswith("paper, learned"))
    assert list(paper.get_ydata()) == [68.1, 83.3, 89.3]
