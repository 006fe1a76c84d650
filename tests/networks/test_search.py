"""Table 1's cells and the grid of appendix C.1, and their command line on a few small digits."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from invertnb.networks import search as module
from invertnb.networks.labelled import Labelled, open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.search import (
    Point, chosen, grid, main, operations, part, search, table, uniform,
)  # fmt: skip
from invertnb.networks.training import Recipe, read_run

QUICK = Recipe(epochs=2, validation=40, batch=30, pad=1, mirror=False, dtype="float32")
WILD = dataclasses.replace(QUICK, rate=1e6, epochs=20, patience=20)
RECIPES = {"learned": QUICK, "random": dataclasses.replace(QUICK, learned=False)}


@pytest.fixture(scope="module")
def data() -> Labelled:
    return open_labelled("digits", limit=(200, 50))


def test_operations_by_hand():
    # 32 x 32 places with 3 * 25 products for each of 7 filters; 16 x 16 with 7 * 9 for each of 5.
    assert operations(parse("(7)5c-2pmax-4pave")) == 32 * 32 * 75 * 7
    both = parse("(7)5c-2pmax-(5)3c")
    assert operations(both) == 32 * 32 * 75 * 7 + 16 * 16 * 63 * 5
    assert operations(parse("(2)3c-(3)1c"), side=8, channels=1) == 64 * 9 * 2 + 64 * 2 * 3


@pytest.mark.parametrize(
    ("depth", "side", "want"),
    [
        (1, 32, "(64)3c-2pmax-4pave"),
        (2, 32, "(64)3c-2pmax-(64)3c-2pmax-2pave"),
        (3, 32, "(64)3c-2pmax-(64)3c-2pmax-(64)3c-2pmax"),
        (1, 8, "(64)3c-2pmax"),
        (1, 16, "(64)3c-2pmax-2pave"),
    ],
)
def test_equal_layers_end_as_in_table_5(depth, side, want):
    assert str(uniform(64, 3, depth, side)) == want


def test_table_1_has_six_cells_for_each_seed():
    points = table(RECIPES)
    names = [point.name for point in points]
    assert len(set(names)) == len(names) == 18
    assert names[0] == "random-2048x5c-2pmax-4pave-seed0"
    for point in points:
        row = "learned" if point.recipe.learned else "random"
        assert str(point.architecture) in module.TABLE5[row]
        assert point.recipe == dataclasses.replace(RECIPES[row], seed=point.recipe.seed)
    assert [point.recipe.seed for point in table(RECIPES, seeds=(7,))] == [7] * 6


def test_the_grid_has_every_point_once_and_the_cheap_ones_first():
    points = grid(RECIPES, seeds=(0, 1))
    assert len({point.name for point in points}) == len(points) == 2 * 5 * 3 * 3 * 2
    costs = [operations(point.architecture) for point in points]
    assert costs == sorted(costs)
    made = {
        (layers[0].filters, layers[0].size, len(layers), point.recipe.learned, point.recipe.seed)
        for point in points for layers in [point.architecture.layers]
    }  # fmt: skip
    assert made == {
        (width, size, depth, learned, seed)
        for width in (64, 128, 256, 1024, 2048) for size in (3, 5, 7) for depth in (1, 2, 3)
        for learned in (True, False) for seed in (0, 1)
    }  # fmt: skip


@pytest.mark.parametrize("n", [1, 3, 7, 200])
def test_shares_are_disjoint_complete_and_of_equal_size(n):
    points = grid(RECIPES)
    shares = [part(points, f"{i}/{n}") for i in range(1, n + 1)]
    names = [point.name for share in shares for point in share]
    assert sorted(names) == sorted(point.name for point in points)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "share", ["0/4", "5/4", "1/0", "1", "", "1/2/3", "-1/4", "a/b", "1.0/4", "1/"]
)
def test_shares_that_are_none(refuses, share):
    refuses(lambda: part([], share), f"share = {share!r}", "i/n")


def test_what_fails_is_named_and_does_not_stop_the_rest(data, tmp_path):
    points = [
        Point(parse("(6)3c-2pmax"), WILD),
        Point(parse("(6)3c-9pmax"), QUICK),
        Point(parse("(4)3c-2pmax"), QUICK),
        Point(parse("(4)3c-2pmax"), RECIPES["random"]),
    ]
    trained = []

    def after(net, folder):
        assert folder.parent == tmp_path
        trained.append(folder.name)

    def call():
        return search(points, data, tmp_path, progress=False, after=after)

    runs, failed = call()
    assert trained == [points[2].name, points[3].name]
    assert [run.recipe["learned"] for run in runs] == [True, False]
    assert failed.keys() == {points[0].name, points[1].name}
    assert failed[points[0].name].startswith("loss = ")
    assert "expected a finite number in epoch " in failed[points[0].name]
    assert failed[points[1].name].startswith("image = (1, 8, 8): expected ")
    assert not list(tmp_path.glob("*9pmax*"))
    assert sorted(path.parent.name for path in tmp_path.glob("*/run.json")) == sorted(trained)
    # What is there is read, what is missing is made.
    shutil.rmtree(tmp_path / points[3].name)
    again, still = call()
    assert trained[2:] == [points[3].name]
    assert still == failed
    assert again[0] == runs[0]
    assert (again[1].test, again[1].validation) == (runs[1].test, runs[1].validation)


def test_damaged_states_and_folders_do_not_stop_the_rest(data, tmp_path):
    points = [Point(parse(f"({n})3c-2pmax"), QUICK) for n in (2, 3, 5, 4)]
    for point, content in zip(points, (b"damaged", b""), strict=False):
        (tmp_path / point.name).mkdir()
        (tmp_path / point.name / "state.pt").write_bytes(content)
    (tmp_path / points[2].name).write_bytes(b"no folder")
    runs, failed = search(points, data, tmp_path, progress=False)
    assert [run.architecture for run in runs] == ["(4)3c-2pmax"]
    assert list(failed) == [point.name for point in points[:3]] and all(failed.values())


def test_an_error_without_words_is_named_by_its_kind(data, tmp_path):
    def after(net, folder):
        raise RuntimeError

    points = [Point(parse("(4)3c-2pmax"), QUICK)]
    runs, failed = search(points, data, tmp_path, progress=False, after=after)
    assert runs == []
    assert failed == {points[0].name: "RuntimeError"}


def test_the_choice_is_validations_alone(data, tmp_path):
    runs, _ = search([Point(parse("(4)3c-2pmax"), QUICK)], data, tmp_path, progress=False)
    made = [
        dataclasses.replace(runs[0], architecture=name, validation=validation, test=test)
        for name, validation, test in (("a", 0.7, 0.9), ("b", 0.8, 0.5), ("c", 0.8, 0.95))
    ]
    assert chosen(made).architecture == "b"


@pytest.fixture
def small(monkeypatch):
    """The command line's recipes, as digits allow."""
    monkeypatch.setattr(module, "LEARNED", dataclasses.replace(QUICK, validation=200, batch=200))
    random = dataclasses.replace(QUICK, validation=200, batch=200, learned=False)
    monkeypatch.setattr(module, "RANDOM", random)


