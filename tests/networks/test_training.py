"""Training of the classifiers: seeded, resumable, chosen by validation; on a few small digits."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest
import torch

from invertnb.networks import training
from invertnb.networks.labelled import Labelled, open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.training import SPLIT_SEED, Recipe, augment, build, fit, optimizer, read_run

TINY = parse("(6)3c-2pmax-(4)3c-2pmax")
QUICK = Recipe(epochs=4, validation=40, batch=30, rate=0.05, pad=1, mirror=False, dtype="float32")
FIXED = dataclasses.replace(QUICK, learned=False)


@pytest.fixture(scope="module")
def data() -> Labelled:
    return open_labelled("digits", limit=(200, 50))


def train(data, folder, recipe=QUICK, architecture=TINY):
    """The run, and the state of the network that `after` was given."""
    kept = []

    def after(net):
        kept.append({name: each.clone() for name, each in net.state_dict().items()})

    run = fit(architecture, recipe, data, folder, progress=False, after=after)
    return run, kept[0] if kept else None


def timeless(run) -> dict:
    """All of a run but how long it took."""
    found = dataclasses.asdict(run)
    for each in (*found["history"], found["about"]):
        del each["seconds"]
    return found


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def split(data, recipe=QUICK):
    return data.split(recipe.validation, torch.Generator().manual_seed(SPLIT_SEED))


class Killed(Exception):
    pass


def padded_by(images, by):
    return torch.nn.functional.pad(images.float(), (by,) * 4, mode="reflect").to(torch.uint8)


def test_neither_shift_nor_mirror_is_the_identity(generator):
    images = torch.arange(24, dtype=torch.uint8).view(2, 2, 2, 3)
    still = dataclasses.replace(QUICK, pad=0)
    assert torch.equal(augment(images, (2, 3), still, generator), images)


def test_mirror_alone_by_hand(generator):
    image = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    images = image.expand(200, 1, 2, 3).contiguous()
    found = augment(images, (2, 3), dataclasses.replace(QUICK, pad=0, mirror=True), generator)
    turned = torch.tensor([[3, 2, 1], [6, 5, 4]], dtype=torch.uint8)
    mirrored = (found[:, 0] == turned).all((1, 2))
    assert ((found[:, 0] == image).all((1, 2)) | mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_shifts_by_hand(generator):
    # Reflection at the border: the padded rows are 2 1 2 1 and the padded columns 2 1 2 3 2.
    image = torch.tensor([[11, 12, 13], [21, 22, 23]], dtype=torch.uint8)
    rows, columns = [2, 1, 2, 1], [2, 1, 2, 3, 2]
    want = {
        tuple(10 * rows[i + a] + columns[j + b] for a in range(2) for b in range(3))
        for i in range(3) for j in range(3)
    }  # fmt: skip
    padded = padded_by(image.expand(300, 1, 2, 3), 1)
    found = augment(padded, (2, 3), QUICK, generator)
    assert found.dtype == torch.uint8
    assert {tuple(each.flatten().tolist()) for each in found} == want


def test_channels_of_an_image_move_together_and_images_apart(generator):
    base = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    padded = padded_by(torch.cat([base, base + 64], 1).expand(50, 2, 8, 8), 2)
    moving = dataclasses.replace(QUICK, pad=2, mirror=True)
    found = augment(padded, (8, 8), moving, generator)
    assert torch.equal(found[:, 1], found[:, 0] + 64)
    assert len({tuple(each.flatten().tolist()) for each in found}) > 20


@pytest.mark.parametrize("inner", [True, False])
def test_random_filters_stay_and_their_norms_move(data, tmp_path, inner):
    recipe = dataclasses.replace(FIXED, inner=inner, decay=0.1)
    net = build(TINY, recipe, data.train[split(data)[0]], 10)
    start = {name: each.clone() for name, each in net.state_dict().items()}
    _, end = train(data, tmp_path, recipe)
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    want = {"layers.1.scale", "layers.1.bias", "head.weight", "head.bias"}
    if inner:
        want |= {"layers.0.scale", "layers.0.bias"}
    assert moved == want
    if not inner:
        assert (end["layers.0.scale"] == 1).all()
        assert (end["layers.0.bias"] == 0).all()


def test_learned_filters_move(data, tmp_path):
    start = build(TINY, QUICK, data.train[split(data)[0]], 10).state_dict()
    _, end = train(data, tmp_path)
    still = {name for name in start if torch.equal(start[name], end[name])}
    assert still == {"standardize.mean", "standardize.deviation"}


def test_rates_and_decay_of_each_group(data):
    recipe = dataclasses.replace(QUICK, decay=0.25, head=2.0)
    net = build(TINY, recipe, data.train, 10)  # 16 features
    found = {
        id(each): (group["weight_decay"], group["share"])
        for group in optimizer(net, recipe).param_groups for each in group["params"]
    }  # fmt: skip
    by_name = {name: found[id(each)] for name, each in net.named_parameters()}
    assert by_name.pop("head.weight") == by_name.pop("head.bias") == (0.25, 0.125)
    for name, got in by_name.items():
        filters = name in ("layers.0.0.weight", "layers.1.0.weight")
        assert got == (0.25 if filters else 0.0, 1.0), name
    assert optimizer(net, QUICK).param_groups[-1]["share"] == 1.0


def test_it_learns(data, tmp_path):
    # Chance is 0.1; this network reaches 1.0 and 0.8.
    longer = dataclasses.replace(QUICK, epochs=12, patience=12, dropout=0.0)
    run, _ = train(data, tmp_path, longer, parse("(16)3c-2pmax"))
    assert run.history[-1]["loss"] < 0.7 * run.history[0]["loss"]
    assert run.validation > 0.7
    assert run.test > 0.6


def test_a_seed_decides_all(data, tmp_path):
    one, state = train(data, tmp_path / "one")
    torch.manual_seed(99)  # torch's own generator plays no part
    two, again = train(data, tmp_path / "two")
    assert timeless(one) == timeless(two)
    assert same(state, again)
    _, other = train(data, tmp_path / "other", dataclasses.replace(QUICK, seed=1))
    assert not same(state, other)


@pytest.mark.parametrize("recipe", [QUICK, FIXED], ids=["learned", "random"])
def test_test_labels_decide_nothing_but_the_test_accuracy(data, tmp_path, recipe):
    moved = dataclasses.replace(data, test_labels=(data.test_labels + 1) % 10)
    recipe, wide = dataclasses.replace(recipe, dropout=0.0), parse("(16)3c-2pmax")
    one, state = train(data, tmp_path / "one", recipe, wide)
    two, other = train(moved, tmp_path / "two", recipe, wide)
    assert same(state, other)
    one, two = timeless(one), timeless(two)
    assert one.pop("data") != two.pop("data")
    assert one.pop("test") > 0.2 > two.pop("test")
    assert one == two


@pytest.mark.parametrize("recipe", [QUICK, FIXED], ids=["learned", "random"])
def test_validation_images_are_not_trained_on(data, tmp_path, recipe):
    images, hold = data.train.clone(), split(data)[1]
    images[hold] = 0  # neither their moments nor their gradients may be felt
    spoiled = dataclasses.replace(data, train=images)
    recipe = dataclasses.replace(recipe, dropout=0.0)
    wide = parse("(16)3c-2pmax-(16)3c")
    one, _ = train(data, tmp_path / "one", recipe, wide)
    two, _ = train(spoiled, tmp_path / "two", recipe, wide)
    for name in ("loss", "train"):
        assert [each[name] for each in one.history] == [each[name] for each in two.history]
    assert one.validation > 0.2 > two.validation


@pytest.fixture
def told(monkeypatch):
    """Runs in which `accuracy` says what it is told to, and keeps the head that it was given."""

    def tell(values):
        values, seen = iter(values), []

        def accuracy(net, images, labels, dtype):
            seen.append(net.head.weight.detach().clone())
            return next(values)

        monkeypatch.setattr(training, "accuracy", accuracy)
        return seen

    return tell


@pytest.mark.parametrize(
    ("patience", "validation", "best"),
    [
        (2, [0.5, 0.7, 0.6, 0.7], 2),  # as good is not better
        (3, [0.5, 0.7, 0.6, 0.8, 0.1, 0.2, 0.3], 4),
        (1, [0.5, 0.5], 1),
        (9, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5, 0.6], 6),  # to the last epoch
    ],
)
def test_the_best_epoch_is_tested_and_patience_ends_a_run(
    data, tmp_path, told, patience, validation, best
):
    seen = told([*validation, 0.25])
    recipe = dataclasses.replace(QUICK, epochs=8, patience=patience)
    run, state = train(data, tmp_path, recipe)
    assert (run.best, run.validation, run.test) == (best, validation[best - 1], 0.25)
    assert [each["validation"] for each in run.history] == validation
    assert torch.equal(state["head.weight"], seen[best - 1])
    assert torch.equal(seen[-1], seen[best - 1])
    assert sum(torch.equal(each, seen[-1]) for each in seen) == 2


@pytest.mark.parametrize("recipe", [QUICK, FIXED], ids=["learned", "random"])
@pytest.mark.parametrize("call", [3, 5], ids=["in epoch 3", "before the test"])
def test_a_killed_run_goes_on_to_the_same_end(data, tmp_path, monkeypatch, recipe, call):
    whole, state = train(data, tmp_path / "whole", recipe)
    accuracy, calls = training.accuracy, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return accuracy(*arguments)

    monkeypatch.setattr(training, "STATE_EVERY_S", -1.0)
    monkeypatch.setattr(training, "accuracy", dies)
    with pytest.raises(Killed):
        train(data, tmp_path / "again", recipe)
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["state.pt"]
    modes = []
    again = fit(
        TINY, recipe, data, tmp_path / "again", progress=False,
        after=lambda net: modes.append((net.training, same(net.state_dict(), state))),
    )  # fmt: skip
    assert modes == [(False, True)]
    assert timeless(again) == timeless(whole)
    # Epochs 3 and 4 and the test, or the test alone, were still to be made.
    assert len(calls) == call + {3: 3, 5: 1}[call]
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["run.json"]


def test_states_are_kept_at_intervals(data, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(training, "save", lambda state, path: saved.append(len(state["history"])))
    monkeypatch.setattr(training, "STATE_EVERY_S", 1e6)
    train(data, tmp_path / "long")
    assert saved == []
    monkeypatch.setattr(training, "STATE_EVERY_S", -1.0)
    train(data, tmp_path / "short")
    assert saved == [1, 2, 3, 4]


def test_a_finished_run_is_read(data, tmp_path, monkeypatch):
    run, _ = train(data, tmp_path)
    monkeypatch.setattr(training, "build", None)  # whoever trains calls it
    again, state = train(data, tmp_path)
    assert again == run == read_run(tmp_path)
    assert state is None


def test_of_two_calls_at_once_the_second_reads_what_the_first_made(data, tmp_path, monkeypatch):
    folder, made, began = tmp_path / "run", [], []
    build = training.build

    def counted(*arguments):
        began.append(second.start())
        second.join(0.3)  # it has had time to begin, too
        return build(*arguments)

    call = lambda: made.append(fit(TINY, QUICK, data, folder, progress=False))  # noqa: E731
    second = threading.Thread(target=call)
    monkeypatch.setattr(training, "build", counted)
    call()
    second.join()
    assert len(began) == 1 and made[0] == made[1] == read_run(folder)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_another_run_in_the_same_folder_is_refused(data, tmp_path, monkeypatch):
    def refused(architecture=TINY, recipe=QUICK, data=data):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ValueError, match=f"{tmp_path.name}: expected the run of"):
            train(data, tmp_path, recipe, architecture)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def others():
        refused(recipe=dataclasses.replace(QUICK, rate=0.06))
        refused(architecture=parse("(6)3c-2pmax-(4)3c"))
        refused(data=dataclasses.replace(data, test=255 - data.test))

    monkeypatch.setattr(training, "STATE_EVERY_S", -1.0)
    monkeypatch.setattr(training, "predict", None)
    with pytest.raises(TypeError):
        train(data, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(training, "STATE_EVERY_S", -1.0)
    monkeypatch.setattr(training, "_short", None)  # dies before the record
    with pytest.raises(TypeError):
        train(data, tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "state.pt").exists()
    others()
    train(data, tmp_path)
    assert (tmp_path / "run.json").exists()
    others()


def test_a_recipe_that_diverges_says_so_and_leaves_no_record(data, tmp_path, refuses):
    wild = dataclasses.replace(QUICK, rate=1e6, epochs=20, patience=20)
    refuses(lambda: train(data, tmp_path, wild), "loss = ", "a finite number in epoch ", "a smaller rate")
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("recipe", "architecture", "part"),
    [
        (dataclasses.replace(QUICK, validation=171), TINY, "training images = 200: expected 201"),
        (dataclasses.replace(QUICK, pad=8), TINY, "pad = 8: expected less than the images' 8"),
        (QUICK, parse("(6)3c-9pmax"), "image = (1, 8, 8)"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(data, tmp_path, recipe, architecture, part):
    with pytest.raises(ValueError) as caught:
        train(data, tmp_path / "run", recipe, architecture)
    assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("patience", 0), ("validation", 0), ("batch", 1), ("pad", -1), ("seed", -1),
        ("rate", -0.1), ("rate", float("nan")), ("decay", -1.0), ("head", -1.0), ("warmup", 0.0),
        ("warmup", 1.0), ("momentum", 0.0), ("momentum", 1.0), ("dropout", 1.0), ("smoothing", 1.0),
        ("learned", 1), ("inner", None), ("mirror", "yes"), ("dtype", "float16"),
    ],
)  # fmt: skip
def test_recipes_are_checked(refuses, name, value):
    refuses(lambda: Recipe(**{name: value}), f"{name} = {value!r}")


def test_the_record_is_plain_json(data, tmp_path):
    run, state = train(data, tmp_path, FIXED)
    found = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert found == dataclasses.asdict(run)
    assert found["architecture"] == "(6)3c-2pmax-(4)3c-2pmax"
    assert found["recipe"] == dataclasses.asdict(FIXED)
    assert found["data"] == {"label": data.label, "sha256": data.sha256, "real": False}
    assert found["about"]["encoder"] == "plain PyTorch"
    assert len(found["history"]) == 4
    assert len(found["coherence"]) == 2
    for layer, shown in enumerate(found["coherence"]):
        rows = torch.nn.functional.normalize(state[f"layers.{layer}.weight"].flatten(1))
        want = (rows @ rows.T).fill_diagonal_(0).abs().max()
        assert shown == pytest.approx(want.item(), abs=1e-4)
