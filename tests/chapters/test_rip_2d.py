"""The chapter on the two-dimensional model-RIP: predictions against draws, bounds against codes."""

import math

import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from invertnb import FilterBank, networks, recover
from invertnb.chapters import rip_2d as chapter
from invertnb.chapters.rip_2d import activations, coherent, constants, ratios
from invertnb.model import ModelSparse
from invertnb.networks import VGG16, Network, Source
from invertnb.networks.architecture import PREPROCESSING
from invertnb.rip import stripe_coherence

SMALL = chapter.Parameters(samples=3, photographs=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bank(K=12, M=8, seed=0, dtype=torch.float64, padding=0):
    drawn = FilterBank.gaussian(
        K, M, 3, dims=2, padding=padding, generator=generator(seed), dtype=dtype
    )
    return drawn.normalized()


def shared(K=12, M=8, part=0.5):
    """Filters that have a part in common."""
    weight = bank(K, M).weight
    return FilterBank(weight + part * weight[:1]).normalized()


@pytest.fixture(scope="module")
def network():
    """Three blocks of a network with four filters a layer."""
    draw, tensors, channels = generator(7), {}, 3
    for name in VGG16.convolutions[:7]:
        weight = torch.randn(4, channels, 3, 3, generator=draw)
        tensors[f"{name}.weight"] = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        tensors[f"{name}.bias"] = torch.zeros(4)
        channels = 4
    return Network(VGG16, tensors, PREPROCESSING["torchvision"], Source("random", "small"))


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 32, 32, generator=generator(8))


# --- Ratios of random codes ---------------------------------------------------------------------


def test_one_convolution_gives_every_convention():
    filters = bank()
    z = ratios.codes(filters, 20, 3, generator(1), side=6)
    found = ratios.measure(z, filters)
    longer = F.pad(z, (0, 1, 0, 1))
    cropped = FilterBank(filters.weight, padding=1)
    for ratio, x in (
        (found.full, filters.synthesis(z, (8, 8))),
        (found.cropped, cropped.synthesis(z, (6, 6))),
        (found.odd, cropped.synthesis(longer, (7, 7))),
    ):
        assert torch.allclose(ratio, x.flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1))
    for name, ratio in zip(ratios.CONVENTIONS, found, strict=True):
        assert found.of(name) is ratio


def test_codes_are_members_of_the_model():
    for signs in (True, False):
        z = ratios.codes(bank(), 30, 5, generator(2), side=6, signs=signs)
        assert ModelSparse((2, 2), 30).contains(z).all()
        assert ((z != 0).flatten(1).sum(1) == 30).all()
        assert (z.min() >= 0) == (not signs)


def test_no_more_nonzeros_than_windows():
    assert ratios.nonzeros(20, 25, 10) == 500
    assert ratios.nonzeros(30, 25, 10) == 25 * 25
    assert ratios.nonzeros(0.001, 4, 6) == 1


def test_border_is_the_mean_row_of_even_filters():
    for l in (3, 5):
        even = FilterBank(torch.ones(1, 1, l, l, dtype=torch.float64)).normalized()
        assert math.sqrt(ratios.row_energy(even, 14)) == pytest.approx(ratios.border(14, l))
    assert ratios.border(14) == pytest.approx(1 - 2 / 42)


def test_row_energy_is_that_of_the_matrix():
    cropped = bank(padding=1)
    expected = cropped.matrix((6, 6)).square().sum(1).mean()
    assert ratios.row_energy(cropped, 6) == pytest.approx(float(expected))


def test_ratios_center_where_the_filters_predict():
    filters = shared()
    k = ratios.nonzeros(20, 12, 8)
    signed = ratios.sample(filters, k, 1500, generator(3), side=8)
    unsigned = ratios.sample(filters, k, 1500, generator(3), side=8, signs=False)
    assert float(signed.full.square().mean()) == pytest.approx(1, abs=0.02)
    cropped = float(signed.cropped.square().mean())
    assert cropped == pytest.approx(ratios.row_energy(filters, 8), abs=0.02)
    expected = ratios.coherent(filters, k, 8)
    assert float(unsigned.full.square().mean()) == pytest.approx(expected, rel=0.01)
    assert expected > 1.25


