"""Chapter 1: what its module computes, against counts by hand and known laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from invertnb import FilterBank
from invertnb.chapters import layer_as_matrix as chapter
from invertnb.notebook.figures import Figure

SMALL = {"K": 12, "M": 4, "l": 3, "D": 11, "matrices": 3}


def integral(values: np.ndarray, grid: np.ndarray) -> float:
    return float(torch.trapezoid(torch.from_numpy(values), torch.from_numpy(grid)))


@pytest.fixture(scope="module")
def data() -> chapter.Data:
    return chapter.compute(chapter.Parameters(**SMALL))


def test_shapes(data):
    assert data.row_norms.shape == (3, 12)
    assert data.eigenvalues.shape == (3, 44)
    assert data.unit_eigenvalues.shape == (44,)
    assert data.weak_energy.shape == data.coverage.shape == (11,)


def test_same_seed_same_numbers_and_another_seed_others(data):
    again = chapter.compute(chapter.Parameters(**SMALL))
    other = chapter.compute(chapter.Parameters(seed=1, **SMALL))
    assert torch.equal(again.eigenvalues, data.eigenvalues)
    assert not torch.equal(other.row_norms, data.row_norms)


def test_coverage_counts_the_shifts_that_reach_a_position(data):
    assert data.coverage.tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1]
    strided = chapter.compute(chapter.Parameters(K=12, M=2, l=3, D=9, stride=2, matrices=2))
    assert strided.coverage.tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 1]


def test_trace_of_the_spectrum_is_the_energy_of_the_rows(data):
    # n rows for each filter, all of its norm; with unit rows the mean eigenvalue is K n / (M D).
    energy = 9 * data.row_norms.square().sum(1)
    assert torch.allclose(data.eigenvalues.sum(1), energy)
    assert float(data.unit_eigenvalues.mean()) == pytest.approx(12 * 9 / (4 * 11))


def test_spectrum_is_that_of_the_matrix(data):
    singular = torch.linalg.svdvals(data.bank.matrix(11)).flip(0)
    assert torch.allclose(data.eigenvalues[0], singular.square())


def test_normal_is_the_product_of_the_matrix_with_itself():
    bank = FilterBank.gaussian(5, 2, 3, stride=2, generator=torch.Generator().manual_seed(3))
    W = bank.matrix(9)
    assert torch.allclose(chapter.normal(bank, 9), W.T @ W)


def test_weak_directions_are_the_eigenvectors_below_the_bulk(data):
    low, _ = chapter.edges(12, 4)
    assert data.weak == int((data.eigenvalues[0] < low).sum())
    values, vectors = torch.linalg.eigh(chapter.normal(data.bank, 11))
    energy = sum(vectors[:, r].view(4, 11).square().sum(0) for r in range(data.weak))
    assert torch.allclose(data.weak_energy, energy / data.weak)


def test_edges_and_density_of_the_bulk():
    assert chapter.edges(4, 1) == (1.0, 9.0)
    assert chapter.edges(2, 8) == (0.0, 2.25)
    grid = np.linspace(*chapter.edges(96, 32), 20001)
    density = chapter.bulk_density(grid, 96, 32)
    assert integral(density, grid) == pytest.approx(1, abs=1e-3)
    # Mean and mean square of the law: r and r^2 + r for r = K / M.
    assert integral(density * grid, grid) == pytest.approx(3, abs=1e-2)
    assert integral(density * grid**2, grid) == pytest.approx(12, abs=5e-2)


def test_a_large_transfer_matrix_fills_the_bulk():
    generator = torch.Generator().manual_seed(0)
    bank = FilterBank.gaussian(600, 200, 1, generator=generator)
    values = torch.linalg.svdvals(bank.matrix(1)).square()
    low, high = chapter.edges(600, 200)
    assert float(values[-1]) == pytest.approx(low, abs=0.1)
    assert float(values[0]) == pytest.approx(high, abs=0.3)


def test_chi_density():
    grid = np.linspace(1e-6, 3, 30001)
    for freedom in (1, 2, 160):
        density = chapter.chi_density(grid, freedom)
        tail = math.erfc(3 / math.sqrt(2)) if freedom == 1 else 0
        assert integral(density, grid) == pytest.approx(1 - tail, abs=1e-3)
    # Two degrees of freedom: the Rayleigh density 2 r exp(-r^2).
    assert chapter.chi_density(np.array([0.5]), 2)[0] == pytest.approx(math.exp(-0.25))


def test_row_norms_scatter_as_chi():
    wide = chapter.compute(chapter.Parameters(K=400, M=4, l=5, D=10, matrices=2))
    norms = wide.row_norms
    # 800 filters with 20 degrees of freedom: the mean square has sd sqrt(2 / 20 / 800) = 0.011.
    assert float(norms.square().mean()) == pytest.approx(1, abs=0.05)
    assert float(norms.std()) == pytest.approx(1 / math.sqrt(2 * 20), rel=0.12)


def test_at_the_size_of_figure_2():
    found = chapter.compute(chapter.Parameters(matrices=2))
    lower, upper = found.eigenvalues[:, 0], found.eigenvalues[:, -1]
    low, high = chapter.edges(96, 32)
    assert ((0.03 < lower) & (lower < 0.08)).all(), "the ends lower A far below the bulk"
    assert (abs(upper - high) < 1).all()
    assert 0.8 < float(found.row_norms.min()) < 0.93
    assert 1.07 < float(found.row_norms.max()) < 1.2
    outer = found.coverage < 5
    assert float(found.weak_energy[outer].sum()) > 0.8


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"D": 32, "stride": 2}, "D=32"),
        ({"l": 40}, "D=32"),
        ({"K": 20}, "K=20"),
        ({"matrices": 1}, "matrices=1"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_bad_parameters_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        chapter.Parameters(**settings)


def test_the_paper_profile_is_admitted():
    chapter.Parameters(**chapter.PAPER)


def test_figures(data):
    generator = torch.Generator().manual_seed(0)
    bank = FilterBank.gaussian(4, 3, 3, generator=generator)
    x = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    code = bank.analysis(x[None])[0]
    strided = FilterBank(bank.weight, stride=2)
    drawn = [
        chapter.draw(data),
        chapter.draw_norms(data),
        chapter.draw_layer(bank, x),
        chapter.draw_layer(strided, torch.cat([x, x[:, :1]], 1)),
        chapter.draw_gram(bank, 10),
        chapter.draw_blocks(code),
    ]
    for picture in drawn:
        assert isinstance(picture, Figure)
    for picture in drawn[:2]:
        assert picture._repr_png_().startswith(b"\x89PNG")


def test_figure_1_shows_the_numbers_of_the_layer():
    bank = FilterBank.gaussian(4, 3, 3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = chapter.draw_layer(bank, x).axes[0].images
    W, signal, h = (torch.tensor(np.asarray(image.get_array())) for image in images)
    assert torch.equal(W, bank.matrix(10))
    assert torch.allclose(W @ signal, h)


def test_blocks_mark_the_largest_magnitude():
    h = torch.tensor([[1.0, -3.0, 2.0], [0.5, 0.1, -0.2]], dtype=torch.float64)
    lines = chapter.draw_blocks(h).axes[0].lines
    marked = [(float(x), float(y)) for x, y in (line.get_xydata()[0] for line in lines
              if line.get_markersize() == 11)]  # fmt: skip
    assert marked == [(1.0, -3.0), (3.0, 0.5)]


def test_structure_explorer_at_every_point():
    explorer = chapter.explorer()
    for point in explorer.grid():
        values = explorer.render(**point).values
        l, t, M = point["l"], point["t"], point["M"]  # noqa: E741
        D, n, rank = values["length D"], values["shifts n"], values["rank"]
        assert n == (D - l) / t + 1 and 12 <= D < 12 + t
        assert (values["rows K n"], values["columns M D"]) == (4 * n, M * D)
        assert values["nonzeros in a row"] == M * l
        assert values["share of zeros"] == pytest.approx(1 - l / D)
        # A stride longer than the filter leaves samples that no window covers.
        seen = D if t <= l else n * l
        assert rank == min(4 * n, M * seen)
        assert values["rows span the inputs"] == ("yes" if rank == M * D else "no")
        assert (values["smallest singular value"] > 0) == (rank == M * D)


def test_spectrum_explorer_at_every_point():
    explorer = chapter.spectrum_explorer()
    for point in explorer.grid():
        values = explorer.render(**point).values
        redundancy = values["redundancy K n / (M D)"]
        assert redundancy == pytest.approx(point["K"] * (33 - point["l"]) / (8 * 32))
        low, high = values["lower frame bound A"], values["upper frame bound B"]
        assert 0 <= low < redundancy < high
        assert values["rows span the inputs"] == ("yes" if redundancy >= 1 else "no")
        assert (low > 0) == (redundancy >= 1)