def call(folder, *words: str) -> int:
    return main([str(folder), "--data", "digits", "--device", "cpu", *words])


GRID = ("--what", "grid", "--widths", "2", "4", "--sizes", "3", "--depths", "1")


def test_the_command_line_runs_a_grid_in_shares(small, tmp_path, capsys):
    assert call(tmp_path, *GRID, "--share", "1/2", "--epochs", "1", "--seeds", "5") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert call(tmp_path, *GRID, "--share", "2/2", "--epochs", "1", "--seeds", "5") == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.glob("*/run.json")}
    assert {path.parent.name for path in before} == {
        f"{row}-{width}x3c-2pmax-seed5" for row in ("learned", "random") for width in (2, 4)
    }
    assert call(tmp_path, *GRID, "--epochs", "1", "--seeds", "5") == 0
    assert {path: path.read_bytes() for path in tmp_path.glob("*/run.json")} == before
    out = capsys.readouterr().out
    assert "4 runs" in out
    runs = [read_run(path.parent) for path in before]
    assert {run.recipe["epochs"] for run in runs} == {1}
    for learned, row in ((True, "learned"), (False, "random")):
        best = max(run.validation for run in runs if run.recipe["learned"] is learned)
        line = next(line for line in out.splitlines() if line.startswith(f"chosen, {row}: "))
        assert any(
            line == f"chosen, {row}: {run.architecture}, {run.test:.2%} of the test images"
            for run in runs if run.recipe["learned"] is learned and run.validation == best
        )  # fmt: skip


def test_the_command_line_makes_the_table(small, tmp_path, monkeypatch):
    cells = {"random": ("(3)3c-2pmax",), "learned": ("(2)5c-2pmax-4pave", "(2)3c-2pmax")}
    monkeypatch.setattr(module, "TABLE5", cells)
    assert call(tmp_path, "--what", "table", "--seeds", "1", "--batch", "300") == 0
    assert {path.parent.name for path in tmp_path.glob("*/run.json")} == {
        "random-3x3c-2pmax-seed1", "learned-2x5c-2pmax-4pave-seed1", "learned-2x3c-2pmax-seed1",
    }  # fmt: skip
    assert read_run(tmp_path / "random-3x3c-2pmax-seed1").recipe["batch"] == 300


def test_failures_are_printed_with_their_reason(small, tmp_path, capsys):
    deep = ("--what", "grid", "--widths", "2", "--sizes", "3", "--depths", "4", "1")
    assert call(tmp_path, *deep) == 1
    shown = capsys.readouterr()
    failed = [line for line in shown.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("pmax-seed0: image = (1, 8, 8): expected " in line for line in failed)
    assert shown.out.count("chosen, ") == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--what", "grid", "--share", "3/2"), "share = '3/2'"),
        (("--what", "grid", "--sizes", "4"), "size = 4"),
        (("--what", "table", "--widths", "4"), "--widths: expected with --what grid only"),
        (("--what", "table", "--seeds", "-1"), "seed = -1"),
        (("--what", "all"), "invalid choice: 'all'"),
        (("--what", "table", "--data", "no such folder"), "source = 'no such folder'"),
    ],
)
def test_bad_words_are_one_clear_error(small, tmp_path, capsys, words, reason):
    with pytest.raises(SystemExit) as caught:
        call(tmp_path / "out", *words)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_recipes_of_the_rows():
    assert module.LEARNED.learned
    assert not module.RANDOM.learned
    assert module.RANDOM.inner  # section 4.1 learns every scale and bias
