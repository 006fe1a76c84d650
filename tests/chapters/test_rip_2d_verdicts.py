"""Verdicts and recordings of the chapter on the model-RIP in 2-D: which network gives a value."""

import ast
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from invertnb import networks
from invertnb.build.chapters import chapters
from invertnb.chapters import rip_2d as chapter
from invertnb.chapters.rip_2d import coherent, ratios, recordings, verdicts
from invertnb.networks import VGG16, Source
from invertnb.notebook import Recorded, claims

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network():
    """A few filters a layer."""
    drawn = networks.gaussian(VGG16, generator=torch.Generator().manual_seed(7), width=0.0625)
    return drawn.truncated("conv(3,3)")


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(8))


class Pictures(list):
    """Pixels in place of files."""

    label = "made up"

    def all(self):
        return torch.stack(list(self))


def found(values):
    """Ratios that are the same by any convention."""
    return ratios.Ratios(*[torch.tensor(values)] * 3)


def made_up(learned, random, real=False, layer="conv(5,2)", sides=("before ReLU", "after ReLU")):
    """Data with chosen ratios, for the rules of the verdicts."""
    both = [chapter.LayerRatios(found(r), found(r), 1.0, 1.0, 0.1) for r in (learned, random)]
    each = {"learned": learned, "random": random}
    recovered = {
        (filters, side, share): SimpleNamespace(
            ratios=found(r), residual=torch.ones(2), first=torch.ones(2), windows=torch.ones(2),
            nonzeros=torch.ones(2), stripe=torch.ones(2), coherence=torch.ones(2), seconds=1.0,
        )
        for filters, r in each.items() for side in sides for share in (0.3, 0.1)
    }
    flat = SimpleNamespace(attained=5.0)
    points = {str(i): coherent.Point(0.1 * i, 0.1 * i, 0.1 * i) for i in range(1, 5)}
    source = Source("file" if real else "embedded", "a network", real=real)
    chain = SimpleNamespace(source=source, layers=("conv(1,1)",), architecture=VGG16)
    return SimpleNamespace(
        network=chain, layer=layer, pictures=Pictures([0, 1]),
        layers={layer: both[0]}, twin=both[1], recovered=recovered, random={20.6: both[1].signed},
        constants={"learned": {0.8: flat}, "random": {0.8: flat}},
        families={"layers": points, "blends": points, "twins": points},
    )  # fmt: skip


def as_recorded(data):
    """The same as a recording."""
    about = {"inputs": {"weights": "kept weights", "images": "kept images"}}
    return {"kept": Recorded("kept", about, recordings.live(data))}


def all_verdicts(data, recorded):
    return {
        "figure3.a": verdicts.center(data, recorded),
        "figure3.a.tail": verdicts.tail(data, recorded),
        "figure3.b": verdicts.offset(data, recorded, "before ReLU"),
        "figure3.c": verdicts.offset(data, recorded, "after ReLU"),
        "section4.4.delta": verdicts.range_of(data, recorded),
        "figure3.learned-random": verdicts.learned_random(data, recorded),
        "section4.4.coherence": verdicts.coherence(data, recorded),
    }


RATIO, OTHER, THIRD = [0.99, 1.01, 1.03], [0.99, 1.0, 1.01], [0.7, 0.8, 0.9]


def test_a_stand_in_is_never_the_value():
    stand_in = made_up(RATIO, OTHER)
    partial = made_up(RATIO, OTHER, real=True, layer="conv(2,2)")
    for data in (stand_in, partial):
        for other in (stand_in, partial):
            for verdict in all_verdicts(data, as_recorded(other)).values():
                assert verdict["value"] is None and "a network" not in verdict["note"]
                assert any(name.startswith(recordings.words(data.network))
                           for name in verdict["readings"])  # fmt: skip
    assert set(verdicts.center(stand_in, {})["readings"]) >= {
        verdicts.ran(stand_in), f"{verdicts.ran(stand_in)}, cropped"
    }  # fmt: skip


def test_the_value_is_that_of_real_weights_live_before_recorded():
    real, stand_in, other = (
        made_up(RATIO, OTHER, True), made_up(THIRD, OTHER), made_up(THIRD, OTHER, True)
    )  # fmt: skip
    for data, recorded, note in (
        (real, stand_in, "a network; made up"), (real, other, "a network; made up"),
        (stand_in, real, "recorded: kept weights; kept images"),
    ):  # fmt: skip
        judged = all_verdicts(data, as_recorded(recorded))
        for claim, verdict in judged.items():
            assert verdict["value"] is not None and verdict["note"].endswith(f"; {note}"), claim
            assert "recorded: " not in note or not any(
                name.startswith("real weights") and name.endswith("conv(5,2) (2 images, recorded)")
                for name in verdict["readings"]
            )
        assert judged["figure3.a"]["value"] == pytest.approx(1.01, abs=0.005)
        assert judged["figure3.learned-random"]["value"] is True
        assert judged["section4.4.coherence"]["value"] is True


