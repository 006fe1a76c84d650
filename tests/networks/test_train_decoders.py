"""The script that trains the decoders: resumable to the bit, and what it trains is what is loaded."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.testing import assert_close

from invertnb import networks
from invertnb.networks import decoder, load_decoder, train_decoders
from invertnb.networks.architecture import PREPROCESSING
from invertnb.networks.train import save
from invertnb.networks.train_decoders import DEPTH, Recipe, Stages

SMALL = Recipe(switches="known", steps=200, small=2, crops=1, side=16)


class Killed(BaseException):
    """What no handler of an ordinary error catches."""


@pytest.fixture(scope="module")
def encoder():
    g = torch.Generator().manual_seed(0)
    return networks.gaussian(networks.VGG16, generator=g, width=1 / 32)


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(1)
    small = torch.randint(256, (6, 3, 16, 16), generator=g, dtype=torch.uint8)
    large = [torch.randint(256, (3, 20, 24), generator=g, dtype=torch.uint8) for _ in range(3)]
    return small, large


@pytest.fixture(scope="module")
def trained(data, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("decoders")
    return *train_decoders.train(*data, encoder, out, SMALL, "cpu"), out


def decoded_by(net, encoder, pixels):
    """Layers with what the network in training makes of their activations, in float32, and the
    switches that the decoder wants."""
    masks, places = [], {}
    for i in range(1, DEPTH + 1):
        x = encoder.before(pixels.float() / 255, f"pool({i})")
        small, place = F.max_pool2d(x, 2, return_indices=True)
        masks.append(train_decoders.mask(x, small, place, net.switches))
        if net.switches == "known":
            places[f"pool({i})"] = encoder.switches(pixels.float() / 255, f"pool({i})")
        with torch.no_grad():
            yield f"pool({i})", net(small, i, masks), dict(places) or None


def test_a_killed_training_goes_on_to_the_same_decoders(trained, data, encoder, tmp_path, monkeypatch):
    def save_and_die(state, path):
        save(state, path)
        raise Killed

    monkeypatch.setattr(train_decoders, "save", save_and_die)
    with pytest.raises(Killed):
        train_decoders.train(*data, encoder, tmp_path, SMALL, "cpu")
    monkeypatch.setattr(train_decoders, "save", save)
    again, history = train_decoders.train(*data, encoder, tmp_path, SMALL, "cpu")
    whole, _, _ = trained
    assert len(history) == 2
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    other = Recipe(switches="known", steps=300, small=2, crops=1, side=16)
    with pytest.raises(ValueError, match="known.pt: expected the state of Recipe"):
        train_decoders.train(*data, encoder, tmp_path, other, "cpu")


def test_training_lowers_the_error_of_every_layer(trained):
    first, last = (record["mean square, crops"] for record in (trained[1][0], trained[1][-1]))
    assert all(b < a for a, b in zip(first, last, strict=True))


def test_what_is_published_is_what_was_trained(trained, data, encoder, tmp_path):
    net, history, _ = trained
    groups = {"three photographs": [each[None, :, :16, :16] for each in data[1]]}
    train_decoders.publish(net, history, encoder, groups, tmp_path, SMALL, "noise")
    path = tmp_path / "vgg16_half_decoders_known.safetensors"
    card, found = json.loads(path.with_suffix(".json").read_text()), load_decoder("known", path)
    assert found.layers == tuple(f"pool({i})" for i in range(1, DEPTH + 1))
    assert found.source.sha256 == card["sha256"] in path.with_suffix(".md").read_text()
    assert set(card["held-out relative error"]["three photographs"]) == set(found.layers)
    for layer, expected, given in decoded_by(net, encoder, data[0]):
        small = encoder.activations(data[0].float() / 255, [layer])[layer]
        assert_close(found(small, layer, given), expected, atol=0.02, rtol=0.02)  # float16


@pytest.mark.parametrize("switches", ["known", "fixed", "averaged"])
def test_unpooling_in_training_is_unpooling_in_the_decoder(switches, encoder):
    torch.manual_seed(0)
    net = Stages(encoder, switches)
    tensors = {
        name.replace("deconv", "deconv(").replace("_", ",").replace(".", ")."): each
        for name, each in net.state_dict().items()
    }
    made = decoder.Decoder(tensors, switches, PREPROCESSING["cifar10"], encoder.source)
    pixels = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(2)).byte()
    for layer, expected, given in decoded_by(net, encoder, pixels):
        f = encoder.activations(pixels.float() / 255, [layer])[layer]
        assert_close(made(f, layer, given), expected)


@pytest.mark.parametrize("switches", ["known", "fixed", "averaged"])
def test_the_cards_for_people_are_those_of_the_script(switches):
    text = decoder.embedded(switches).with_suffix(".md").read_text()
    assert text == train_decoders.model_card(networks.decoder_card(switches))


def test_one_photograph_in_ten_is_held_out(tmp_path):
    for i in range(11):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
    learned, held = train_decoders.photographs(tmp_path)
    assert [int(each[0, 0, 0]) for each in held] == [train_decoders.HELD_OUT - 1]
    assert len(learned) == 10
    for path in list(tmp_path.iterdir())[:3]:
        path.unlink()
    with pytest.raises(ValueError, match="expected at least 10 photographs, found 8"):
        train_decoders.photographs(tmp_path)


def test_crops_and_middles():
    photograph = torch.arange(3 * 40 * 50).view(3, 40, 50)
    g = torch.Generator().manual_seed(0)
    seen = [train_decoders.crop(photograph, 16, g) for _ in range(20)]
    steps = {int(each[0, 0, 1] - each[0, 0, 0]) for each in seen}
    assert steps == {1, -1} and {each.shape for each in seen} == {(3, 16, 16)}
    middle = train_decoders.middle(photograph)
    assert middle.shape == (3, 32, 48) and int(middle[0, 0, 0]) == 4 * 50 + 1
