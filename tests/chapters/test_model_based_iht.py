"""Chapter 3: the experiment of Figure 2 against theory worked out here a second time."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from invertnb import FilterBank, ModelSparse
from invertnb.chapters.model_based_iht import decoders
from invertnb.chapters import model_based_iht as chapter

SMALL = chapter.Parameters(matrices=3, signals=20)


@pytest.fixture(scope="module")
def data():
    return chapter.compute(SMALL)


def test_shapes_and_names(data):
    assert set(data.errors) == set(decoders.DECODERS)
    assert set(data.ratios) == set(chapter.RATIOS)
    every = [*data.errors.values(), *data.ratios.values(), *data.budget.values()]
    for tensor in [*every, data.found, data.oracle, data.cosine, data.length]:
        assert tensor.shape == (3, 20) and tensor.isfinite().all()
    assert data.residuals.shape == (11, 3, 20)
    assert (data.residuals[0] == 1).all()


def test_same_seed_same_numbers_and_another_seed_other_numbers(data):
    again = chapter.compute(SMALL)
    assert torch.equal(again.errors["known"], data.errors["known"])
    other = chapter.compute(chapter.Parameters(matrices=3, signals=20, seed=1))
    assert not torch.equal(other.errors["known"], data.errors["known"])


@pytest.mark.parametrize(
    ("l", "D", "K", "M", "k"), [(5, 32, 96, 32, 10), (3, 12, 40, 24, 6), (7, 16, 30, 16, 1)]
)
def test_mean_squares_are_those_of_the_proposition(l, D, K, M, k):
    p = chapter.Parameters(l=l, D=D, K=K, M=M, k=k, matrices=15, signals=10)
    data = chapter.compute(p)
    # The mean overlap of two shifts, as a plain double sum: not how the notebook computes it.
    n = D - l + 1
    overlap = sum(max(l - abs(i - j), 0) for i in range(n) for j in range(n)) / n**2
    noise = 2 / (l * M) + (k - 1) * overlap / (l**2 * M)
    expected = {
        "a": 1.0,
        "b": 1 + 1 / (l * M) + K * n * overlap / (l**2 * M),
        "b support": 1 + noise,
    }
    for name, square in expected.items():
        each = data.ratios[name].square().mean(1)
        assert abs(each.mean() - square) < 5 * each.std() / math.sqrt(p.matrices), name
    each = data.oracle.mean(1)
    assert abs(each.mean() - noise) < 5 * each.std() / math.sqrt(p.matrices)
    assert expected["b"] >= 2  # K n >= M D


def test_readings_of_figure_2(data):
    mean = {name: float(error.mean()) for name, error in data.errors.items()}
    assert 1.35 < mean["fixed"] < 1.5
    assert 0.95 < mean["averaged"] < 1
    assert 0.27 < mean["known"] < 0.35
    assert 0.12 < mean["support"] < 0.17
    assert mean["support"] < mean["blocks"] < mean["known"]
    for name in ("known", "blocks", "support"):
        assert mean[f"{name} unit"] < mean[name]
    assert mean["iht 10"] < mean["iht 5"] < mean["iht 3"] < mean["iht 2"] < mean["known"]
    assert torch.allclose(data.errors["known"].square(), data.errors["known squared"])
    assert data.errors["all of h"].max() < 1e-11
    assert 0.7 < data.found.mean() < 0.82


def test_first_residual_is_the_error_of_m_known(data):
    assert torch.allclose(data.residuals[1], data.errors["known"])
    for i in decoders.ITERATIONS:
        assert torch.equal(data.residuals[i], data.errors[f"iht {i}"])


def test_least_squares_on_the_support_found_is_never_worse(data):
    assert (data.errors["pursuit"] <= data.errors["known"] + 1e-12).all()


def test_cosine_and_length_give_the_error_of_m_fixed(data):
    square = 1 - 2 * data.cosine * data.length + data.length.square()
    assert torch.allclose(square.sqrt(), data.errors["fixed"])


def test_budget_is_the_whole_code_error():
    bank, z = _one(SMALL)
    run = chapter._one_matrix(z, bank, SMALL)
    code = SMALL.model.project(bank.analysis(bank.synthesis(z, SMALL.D))).code
    total = (decoders.norm(code - z) / decoders.norm(z)).square()
    assert torch.allclose(sum(run["budget"].values()), total)
    share = ((code != 0) & (z != 0)).flatten(1).sum(1) / SMALL.k
    assert torch.equal(run["found"], share)


def test_orthonormal_rows_make_every_projection_exact():
    # One-tap filters that are coordinate vectors: W W^T = I, so h = z.
    bank = FilterBank(torch.eye(6, dtype=torch.float64).unsqueeze(2))
    model = ModelSparse(4, 3)
    z = model.sample(20, 6, 4, generator=torch.Generator().manual_seed(0))
    x = bank.synthesis(z, 4)
    codes = decoders.one_step_codes(z, x, bank.analysis(x), bank, model)
    errors = {name: decoders.error(x, bank.synthesis(code, 4)) for name, code in codes.items()}
    errors["fixed places"] = decoders.error_at_fixed_places(z, bank, model, 4)
    for name in ("known", "blocks", "support", "pursuit", "fixed places"):
        assert errors[name].max() < 1e-12, name
    # M_fixed moves an entry a to the center unless it is there: squared error 2 a^2.
    moved = z.clone()
    moved[..., 2] = 0
    expected = (2 * moved.square().flatten(1).sum(1)).sqrt() / decoders.norm(z)
    assert torch.allclose(errors["fixed"], expected)
    # Averaging over 4 places: (3/4)^2 + 3 (1/4)^2 = 3/4 of the energy remains.
    assert torch.allclose(errors["averaged"], torch.full((20,), math.sqrt(3) / 2).double())


def test_unit_rows_are_those_of_the_normalized_bank():
    bank, z = _one(SMALL)
    errors = decoders.errors_of_unit_rows(z, bank, SMALL.model, SMALL.D)
    W = bank.matrix(SMALL.D)
    W = W / W.norm(dim=1, keepdim=True)
    flat = z.flatten(1)
    x = flat @ W
    x_hat = ((x @ W.T) * (flat != 0)) @ W
    assert torch.allclose(errors["support unit"], decoders.error(x, x_hat))
    again = decoders.errors_of_unit_rows(z, FilterBank(3 * bank.weight), SMALL.model, SMALL.D)
    assert set(errors) == {"known unit", "blocks unit", "support unit"}
    for name, values in errors.items():
        assert torch.allclose(again[name], values), name


def test_frame_operator_is_the_dense_one():
    p = chapter.Parameters(l=3, D=7, K=12, M=4, k=2)
    bank = p.bank(p.generator())
    W = bank.matrix(p.D)
    dense = decoders.frame_operator(bank, p.D).reshape(p.M * p.D, -1)
    assert torch.allclose(dense, W.T @ W)


def test_iterates_are_those_of_iht():
    bank, z = _one(SMALL)
    x = bank.synthesis(z, SMALL.D)
    zs = decoders.iterates(x, bank, SMALL.model, 4)
    rows = decoders.residuals(x, bank, SMALL.model, 4)
    for guess, row in zip(zs, rows, strict=True):
        error = decoders.norm(x - bank.synthesis(guess, SMALL.D)) / decoders.norm(x)
        assert torch.allclose(error, row)


def test_summary_by_hand():
    values = torch.tensor([[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    found = chapter.summary(values)
    assert found["mean"] == 3 and found["min"] == 0 and found["max"] == 6
    assert found["sd"] == pytest.approx(math.sqrt(8))  # of the two means 1 and 5
    text = chapter.table({"x": "label"}, {"x": values}).splitlines()
    assert text[0].split() == ["mean", "sd", "min", "5", "%", "95", "%", "max"]
    assert text[1].split()[:3] == ["label", "3.000", "2.828"]


def test_figures(data):
    example = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = (chapter.draw, chapter.draw_decoders, chapter.draw_residuals)
    for fig in [*(draw(data) for draw in draws), chapter.draw_approximation(example, k=2)]:
        assert isinstance(fig, Figure)
        assert fig._repr_png_().startswith(b"\x89PNG")


def test_explorer_answers_everywhere():
    explorer = chapter.explorer(signals=12)
    mean = {}
    for point in explorer.grid():
        view = explorer.render(**point)
        mean[tuple(point.values())] = float(view.values["mean"])
    assert len(mean) == 30
    for k in (1, 2, 5, 10, 20, 30):
        assert mean[k, "fixed"] > mean[k, "known"] >= mean[k, "pursuit"]
    assert mean[30, "known"] > mean[10, "known"] > mean[2, "known"]


def test_steps_explorer_finds_the_code_at_k_10_and_not_at_k_40():
    explorer = chapter.steps_explorer()
    views = {tuple(p.values()): explorer.render(**p).values for p in explorer.grid()}
    assert len(views) == 18
    for k in (10, 40):
        assert views[0, k]["relative residual"] == "1.0000"
        assert views[0, k]["right places"] == f"0 of {k}" and views[0, k]["wrong places"] == 0
    assert views[8, 10]["right places"] == "10 of 10"
    assert float(views[8, 10]["relative residual"]) < 1e-3
    assert float(views[8, 40]["relative residual"]) > 0.3


@pytest.mark.parametrize(
    ("name", "values"),
    [("k", {"k": 97}), ("l", {"l": 33}), ("K", {"K": 20}), ("matrices", {"matrices": 1})],
)
def test_bad_sizes_are_refused_by_name(name, values):
    with pytest.raises(ValueError, match=rf"^{name}="):
        chapter.Parameters(**values)


def test_paper_profile_is_valid():
    assert chapter.Parameters(**chapter.PAPER).signals > chapter.Parameters().signals


def _one(p):
    return p.bank(p.generator(1)), p.model.sample(20, p.K, p.n, generator=p.generator(2))
