"""The training of the embedded checkpoint, on a few small images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from invertnb import networks
from invertnb.networks import VGG16, train, train_resnet
from invertnb.networks.train import Recipe

SMALL = Recipe(width=1 / 32, epochs=3, batch=10)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for split, many in (("train", 4), ("test", 50)):
        for c in range(10):
            folder = tmp_path / "data" / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(many):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_result(data, tmp_path, monkeypatch):
    whole, history = train.train(data, tmp_path / "whole", SMALL, "cpu")
    save = train.save

    def save_and_die(state, path):
        save(state, path)
        if len(state["history"]) == 2:
            raise Killed

    monkeypatch.setattr(train, "save", save_and_die)
    with pytest.raises(Killed):
        train.train(data, tmp_path / "again", SMALL, "cpu")
    monkeypatch.setattr(train, "save", save)
    again, other = train.train(data, tmp_path / "again", SMALL, "cpu")
    assert len(history) == len(other) == 3
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="state.pt: expected the state of Recipe"):
        train.train(data, tmp_path / "again", Recipe(width=1 / 32, epochs=4, batch=10), "cpu")


def test_the_resnet_to_measure_goes_on_from_its_state(data, tmp_path):
    one, two = Recipe(width=1.0, epochs=1, batch=10), Recipe(width=1.0, epochs=2, batch=10)
    net, history = train_resnet.train(data, tmp_path, one, "cpu")
    again, same = train_resnet.train(data, tmp_path, one, "cpu")
    assert same == history and len(history) == 1
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="state.pt: expected the state of Recipe"):
        train_resnet.train(data, tmp_path, two, "cpu")


def test_what_is_published_is_the_network_with_its_card(data, tmp_path):
    net, history = train.train(data, tmp_path, SMALL, "cpu")
    train.publish(net, history, data, tmp_path, SMALL)
    path = tmp_path / train.EMBEDDED.name
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == networks.load("vgg16", path).source.sha256
    assert {len(curve) for curve in card["curves"].values()} == {3}
    text = path.with_suffix(".md").read_text()
    assert card["sha256"] in text and text.count("\n| ") == 4 and "Seed 0" in text
    assert set(load_file(path)) == {
        f"{name}.{part}" for name in (*VGG16.convolutions, "classifier") for part in ("weight", "bias")
    }


def test_folding_batch_norm_changes_nothing():
    torch.manual_seed(0)
    net = train.network(1 / 32).double()
    for module in net:
        if isinstance(module, torch.nn.BatchNorm2d):
            for each in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(each)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    net.eval()
    tensors = train.fold(net)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected, y = net[:-1](x), x
        for name in VGG16.layers:
            if name.startswith("pool"):
                y = torch.nn.functional.max_pool2d(y, 2)
            else:
                w, b = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
                y = torch.nn.functional.conv2d(y, w, b, padding=1).relu()
    torch.testing.assert_close(y.flatten(1), expected)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [train.schedule(step, 100, Recipe()) for step in range(101)]
    assert max(rates) == pytest.approx(0.1) and rates.index(max(rates)) in (14, 15)
    assert rates[-1] == 0 and all(a > b for a, b in zip(rates[16:], rates[17:], strict=False))


def test_augmentation_moves_mirrors_and_cuts_and_leaves_the_rest():
    recipe = Recipe(cutout=0, pad=2)
    pixels = torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 8, 8)
    padded = torch.nn.functional.pad(pixels.float(), (2,) * 4, mode="reflect")
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        moved = train.augment(pixels, recipe, generator)
        cut = moved == 0
        for n in range(2):
            windows = padded[n].unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
            either = train.normalize(torch.cat([windows, windows.flip(3)]))
            same = ((either - moved[n]).abs() < 1e-5) | cut[n]
            assert same.flatten(1).all(1).any()
            assert cut[n].sum() <= 3  # one pixel, in three channels
