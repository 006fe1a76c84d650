"""Footnote 9: ResNet-18 through the one step; its convolutions, blocks, results and verdict."""

import json
import math
import types

import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch.testing import assert_close

from invertnb import FilterBank, adjoint_test, networks, notebook, reconstruct, relative_error
from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import residual, residual_network, residual_steps
from invertnb.chapters.inverting_vgg.residual_network import Convolution
from invertnb.chapters.inverting_vgg.residual_steps import (
    ALL, LARGEST, NORMS, OWN, PASSED, RANDOM, RULES, WINDOWS,
)  # fmt: skip

torch.manual_seed(0)  # of torchvision's initial weights, which no result of ours depends on


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bank(K=6, M=4, l=3, stride=1, left=0):
    drawn = FilterBank.gaussian(K, M, l, dims=2, generator=generator(K + M))
    return Convolution(drawn.normalized().weight, stride, (l - 1) // 2, left)


STRIDED = {"3 x 3": bank(8, 4, 3, 2, 1), "1 x 1": bank(8, 4, 1, 2, 1)}


@pytest.fixture(scope="module")
def p():
    return chapter.Parameters()


@pytest.fixture(scope="module")
def found(p):
    """Random weights on two photographs of 64 x 64."""
    pixels = networks.open_images("embedded").first(2).all()[:, :, 80:144, 80:144]
    return residual.compute(types.SimpleNamespace(pixels=pixels), p.generator)


@pytest.fixture(scope="module")
def results(found):
    return residual.results(found)


# ---- convolutions as matrices


@pytest.mark.parametrize("filters", STRIDED.values(), ids=STRIDED)
def test_a_strided_convolution_is_the_networks_and_its_transpose(filters):
    x = torch.randn(2, 4, 8, 6, generator=generator(1)).double()
    W = filters.matrix((8, 6))
    h = filters.analysis(x)
    assert filters.code_size((8, 6)) == (4, 3) == tuple(h.shape[2:])
    expected = F.conv2d(x, filters.weight, stride=2, padding=filters.padding)
    assert torch.equal(h, expected)
    back = filters.synthesis(h, (8, 6))
    assert back.shape == x.shape
    assert_close(back.flatten(1), (W.T @ W @ x.flatten(1).T).T)
    assert adjoint_test(filters, (8, 6), generator=generator(2)) < 1e-12


def test_a_size_with_another_remainder_is_refused():
    with pytest.raises(ValueError, match="size"):
        STRIDED["3 x 3"].analysis(torch.ones(1, 4, 7, 7).double())
    with pytest.raises(ValueError, match="left = 2: expected an integer from 0 to 1"):
        Convolution(torch.ones(1, 1, 3, 3), 2, 1, 2)


def test_banks_of_the_network_are_its_convolutions(found):
    trained = found.trained
    assert len(trained.convolutions) == len(found.layers) == 19
    for name, module in trained.convolutions.items():
        raw = trained.bank(name)
        x = torch.randn(1, raw.M, 8, 8, generator=generator(3))
        assert_close(raw.analysis(x), module(x), atol=1e-4, rtol=1e-4)
        assert raw.normalized().weight.flatten(1).norm(dim=1).allclose(torch.ones(raw.K))


# ---- the network


def test_random_weights_come_from_the_generator_alone(p):
    torch.manual_seed(5)
    first = residual_network.load("random", generator(4)).net.state_dict()
    torch.manual_seed(6)
    again = residual_network.load("random", generator(4)).net.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    weight = first["layer4.1.conv2.weight"]
    assert float(weight.var()) == pytest.approx(2 / (512 * 9), rel=0.01)
    other = residual_network.load("random", generator(5)).net
    assert not torch.equal(weight, other.layer4[1].conv2.weight)


def test_calibration_sets_the_statistics_of_these_images(found):
    """With calibrated batch norms, evaluation and training mode agree but for n / (n - 1)."""
    trained = found.trained
    seen, inputs = residual_network.run(trained, found.pixels)
    for name in ("layer1.0.conv1", "layer2.0.conv1"):
        h = trained.convolutions[name](seen[name].f)
        assert_close(trained.norm(name).running_mean, h.mean((0, 2, 3)), atol=2e-2, rtol=0)
        assert_close(trained.norm(name).running_var, h.var((0, 2, 3)), atol=0, rtol=5e-2)


def test_what_is_seen_and_passed_by_hand(found):
    seen, inputs = residual_network.run(found.trained, found.pixels)
    net = found.trained.net
    with torch.no_grad():
        x = found.trained.preprocessing(found.pixels)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for block in net.layer1:
            x = block(x)
        block = net.layer2[0]
        inner = torch.relu(block.bn1(block.conv1(x)))
        y = torch.relu(block.bn2(block.conv2(inner)) + block.downsample(x))
    assert torch.equal(inputs["layer2.0"], x)
    assert torch.equal(seen["layer2.0.conv1"].f, x)
    assert torch.equal(seen["layer2.0.downsample.0"].f, x)
    assert torch.equal(seen["layer2.0.conv2"].f, inner)
    assert torch.equal(seen["layer2.0.conv1"].passed, inner > 0)
    assert torch.equal(seen["layer2.0.conv2"].passed, y > 0)
    assert torch.equal(seen["layer2.0.downsample.0"].passed, y > 0)
    assert (x >= 0).all() and (y == 0).any()


def test_sides_that_would_not_stay_even_are_refused(found):
    with pytest.raises(ValueError, match="multiples of 64"):
        residual_network.run(found.trained, torch.rand(1, 3, 96, 64))


def test_files_are_checked(tmp_path, found):
    with pytest.raises(FileNotFoundError, match="resnet = 'none.safetensors': expected random"):
        residual_network.load(str(tmp_path / "none.safetensors"), generator())
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="expected a file .safetensors"):
        residual_network.load(str(bad), generator())
    save_file({"fc.bias": torch.zeros(7)}, bad)
    with pytest.raises(ValueError, match="10 or 1000 classes"):
        residual_network.load(str(bad), generator())
    save_file({"fc.bias": torch.zeros(10)}, bad)
    with pytest.raises(ValueError, match=r"bad.safetensors.*torchvision's ResNet-18 \(Missing"):
        residual_network.load(str(bad), generator())


