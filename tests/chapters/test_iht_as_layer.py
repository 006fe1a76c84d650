"""Chapter 4: its networks equal Algorithm 1, and its experiments give what theory says."""

import dataclasses

import pytest
import torch
from torch import nn

from invertnb import FilterBank, ModelSparse, iht
from invertnb.chapters import iht_as_layer as chapter
from invertnb.chapters.iht_as_layer import multilayer, recovery
from invertnb.chapters.iht_as_layer.recovery import D, K, LENGTH, M, N, RECOVERED, relative
from invertnb.notebook.figures import Figure


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    small = {"matrices": 2, "signals": 3, "rate_matrices": 2, "rate_signals": 8, "networks": 2}
    return chapter.compute(chapter.Parameters(**small))


# --- The networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("block", "size"), [(28, 28), (4, 28), (1, 28), ((2, 2), (8, 6))])
@pytest.mark.parametrize("k", [1, 7, None])
def test_pooling_is_the_projection(block, size, k, dtype):
    shape = (5, 12, size) if isinstance(size, int) else (5, 12, *size)
    h = torch.randn(shape, generator=generator(), dtype=dtype)
    projected = ModelSparse(block, k).project(h)
    assert torch.equal(chapter.Pooling(block, k)(h), projected.code)
    if k is None and isinstance(block, int):  # where both run through the windows in one order
        pooled = chapter.Pooling(block, k, unpool=False)(h)
        assert torch.equal(pooled.flatten(), projected.code[projected.code != 0])


def test_pooling_by_hand():
    h = torch.tensor([[[1.0, -3.0, 2.0, 0.5], [0.0, 1.5, -1.0, -0.5]]])
    assert chapter.Pooling(2, 2)(h).tolist() == [[[0, -3, 2, 0], [0, 0, 0, 0]]]
    assert chapter.Pooling(4, None)(h).tolist() == [[[0, -3, 0, 0], [0, 1.5, 0, 0]]]
    assert chapter.Pooling(2, None, unpool=False)(h).tolist() == [[[-3, 2], [1.5, -1]]]