def test_values_of_the_verdicts():
    data = made_up([0.9, 0.98, 1.06], OTHER, True)
    assert verdicts.center(data, {})["value"] == pytest.approx(0.98)
    assert verdicts.tail(data, {})["value"] == pytest.approx(1 - 0.81)
    assert verdicts.offset(data, {}, "after ReLU")["value"] == pytest.approx(0.02)
    assert verdicts.range_of(data, {})["value"] == pytest.approx(0.1)


def test_a_layer_after_a_pooling_has_no_side_before_relu():
    data = made_up(RATIO, OTHER, True, "conv(2,1)", ("after ReLU",))
    judged = all_verdicts(data, as_recorded(data))
    before = judged["figure3.b"]["readings"]
    assert before and all("after ReLU" in name or "random" in name for name in before)
    assert all(verdict["value"] is None for verdict in judged.values())


def test_alike_wants_centers_and_widths():
    random = {"mean": 1.0, "sd": 0.01}
    assert verdicts.alike({"mean": 1.0, "sd": 0.02}, random)
    assert not verdicts.alike({"mean": 1.06, "sd": 0.02}, random)
    assert not verdicts.alike({"mean": 1.0, "sd": 0.04}, random)
    assert not verdicts.alike({"mean": 1.0, "sd": 0.005}, random)


def test_every_claim_of_the_chapter_is_recorded_once():
    ours = sorted(c.id for c in claims.load().values() if c.chapter == "rip_2d")
    page = chapters(ROOT)["rip_2d"]
    calls = [
        node.args[0].value
        for cell in page.read().cells if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "record"
    ]  # fmt: skip
    assert sorted(calls) == ours == sorted(all_verdicts(made_up(RATIO, OTHER), {}))


def test_labels_and_words_of_recordings(network, pixels, monkeypatch):
    monkeypatch.setattr(recordings, "inputs", lambda *given: {})
    monkeypatch.setattr(recordings, "FILLED", (0.5,))
    monkeypatch.setattr(recordings, "SEARCH", {"starts": 1, "steps": 2})
    monkeypatch.setattr(chapter, "SIDE", 4)
    monkeypatch.setattr(recordings, "MIDDLE", 4)
    for last, real, label, words in (
        ("conv(2,1)", True, "vgg16-blocks12-2", "real weights of blocks 1 and 2"),
        ("pool(2)", False, "vgg16-blocks12-narrow-2", "narrow weights of blocks 1 and 2"),
        ("conv(1,2)", True, "vgg16-blocks1-2", "real weights of block 1"),
    ):
        part = network.truncated(last)
        source = Source("file", "a file", sha256="0" * 64, real=real)
        part.source = source
        monkeypatch.setattr(chapter, "load", lambda p, part=part: part)
        monkeypatch.setattr(chapter.Parameters, "pictures", lambda p, count: Pictures(pixels))
        kept = recordings.network(chapter.Parameters(samples=2, photographs=2))
        assert (kept.label, kept.results["network"]) == (label, words)
        assert kept.results["real"] == real and kept.results["images"] == 2
        assert list(kept.results["layers"]) == list(part.convolutions[1:])
    whole = SimpleNamespace(
        source=Source("embedded", ""), layers=VGG16.layers, architecture=VGG16
    )  # fmt: skip
    assert recordings.words(whole) == "embedded checkpoint"


@pytest.mark.parametrize("last", ["conv(1,2)", "conv(2,1)", "conv(3,1)"])
def test_a_network_that_ends_early_has_a_page(network, pixels, last, monkeypatch):
    part = network.truncated(last)
    monkeypatch.setattr(chapter.Parameters, "network", lambda p: part)
    monkeypatch.setattr(chapter.Parameters, "pictures", lambda p, count: Pictures(pixels))
    monkeypatch.setattr(chapter, "CHANNELS", 8)
    monkeypatch.setattr(chapter, "SIDE", 4)
    data = chapter.compute(chapter.Parameters(samples=3, photographs=1))
    assert data.layer == last and set(data.layers) == set(part.convolutions[1:])
    assert len(data.layers[last].signed.full) == len(data.twin.signed.full) == 3
    assert isinstance(chapter.draw_recovered(data.recovered), Figure)
    for verdict in all_verdicts(data, {}).values():
        assert verdict["value"] is None


def test_a_network_without_a_layer_on_activations_is_refused(network, monkeypatch):
    monkeypatch.setattr(chapter.Parameters, "network", lambda p: network.truncated("conv(1,1)"))
    with pytest.raises(ValueError, match=r"^weights = .*expected .*conv\(1,2\)"):
        chapter.compute(chapter.Parameters(samples=3, photographs=1))


def test_spread_leaves_out_what_is_not_finite():
    found = recordings.spread(torch.tensor([1.0, math.nan, 3.0]))
    assert (found["mean"], found["low"], found["high"], found["sd"]) == (2, 1, 3, 1)
