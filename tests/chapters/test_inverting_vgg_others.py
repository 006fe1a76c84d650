"""Inverting VGG: more iterations, and other ways back, against cases that can be done by hand."""

import dataclasses
import math

import pytest
import torch

from invertnb import FilterBank, ModelSparse, reconstruct, relative_error
from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import inputs, others
from invertnb.networks import VGG16, Network, Source
from invertnb.networks.architecture import PREPROCESSING

EVERY = ModelSparse((2, 2), None)
P = chapter.Parameters()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def identity(M=1):
    return FilterBank(torch.eye(M, dtype=torch.float64).view(M, M, 1, 1))


def bank(K=6, M=3, seed=0):
    drawn = FilterBank.gaussian(K, M, 3, dims=2, padding=1, generator=generator(seed))
    return drawn.normalized()


def signals(M=3, many=2, side=8, seed=1):
    return torch.rand(many, M, side, side, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def small():
    """Two photographs of 32 pixels and three blocks of a network with few random filters."""
    draw, tensors, channels = generator(7), {}, 3
    for name in VGG16.convolutions[:7]:
        weight = torch.randn(4, channels, 3, 3, generator=draw) / math.sqrt(4.5 * channels)
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, torch.full((4,), 0.1)
        channels = 4
    network = Network(VGG16, tensors, PREPROCESSING["cifar10"], Source("random", "small"))
    pictures = dataclasses.replace(P.pictures(2), side=32, resize=36)
    return inputs.gather(network, pictures, 2, P.generator)


@pytest.fixture(scope="module")
def computed(small):
    return others.compute(small, P.generator)


# --- The middle of a map ----------------------------------------------------------------------


def test_the_middle_of_a_map():
    f = torch.arange(36.0).view(1, 1, 6, 6)
    assert inputs.middle(f, 2).flatten().tolist() == [14, 15, 20, 21]
    assert inputs.middle(f, 3, 2).flatten().tolist() == [14, 15, 20, 21]
    assert torch.equal(inputs.middle(f, 14), f)
    assert inputs.middle(torch.zeros(1, 1, 7, 5), 14).shape == (1, 1, 7, 5)
    assert inputs.middle(torch.zeros(1, 1, 7, 5), 14, 2).shape == (1, 1, 6, 4)
    with pytest.raises(ValueError, match="f = .*expected maps of at least 2 x 2"):
        inputs.middle(torch.zeros(1, 1, 1, 4), 14, 2)
    with pytest.raises(ValueError, match="side = 1: expected an integer of at least 2"):
        inputs.middle(f, 1, 2)


# --- More iterations --------------------------------------------------------------------------


def test_orthonormal_rows_keep_the_largest_of_each_window_at_once():
    f = torch.tensor([[3.0, 1, 0, 0], [0, 0, 0, -2], [1, 1, 0, 0], [1, 1, 0, 4]]).double()
    curve, last = others.iterations(f.view(1, 1, 4, 4), identity(), EVERY, 3)
    total, kept = 9 + 1 + 4 + 4 + 16, 9 + 4 + 1 + 16
    assert torch.allclose(curve, torch.full((3, 1), math.sqrt(1 - kept / total)).double())
    assert last.flatten().nonzero().numel() == 4
    curve, last = others.iterations(f.view(1, 1, 4, 4), identity(), ModelSparse((2, 2), 2), 1)
    assert last[last != 0].tolist() == [3, 4]
    assert float(curve) == pytest.approx(math.sqrt(1 - 25 / total))


def test_the_first_iteration_is_one_step_at_its_best_length_and_the_rest_fall():
    f, W = signals(), bank()
    curve, last = others.iterations(f, W, EVERY, 8)
    assert torch.allclose(curve[0], others.best_length(f, reconstruct(f, W).signal))
    assert (curve.diff(dim=0) < 0).all()
    assert torch.allclose(curve[-1], relative_error(f, last))


def test_unit_steps_on_three_equal_filters_double_the_error():
    # One pixel: z = 1 in all three maps, W^T z = 3, so f - W^T z goes 1, -2, 4, -8, 16.
    three = FilterBank(torch.ones(3, 1, 1, 1, dtype=torch.float64))
    f = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    f[0, 0, 0, 0] = 1
    assert others.unit_steps(f, three, EVERY).flatten().tolist() == [1, 2, 4, 8, 16]
    assert others.curvature(f, three, EVERY, generator()) == pytest.approx(3)
    # Two go back and forth, at curvature 2; one is there at once.
    two = FilterBank(torch.ones(2, 1, 1, 1, dtype=torch.float64))
    assert others.unit_steps(f, two, EVERY, 3).flatten().tolist() == [1, 1, 1, 1]
    assert others.curvature(f, two, EVERY, generator()) == pytest.approx(2)
    assert others.unit_steps(f, identity(), EVERY, 2).flatten().tolist() == [1, 0, 0]


def test_curvature_looks_at_the_support_only():
    f, W = signals(side=4, many=1), bank()
    support = EVERY.project(W.analysis(f)).code.flatten() != 0
    rows = W.matrix((4, 4))[support]
    largest = float(torch.linalg.eigvalsh(rows @ rows.T)[-1])
    found = others.curvature(f, W, EVERY, generator())
    assert 0.95 * largest < found <= largest * (1 + 1e-9)
    assert found < W.norm((4, 4)) ** 2


# --- What the model can reach -----------------------------------------------------------------


def test_within_reach_solves_the_counting_bound():
    # K = 2 M: KL(1/2 || t) = 2 log 2 is 4 t (1 - t) = 1/16.
    t = (1 - math.sqrt(1 - 1 / 16)) / 2
    assert others.within_reach(2, 10**9) == pytest.approx(math.sqrt(t), rel=1e-4)
    t = others.within_reach(1, 10**9) ** 2
    divergence = 0.75 * math.log(0.75 / t) + 0.25 * math.log(0.25 / (1 - t))
    assert divergence == pytest.approx(math.log(2), rel=1e-4)
    assert others.within_reach(1, 100) < others.within_reach(1, 10**4)
    assert others.within_reach(4, 10**4) == 0
    with pytest.raises(ValueError, match=r"redundancy = 0: expected a finite number above"):
        others.within_reach(0, 10)


def test_within_reach_holds_for_random_directions():
    # One map, one window, W = I: four lines in four dimensions.
    x = torch.randn(20_000, 4, generator=generator(3), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    distance = (1 - x.abs().amax(1) ** 2).sqrt()
    for failure in (0.9, 0.5, 0.1):
        near = float((distance <= others.within_reach(1, 4, failure)).double().mean())
        assert near <= failure
    assert others.within_reach(1, 4, 0.9) > 0.2


# --- Other ways back --------------------------------------------------------------------------


def test_errors_are_functions_of_the_angle():
    f = torch.tensor([[[[1.0, 0.0]]]])
    f_hat = torch.tensor([[[[3.0, 3.0]]]])
    half = math.sin(math.pi / 8)
    assert float(others.best_length(f, f_hat)) == pytest.approx(math.sin(math.pi / 4))
    assert float(others.matched(f, f_hat)) == pytest.approx(2 * half)
    assert float(others.unscaled(f, f_hat)) == pytest.approx(math.sqrt(13))
    assert float(others.matched(f, -f)) == pytest.approx(2)
    assert float(others.best_length(f, torch.zeros_like(f))) == 1


def test_ways_at_the_norm_of_f_are_those_of_reconstruct():
    f, W = signals(side=6), bank()
    found = others.ways(f, W)
    largest = W.analysis(f).flatten(1).abs().amax(1)
    expected = {
        others.ONE: reconstruct(f, W),
        others.TRANSPOSE: reconstruct(f, W, method="transpose"),
    } | {
        others.algorithm_2(level): reconstruct(
            f, W, method="recover", lam=level * largest, tol=others.GAP
        )
        for level in others.LEVELS
    }
    for name, each in expected.items():
        assert torch.allclose(others.matched(f, found[name]), relative_error(f, each.signal))
    assert torch.allclose(found[others.TRANSPOSE], W.synthesis(W.analysis(f), (6, 6)))
    looser, tighter = (
        others.unscaled(f, found[others.least_squares(tol)]) for tol in others.TOLERANCES
    )
    assert (tighter < looser).all()
    # ||e|| <= ||W^T W e|| / smallest^2, and ||W^T h|| <= largest^2 ||f||.
    condition = float(torch.linalg.cond(W.matrix((6, 6))))
    assert (tighter <= condition**2 * others.TOLERANCES[1]).all()


# --- All of it --------------------------------------------------------------------------------


def test_compute_goes_through_pools_and_filters(small, computed):
    pools = ["pool(1)", "pool(2)"]
    assert list(computed.iterated) == list(computed.ways) == list(small.pools) == pools
    for pool, filters in computed.iterated.items():
        assert list(filters) == ["learned", "random"]
        assert computed.signals[pool].shape[0] == 1
        for name, each in filters.items():
            assert each.photographs.shape == (others.MOST, 2)
            for curve in (each.photographs, each.sparser, each.vector, each.member):
                assert curve.dtype == torch.float64 and ((curve > 0) & (curve < 1)).all()
            # A smaller model does no better in one step.
            assert each.sparser[0] >= each.photographs[0, 0]
            found = computed.ways[pool][name]
            names = others.ways(computed.signals[pool], small.learned[pool])
            assert set(found) == {*names, others.SEVERAL}
            several = others.unscaled(computed.signals[pool], found[others.SEVERAL])
            assert float(several) == pytest.approx(float(each.photographs[-1, 0]), abs=1e-5)
    one, two = (computed.iterated["pool(1)"][name].photographs for name in ("learned", "random"))
    assert not torch.allclose(one, two)


def test_whole_maps_and_their_middles(computed):
    # These maps are no larger than the middle, except pool(1): 16 x 16.
    inner = computed.iterated["pool(2)"]["learned"]
    assert torch.allclose(inner.whole, inner.photographs[0], atol=1e-5)
    outer = computed.iterated["pool(1)"]["learned"]
    assert not torch.allclose(outer.whole, outer.photographs[0], atol=1e-5)


def test_figure_has_a_panel_a_pooling(computed):
    figure = others.draw_iterations(computed)
    assert [ax.get_xlabel() for ax in figure.axes] == ["iterations, pool(1)", "iterations, pool(2)"]
    assert len(figure.axes[0].lines) == 6