def test_a_trained_file_gives_its_weights_and_its_preprocessing(tmp_path):
    net = residual_network.resnet18(num_classes=10)
    path = tmp_path / "resnet18_cifar10.safetensors"
    save_file({name: each.contiguous() for name, each in net.state_dict().items()}, path)
    loaded = residual_network.load(str(path), generator())
    assert loaded.source.label == "ResNet-18 trained on CIFAR-10, not the paper's"
    assert not loaded.source.real and len(loaded.source.sha256) == 64
    assert loaded.preprocessing.name == "cifar10"
    assert torch.equal(loaded.net.layer3[1].conv2.weight, net.layer3[1].conv2.weight)
    assert not loaded.net.training


def test_torchvisions_weights_are_downloaded_under_their_hash(monkeypatch, tmp_path):
    """From a file that stands in for the server's; it has 1000 classes, so it counts as real."""
    state = residual_network.resnet18().state_dict()
    torch.save(state, tmp_path / "it.pth")
    asked = []

    def fetch(url, digest, folder, *, progress):
        asked.append((url.rpartition("/")[2], digest))
        return tmp_path / "it.pth"

    monkeypatch.setattr(residual_network.download, "fetch", fetch)
    loaded = residual_network.load("torchvision", generator())
    assert asked == [("resnet18-f37072fd.pth", "f37072fd")]
    assert loaded.source.real and loaded.source.weights == "IMAGENET1K_V1"
    assert loaded.preprocessing.name == "torchvision"
    assert torch.equal(loaded.net.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


# ---- one step


def test_steps_are_those_of_reconstruct():
    f = torch.rand(2, 4, 8, 8, generator=generator(7)).double()
    filters = bank()
    steps = residual_steps.steps(f, filters)
    k = filters.K * 64 // 4
    for rule, of in {
        WINDOWS: {}, LARGEST: {"block": (1, 1), "k": k}, ALL: {"method": "transpose"},
        PASSED: {"block": (1, 1), "pooling": "rectified"},
    }.items():  # fmt: skip
        assert_close(steps[rule].error, relative_error(f, reconstruct(f, filters, **of).signal))


@pytest.mark.parametrize("filters", [bank(), *STRIDED.values()], ids=["stride 1", *STRIDED])
def test_kept_over_ratio_is_the_cosine(filters):
    """Of every rule whose code holds entries of W f, and then error^2 = 2 - 2 cos."""
    f = torch.rand(3, 4, 8, 8, generator=generator(8)).double()
    mask = torch.rand(filters.analysis(f).shape, generator=generator(9)) > 0.4
    for step in residual_steps.steps(f, filters, mask).values():
        assert_close(step.error.square(), 2 - 2 * step.kept / step.ratio)


def test_what_the_network_passes_replaces_the_sign():
    f = torch.rand(1, 4, 8, 8, generator=generator(10)).double()
    filters = bank()
    h = filters.analysis(f)
    everything = torch.ones_like(h, dtype=torch.bool)
    steps = residual_steps.steps(f, filters, everything)
    assert_close(steps[PASSED].error, steps[ALL].error)
    assert float(residual_steps.steps(f, filters)[PASSED].error) > float(steps[ALL].error)


@pytest.mark.parametrize("filters", STRIDED.values(), ids=STRIDED)
def test_the_floor_is_the_projection_to_the_rows(filters):
    f = torch.rand(3, 4, 8, 8, generator=generator(11)).double()
    W = filters.matrix((8, 8))
    flat = f.flatten(1)
    projected = (torch.linalg.pinv(W) @ W @ flat.T).T
    cosine = projected.norm(dim=1) / flat.norm(dim=1)
    assert_close(residual_steps.least(f, filters), (2 - 2 * cosine).sqrt(), atol=5e-3, rtol=0)


def test_a_shortcut_of_stride_two_sees_a_quarter():
    """Entries of equal size: half of the norm is seen, and the error at equal norm is 1."""
    f = torch.ones(1, 4, 8, 8).double()
    filters = STRIDED["1 x 1"]
    assert torch.linalg.matrix_rank(filters.weight.flatten(1)) == 4
    assert_close(residual_steps.least(f, filters), torch.ones(1).double(), atol=1e-4, rtol=0)


def test_only_strided_layers_have_a_floor_and_none_goes_below(found):
    for name, each in found.layers.items():
        strided = each.bank.stride == 2
        assert strided == bool(each.floor) == (each.places == 0.5)
        for which, steps in {OWN: each.own, RANDOM: each.random[0]}.items() if strided else ():
            for rule in RULES:
                assert (each.floor[which] <= steps[rule].error + 1e-3).all(), (name, rule)


def test_windows_with_more_than_one_nonzero_are_counted():
    passed = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert residual_steps.crowded(passed) == 0
    passed[0, 0, 0, :2] = passed[0, 0, 0, 2] = passed[0, 0, 2, 0] = True
    assert residual_steps.crowded(passed) == pytest.approx(1 / 3)


def test_batch_norm_by_hand():
    """Scales alone are another W; with shifts the code holds no entries of W f."""
    f = torch.rand(2, 4, 8, 8, generator=generator(12)).double()
    norm = torch.nn.BatchNorm2d(6).double().eval()
    draw = torch.rand(4, 6, generator=generator(13)).double()
    norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = draw - draw.new_tensor(
        [[0.5], [0], [0], [-0.1]]
    )
    filters = bank()
    found = residual_steps.normed(f, filters, norm)
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    scaled = FilterBank(scale.view(-1, 1, 1, 1) * filters.weight, 1, 1)
    expected = relative_error(f, reconstruct(f, scaled).signal)
    assert_close(found[NORMS[1]], expected)
    with torch.no_grad():
        h = norm(filters.analysis(f))
        model = residual_steps.ModelSparse((2, 2), None)
        back = scaled.synthesis(model.project(h).code, (8, 8))
    back *= (f.flatten(1).norm(dim=1) / back.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    assert_close(found[NORMS[2]], relative_error(f, back))


# ---- blocks


def undone(factor, iterations=12):
    """F(x) = factor * x, whose fixed-point iteration is a geometric series."""
    x = torch.rand(2, 1, 2, 2, generator=generator(14)).double() + 0.1
    return residual_steps.undo(lambda each: factor * each, x, generator(15), iterations)


@pytest.mark.parametrize("factor", [0.5, -0.8, 1.5])
def test_a_linear_branch_converges_at_its_factor(factor):
    found = undone(factor)
    expected = abs(factor) ** torch.arange(1, 14).double()
    assert_close(found.errors, expected[:, None].expand(13, 2))
    assert_close(found.expansion, torch.full((2,), abs(factor)).double())
    assert_close(found.growth, torch.full((2,), abs(factor)).double())
    assert found.cut == 0
    assert_close(found.clipped, found.errors[-1])  # nothing was cut


def test_growth_is_the_largest_eigenvalue_and_not_the_largest_singular_value():
    turned = torch.tensor([[0.5, 3.0], [0.0, 0.4]]).double()

    def F_of(x):
        return (turned @ x.flatten(1).T).T.view_as(x)

    x = torch.tensor([-6.0, 1.0]).double().view(1, 2, 1, 1)  # F(x) = (0, 0.4)
    found = residual_steps.undo(F_of, x, generator(16), 60)
    assert float(found.growth) == pytest.approx(0.5, abs=0.01)
    assert float(found.expansion) > 1  # although it converges
    assert float(found.errors[-1]) < 1e-12


def test_what_relu_cut_off_is_lost():
    """u = x + F(x) < 0 at one entry of two: from ReLU(u) the iteration finds something else."""
    x = torch.tensor([1.0, 1.0]).double().view(1, 2, 1, 1)
    branch = torch.tensor([-1.5, 0.5]).double().view(1, 2, 1, 1)
    found = residual_steps.undo(lambda each: branch.expand_as(each), x, generator(17), 5)
    assert found.cut == 0.5
    assert float(found.errors[-1]) == 0
    assert float(found.clipped) == pytest.approx(0.5 / math.sqrt(2))


def test_branch_is_what_a_block_adds(found):
    seen, inputs = residual_network.run(found.trained, found.pixels)
    block, x = found.trained.blocks["layer3.1"], inputs["layer3.1"]
    with torch.no_grad():
        assert_close(torch.relu(x + residual_network.branch(block)(x)), block(x.clone()))
    assert set(found.blocks) == {"layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"}


# ---- the page


def test_pictures_are_cut_from_their_middle():
    pixels = torch.arange(200.0).expand(1, 3, 200, 200)
    cut = residual_steps.cut(pixels, 128)
    assert cut.shape == (1, 3, 128, 128)
    assert cut[0, 0, 0, 0] == 36 and cut[0, 0, 0, -1] == 163
    assert residual_steps.cut(pixels[..., :100, :100], 128).shape[2:] == (64, 64)
    assert residual_steps.cut(pixels[..., :40, :40], 128).shape[2:] == (64, 64)


def test_own_random_filters_are_as_good_as_drawn_ones(results):
    """The network's weights are random here: a check that nothing favors either side."""
    for layer in results["layers"].values():
        assert layer[OWN][WINDOWS][0] == pytest.approx(layer[RANDOM][WINDOWS][0], abs=0.08)
        assert layer["activations"] == pytest.approx(math.sqrt(2), abs=0.05)


def test_results_are_json_and_drawn(results):
    again = json.loads(json.dumps(results, allow_nan=False))
    assert again["images"] == 2 and again["side"] == 64 and not again["real"]
    assert {kind: len(layers) for kind, layers in residual.by_kind(again).items()} == {
        "3 x 3": 13, "3 x 3, stride 2": 3, "shortcut 1 x 1, stride 2": 3,
    }  # fmt: skip
    assert isinstance(residual.draw({"live": results, "again": again}), Figure)


def made(errors, real=False, label="net"):
    """Results of a 3 x 3 convolution and a shortcut with these errors."""
    layers = {
        f"layer2.0.{i}": {"shape": [8, 4, l, 2], OWN: {WINDOWS: [error, 0.0]}}
        for i, (l, error) in enumerate(zip((3, 1), errors, strict=True))
    }
    return {"network": label, "real": real, "layers": layers}


def test_the_criterion_is_the_largest_error_of_table_3():
    assert residual.largest_published() == 1.051
    assert residual.holds(made((1.05, 1.051)))
    assert not residual.holds(made((1.0, 1.06)))
    assert residual.holds(made((1.0, 1.06)), shortcuts=False)
    assert not residual.holds(made((1.06, 1.0)), shortcuts=False)


def test_a_verdict_needs_weights_from_imagenet():
    open_ = residual.verdict([made((0.9, 1.2), label="a"), made((0.9, 1.0), label="b")])
    assert open_["value"] is None
    assert open_["readings"] == {
        "a, all convolutions": False, "a, 3 x 3 only": True,
        "b, all convolutions": True, "b, 3 x 3 only": True,
    }  # fmt: skip
    closed = residual.verdict([made((0.9, 1.0), label="a"), made((0.9, 1.2), real=True, label="b")])
    assert closed["value"] is False
    assert closed["readings"] == {
        "a, all convolutions": True, "a, 3 x 3 only": True, "b, 3 x 3 only": True,
    }  # fmt: skip
    for each in (open_, closed):
        notebook.record("footnote9.resnet", **each)


def test_a_recording_says_what_it_is(p, found, monkeypatch):
    monkeypatch.setattr(residual, "measure", lambda *_: found)
    made = residual.recording(
        types.SimpleNamespace(
            photographs=2, banks=1, device="cpu", resnet="random", pictures=p.pictures,
            generator=p.generator,
        )
    )
    assert made.label == "resnet18-random-2"
    assert made.inputs["weights"] == "ResNet-18 with random weights"
    assert made.results == residual.results(found)