def test_pairs_by_hand():
    """`coherent` and `width` against sums over all pairs of rows of a small layer."""
    filters, side, k = shared(4, 3), 4, 9
    W = filters.matrix((side + 2, side + 2))
    gram = W @ W.T
    place = torch.arange(4 * side * side).view(4, side, side)
    window = F.max_pool2d(place.double(), 2).long()
    window = window.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten()
    apart = window.view(-1, 1) != window
    windows = 4 * (side // 2) ** 2
    both = k * (k - 1) / (windows * (windows - 1)) / 16
    expected = 1 + both / 4 * float(gram[apart].sum()) / (k / 3)
    assert ratios.coherent(filters, k, side) == pytest.approx(expected)
    squares = float(gram[apart].square().sum())
    assert ratios.width(filters, side) == pytest.approx(math.sqrt(2 * squares) / len(gram) / 2)


@pytest.mark.parametrize("percent", [5, 20])
def test_width_does_not_depend_on_k(percent):
    filters = bank(24, 24)
    k = ratios.nonzeros(percent, 24, 10)
    seen = ratios.sample(filters, k, 1200, generator(5), side=10).full
    assert float(seen.std()) == pytest.approx(ratios.width(filters, 10), rel=0.12)


def test_deviation_is_of_squares():
    assert torch.allclose(ratios.deviation(torch.tensor([1.05, 0.9])), torch.tensor([0.1025, 0.19]))


# --- Algorithm 2 --------------------------------------------------------------------------------


def test_recovered_code_is_measured(network, pixels):
    filters = network.bank("conv(2,2)")
    x = network.before(pixels, "conv(2,2)")
    found = activations.recovered(x, filters, 15, 0.1)
    again = recover(
        x, filters, ModelSparse((2, 2), ratios.nonzeros(15, 4, 16)),
        0.1 * filters.analysis(x).flatten(1).abs().amax(1), tol=activations.TOLERANCE,
    )  # fmt: skip
    z = again.code
    assert torch.equal(found.ratios.full, ratios.measure(z, filters).full)
    rest = (x - filters.synthesis(z, (16, 16))).flatten(1).norm(dim=1)
    assert torch.allclose(found.residual, rest / x.flatten(1).norm(dim=1))
    assert (found.first <= found.residual + 1e-3).all() and (found.residual < 1).all()
    filled = F.max_pool2d(again.initial.code.abs(), 2).flatten(1) > 0
    assert torch.allclose(found.windows, filled.double().mean(1))
    count = (z != 0).flatten(1).sum(1)
    assert torch.allclose(found.nonzeros, count / filled.shape[1])
    assert found.kept.all() and count.max() <= ratios.nonzeros(15, 4, 16)
    assert torch.equal(found.coherence, stripe_coherence(z, FilterBank(filters.weight)))
    assert found.seconds > 0
    nothing = activations.recovered(x, filters, 15, 1.01)
    assert not nothing.kept.any() and torch.allclose(nothing.residual, torch.ones(2))


def test_others_in_a_stripe_by_hand():
    z = torch.zeros(1, 2, 8, 8)
    z[0, 0, 0, 0] = z[0, 1, 0, 0] = z[0, 0, 2, 2] = z[0, 0, 0, 7] = 1.0
    counts = activations.others(z, 3).view(1, 2, 8, 8)
    assert counts[0, 0, 0, 0] == 2 and counts[0, 1, 0, 0] == 2  # each other, and (2, 2)
    assert counts[0, 0, 2, 2] == 2 and counts[0, 0, 0, 7] == 0
    assert counts.sum() == 6


def test_study_runs_both_sides_of_relu_where_there_are_two(network, pixels):
    both = activations.study(network, pixels, "conv(2,2)", generator=generator(), shares=(0.3,))
    assert {key[1] for key in both} == {"before ReLU", "after ReLU"}
    assert {key[0] for key in both} == {"learned", "random"}
    before, after = (both["learned", side, 0.3].residual for side in ("before ReLU", "after ReLU"))
    assert not torch.allclose(before, after)
    pooled = activations.study(network, pixels, "conv(2,1)", generator=generator(), shares=(0.3,))
    assert {key[1] for key in pooled} == {"after ReLU"}


def test_middle_of_a_map():
    x = torch.arange(49.0).view(1, 1, 7, 7)
    assert torch.equal(activations.crop(x, 4), x[..., 1:5, 1:5])
    assert activations.crop(x, 14).shape[2:] == (6, 6)


def test_density_is_in_percent():
    assert activations.density(torch.tensor([[0.0, 1.0], [0.0, -2.0]])) == 50


# --- Constants ----------------------------------------------------------------------------------


def test_sampled_attained_certified():
    found = constants.by_filling(shared(8, 8), 40, generator(6), side=6, filled=(0.1, 0.9))
    for each in found.values():
        assert each.sampled <= each.certified and each.pair <= each.attained <= each.certified
        assert 0 <= each.smallest <= 1 <= each.largest
    assert found[0.9].k == round(0.9 * 72)
    assert found[0.9].attained > 3 * found[0.9].sampled


def test_two_nonzeros_attain_the_coherence():
    filters = bank(6, 4)
    products = filters.weight.flatten(1) @ filters.weight.flatten(1).T
    products.fill_diagonal_(0)
    i, j = divmod(int(products.abs().argmax()), 6)
    z = torch.zeros(1, 6, 4, 4, dtype=torch.float64)
    z[0, i, 1, 1], z[0, j, 1, 1] = 1.0, float(products[i, j].sign())
    assert ModelSparse((2, 2), 2).contains(z).all()
    found = constants.by_filling(filters, 2, generator(), side=4, filled=(0.1,))[0.1]
    assert float(ratios.deviation(ratios.measure(z, filters).full)) == pytest.approx(found.pair)


def test_corner_is_the_weakest_cropped_row():
    cropped = bank(padding=1)
    expected = 1 - float(cropped.matrix((6, 6)).square().sum(1).min())
    assert constants.corner(cropped) == pytest.approx(expected)


def test_allowed_others_are_the_last_below_the_level():
    rows = constants.locally(bank(8, 400), 4)
    most = constants.allowed(rows, 0.3)
    assert rows.bound(most) < 0.3 <= rows.bound(most + 1)
    assert constants.allowed(rows, 1e-12) == -1 or rows.bound(0) < 1e-12


def test_bound_is_vacuous_from_its_threshold():
    assert constants.bound(constants.VACUOUS) == pytest.approx(1)
    assert constants.bound(0.05) < constants.bound(0.1025) < 1
    assert constants.bound(1.5) == math.inf


# --- Coherence ----------------------------------------------------------------------------------


def test_one_step_error_has_the_norm_of_the_signal():
    filters, model = bank(), ModelSparse((2, 2), 20)
    z = ratios.codes(filters, 20, 4, generator(9), side=6)
    x = filters.synthesis(z, (8, 8))
    x_hat = filters.synthesis(model.project(filters.analysis(x)).code, (8, 8))
    angle = (x * x_hat).flatten(1).sum(1) / (
        x.flatten(1).norm(dim=1) * x_hat.flatten(1).norm(dim=1)
    )
    error = coherent.one_step_error(x, filters, model, (8, 8))
    assert torch.allclose(error, (2 - 2 * angle).sqrt())


def test_families():
    blends = list(coherent.blends(48, 48, 6, generator(10)).values())
    mu = [each.coherence for each in blends]
    assert mu[1:] == sorted(mu[1:]) and mu[-1] > 2 * mu[0]
    assert blends[-1].delta > 1.5 * blends[0].delta
    none, one, more = coherent.twins(48, 48, 6, generator(11)).values()
    assert none.coherence < 0.5 and one.coherence == pytest.approx(1, abs=1e-5)
    assert one.error == pytest.approx(none.error, abs=0.05)
    assert more.coherence == pytest.approx(1, abs=1e-5)
    assert list(coherent.twins(4, 8, 1, generator(12))) == ["0 pairs", "1 pairs", "2 pairs"]


def test_criterion_of_the_coherence_needs_both():
    def points(errors):
        return {
            str(i): coherent.Point(0.1 * (i + 1), 0.01 * (i + 1), error)
            for i, error in enumerate(errors)
        }

    assert coherent.holds(coherent.rank_correlations(points([1, 2, 3, 4])))
    assert not coherent.holds(coherent.rank_correlations(points([4, 3, 2, 1])))
    before = coherent.Point(0.1, 0.01, 0.5)
    assert coherent.worse(before, coherent.Point(1.0, 0.02, 0.6))
    assert not coherent.worse(before, coherent.Point(1.0, 0.02, 0.51))
    assert not coherent.worse(before, coherent.Point(1.0, 0.01, 0.6))


# --- The page ------------------------------------------------------------------------------------


def test_a_network_that_ends_early_is_studied_at_its_end(network):
    assert chapter.studied(network) == "conv(3,3)"
    whole = networks.gaussian(VGG16, generator=generator(), width=0.02)
    assert chapter.studied(whole) == "conv(5,2)"


def test_draws_of_filters_differ_and_repeat(monkeypatch):
    monkeypatch.setattr(chapter, "CHANNELS", 16)
    first, again, other = (chapter.full_size(SMALL, 20.6, draw) for draw in (0, 0, 1))
    assert torch.equal(first.full, again.full) and not torch.equal(first.full, other.full)


def test_figures(monkeypatch):
    seen = ratios.sample(bank(), 20, 6, generator(), side=6)
    each = chapter.LayerRatios(seen, seen, 0.95, 1.0, 0.01)
    found = constants.by_filling(bank(8, 8), 3, generator(), side=4, filled=(0.2, 0.9))
    x = bank(12, 8, padding=1).synthesis(ratios.codes(bank(), 20, 2, generator(), side=6), (6, 6))
    recovered = activations.recovered(x, bank(12, 8, padding=1), 15, 0.2)
    point = coherent.Point(0.5, 0.1, 0.4)
    for fig in (
        chapter.draw_random({20.6: seen, 23.9: seen}),
        chapter.draw_layers({"a": each, "b": each}),
        chapter.draw_recovered({("learned", "before ReLU", 0.2): recovered,
                                ("random", "after ReLU", 0.2): recovered}),
        chapter.draw_constants({"learned": found, "random": found}),
        chapter.draw_coherence({name: {"a": point} for name in ("layers", "blends", "twins")}),
    ):  # fmt: skip
        assert isinstance(fig, Figure)
        assert fig._repr_png_().startswith(b"\x89PNG")


def test_explorer_answers_where_it_is_asked():
    explorer = chapter.explorer(SMALL)
    assert len(list(explorer.grid())) == 54
    full, cropped = (
        explorer.render(layer="conv(3,1)", percent=7, boundary=boundary).values
        for boundary in ("full", "cropped")
    )
    assert full["predicted"] == "1.000" and float(cropped["predicted"]) < 0.99
    assert float(cropped["mean ratio"]) == pytest.approx(float(cropped["predicted"]), abs=0.02)


@pytest.mark.parametrize(
    ("name", "values"),
    [("samples", {"samples": 1}), ("photographs", {"photographs": 0}), ("study", {"study": "x"}),
     ("preprocessing", {"preprocessing": "x"})],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(name, values):
    with pytest.raises(ValueError, match=rf"^{name}="):
        chapter.Parameters(**values)