@pytest.mark.parametrize("dims", [1, 2])
def test_convolution_is_the_analysis_on_the_same_weight(dims):
    bank = FilterBank.gaussian(6, 3, 3, dims=dims, stride=2, padding=1, generator=generator())
    conv = chapter.convolution(bank)
    x = torch.randn(2, 3, *(9,) * dims, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(conv(x), bank.analysis(x), rtol=0, atol=1e-14)
    assert conv.weight.data_ptr() == bank.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_bound_covers_another_order_of_summation(dtype):
    bank = FilterBank.gaussian(K, M, LENGTH, generator=generator()).to(dtype=dtype)
    x = torch.randn(4, M, D, generator=generator(1), dtype=torch.float64).to(dtype)
    dense = (x.flatten(1) @ bank.matrix(D).T).view(4, K, N)
    gap, bound = (dense - bank.analysis(x)).abs(), chapter.rounding_bound(bank, x)
    assert (gap <= bound).all()
    assert bound.max() < 3e3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_iterates_are_algorithm_1(steps):
    task = recovery.problem(10, 4, generator())
    *_, (z, d) = recovery.iterates(task, steps)
    result = iht(task.x, task.bank, task.model, iterations=steps, tol=0.0)
    torch.testing.assert_close(z, result.code, rtol=0, atol=1e-13)
    residual = relative(task.x - d, task.x)
    torch.testing.assert_close(residual, result.residuals[-1], rtol=1e-9, atol=0)


def test_layers_are_single_iterations():
    layers = multilayer.network(generator())
    x = multilayer.first_input(layers, 3, generator(1))
    for per in multilayer.KEEP.values():
        value = x
        for layer, code in zip(layers, multilayer.ascend(x, layers, per), strict=True):
            pooling = chapter.Pooling(multilayer.WINDOW, layer.model(per).k, unpool=False)
            value = nn.Sequential(chapter.convolution(layer.bank), pooling)(value)
            torch.testing.assert_close(value, multilayer.pooled_map(code), rtol=0, atol=1e-12)
            assert layer.model(per).contains(code).all()


def test_descent_from_one_layer_is_synthesis():
    layers = multilayer.network(generator())
    x = multilayer.first_input(layers, 3, generator(1))
    codes = multilayer.ascend(x, layers, 10)
    back = multilayer.descend(codes[:1], layers[:1])
    torch.testing.assert_close(back, layers[0].bank.synthesis(codes[0], multilayer.D))
    scaled = multilayer.equal_norm(back, x)
    torch.testing.assert_close(scaled.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


# --- The experiments ----------------------------------------------------------------------------


def test_variants(data):
    mean = {name: dict(zip(chapter.MEASURES, table.mean(0).tolist(), strict=True))
            for name, table in data.variants.items()}  # fmt: skip
    assert mean["Algorithm 1"]["change"] == 0 and mean["Algorithm 1"]["kept"] == 1
    assert mean["no top-k"]["nonzeros"] == K and mean["averaged"]["nonzeros"] == 10 * N
    for name in ("signed maximum", "ReLU, then maximum"):
        assert 0.2 < mean[name]["kept"] < 0.8  # half of the entries are negative
    assert mean["ReLU, filters w and -w"]["change"] < 0.2 < mean["signed maximum"]["change"]
    assert mean["ReLU, no top-k"]["nonzeros"] == K and mean["ReLU, no top-k"]["change"] > 0.5
    # Entries that are kept keep their values: the squared change is what is lost and what is new.
    assert mean["fixed switches"]["change"] == pytest.approx(2**0.5, abs=0.1)


def test_paired_filters_by_hand():
    h = torch.zeros(1, K, N, dtype=torch.float64)
    h[0, 3, 5], h[0, 3, 9], h[0, 7, 0] = 2.0, -1.0, -3.0
    code = chapter.paired(h, 3)
    assert torch.equal(code, h)  # a pair may keep its largest and its smallest entry
    assert not torch.equal(code, chapter.VARIANTS["Algorithm 1"](h, 3))  # one entry per filter
    assert torch.equal(chapter.paired(h, 2), torch.where(h.abs() > 1, h, 0.0))


def test_iterations_improve_at_10_and_not_at_40(data):
    assert data.quality[10].improved.double().mean() >= 0.99
    assert data.quality[40].improved.double().mean() < 0.99
    assert (data.quality[10].x[:, :3].diff(dim=1) < 0).all()
    assert 0.2 < data.quality[10].x[:, 0].mean() < 0.42


def test_recovery_rates(data):
    for errors in data.recovery.values():
        assert (errors < RECOVERED).all()
    for name, recovered in data.rates.recovered.items():
        assert recovered.shape == (len(recovery.SPARSITIES), 2, 8 if name.endswith("step 1") else 2)
        assert recovered[0].all()
        assert recovered[-1].all() != name.endswith("step 1")
        assert not (recovered & data.rates.diverged[name]).any()
    assert data.rates.diverged["model-IHT, step 1"][-1].all()


def test_plain_sparsity_ignores_the_blocks():
    task = recovery.problem(10, 2, generator())
    z = torch.zeros_like(task.z)
    z[:, 0, :10] = 1.0  # ten nonzeros in one block: 10-sparse, and far from the model
    task = task._replace(z=z, x=task.bank.synthesis(z, D))
    assert (relative(recovery.solve(task, model=False, pursuit=True).code, z) < RECOVERED).all()
    assert (relative(recovery.solve(task, model=True, pursuit=True).code, z) > 0.5).all()


def test_spectra(data):
    for k, found in data.spectra.items():
        # For unit rows the eigenvalues are 1 on average, and the largest grows with the support.
        assert (found.truth >= 1).all() and (found.truth < 2).all()
        assert (found.moving >= found.truth - 1e-9).all()
        assert found.truth.mean() < found.first.mean() <= found.moving.amax(0).mean()
        peak = found.moving.amax(0)
        assert (peak[found.recovered] < 3).all() and (peak[~found.recovered] > 1.9).all(), k
    assert data.spectra[10].recovered.all() and not data.spectra[80].recovered.any()


def test_largest_eigenvalues_by_hand():
    W = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    supports = torch.tensor([[True, True, False], [True, False, True]]).view(2, 3, 1)
    assert recovery._largest_eigenvalues(W, supports).tolist() == pytest.approx([2, 1])


def test_cautious_step_never_diverges_and_rests(data):
    stuck = data.stuck
    assert not stuck.diverged.any()
    assert (stuck.recovered | stuck.fixed).all()
    assert not (stuck.fixed_half & ~stuck.recovered).any()
    residuals = data.trajectories["step 1/||W||²"].residuals
    assert (residuals.diff(dim=0) <= 1e-9).all()


def test_depth(data):
    for found in data.depth.values():
        assert found.error.shape == (2, 3)
        assert (found.distance[:, 0] < 0.05).all()  # the truth is zero: how good the search is
        assert (found.error.diff(dim=1) > 0).all()
        assert (found.distance[:, 0] < 0.5 * found.noise[:, 0]).all()
        assert (found.distance[:, 1] > 0.85 * found.noise[:, 1]).all()


# --- Figures, explorers, parameters -------------------------------------------------------------


def test_figures(data):
    task = recovery.problem(10, 1, generator())
    h = task.bank.analysis(task.x)
    pooled, code = chapter.Pooling(N, 10, unpool=False)(h), chapter.Pooling(N, 10)(h)
    figures = [
        chapter.draw(data),
        chapter.draw_layer(h[0], pooled[0], code[0], task.z[0]),
        chapter.draw_quality(data),
        recovery.draw_spectra(data.spectra),
        recovery.draw_trajectories(data.trajectories),
        multilayer.draw_depth(data.depth),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_every_point_of_the_step_explorer():
    explorer = recovery.explorer(signals=2, iterations=80)
    for point in explorer.grid():
        values = explorer.render(**point).values
        if point["rule"] in ("step 1/2", "NIHT", "HTP"):
            assert values["recovered"] == "2 of 2"
        assert values["diverged"] == "0 of 2" or point["rule"] == "step 1"
    assert explorer.render(k=80, rule="step 1").values["diverged"] == "2 of 2"
    # A stop between the frames, where a kernel runs.
    assert explorer.render(k=15, rule="HTP").values["recovered"] == "2 of 2"


def test_every_point_of_the_depth_explorer():
    explorer = multilayer.explorer()
    errors = {tuple(point.values()): float(explorer.render(**point).values["relative error"])
              for point in explorer.grid()}  # fmt: skip
    assert len(errors) == 12
    for (layers, per, switches), error in errors.items():
        assert 0.3 < error < 1.7
        if switches == "known":
            assert error < errors[layers, per, "fixed"]


def test_profile_paper_names_parameters():
    names = {field.name for field in dataclasses.fields(chapter.Parameters)}
    assert set(chapter.PAPER) <= names
    assert chapter.Parameters(**chapter.PAPER).rate_signals == 100
