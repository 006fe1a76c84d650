"""The ratios of Figure 2 from the table of correlations, against their definition and dense W."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from invertnb import FilterBank
from invertnb.kernels import atom_norms as module
from invertnb.kernels.atom_norms import atom_norms, atom_norms_naive, atom_norms_plain
from invertnb.kernels.launch import INTERPRET

# Under the interpreter a program costs milliseconds for each pair of atoms.
EXAMPLES = 6 if INTERPRET else 40


def case(dims=1, K=5, M=2, l=3, stride=1, n=(6,), k=4, samples=11, dtype=torch.float64, seed=0):
    """A bank, and distinct random atoms with values."""
    g = torch.Generator().manual_seed(seed)
    bank = FilterBank.gaussian(K, M, l, dims=dims, stride=stride, generator=g)
    index = torch.rand(samples, K * math.prod(n), generator=g).topk(k).indices
    code = torch.randn(samples, k, generator=g, dtype=torch.float64).to(dtype)
    return bank, bank.gram().to(dtype), index, code


def dense_ratios(bank, n, index, code):
    """By W itself: x = W^T z and z_hat = W_S x."""
    sizes = [(side - 1) * bank.stride + bank.l for side in n]
    W = bank.matrix(sizes[0] if len(n) == 1 else tuple(sizes))
    rows = []
    for support, z in zip(index, code.double(), strict=True):
        W_S = W[support]
        x = W_S.T @ z
        z_hat = W_S @ x
        rows.append([x.norm() / z.norm(), z_hat.norm() / z.norm(),
                     (x - W_S.T @ z_hat).norm() / x.norm()])  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64).T.unbind(0)


def agree(found, expected, dtype=torch.float64):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        error = 1e-11 if dtype == torch.float64 else 2e-5
        assert_close(one.double(), other, rtol=error, atol=error / 10)


GEOMETRIES = {
    "signals": {},
    "stride": {"stride": 2},
    "one shift": {"n": (1,), "k": 3},
    "fewer shifts than the reach": {"l": 5, "n": (3,)},
    "far apart": {"l": 2, "n": (40,)},
    "one tap": {"l": 1},
    "all atoms": {"K": 2, "n": (2,), "k": 4},
    "one atom": {"k": 1},
    "one sample": {"samples": 1},
    "images": {"dims": 2, "K": 3, "n": (4, 5)},
    "images, stride": {"dims": 2, "K": 3, "stride": 2, "n": (3, 2)},
    "a row": {"dims": 2, "K": 3, "n": (1, 6)},
    "a column": {"dims": 2, "K": 3, "n": (6, 1)},
}


@pytest.mark.parametrize("name, dtype", [
    *((name, torch.float64) for name in GEOMETRIES),
    *((name, torch.float32) for name in ("signals", "images", "one sample"))])  # fmt: skip
def test_ratios_equal_their_definition(name, dtype, device):
    bank, table, index, code = case(dtype=dtype, **GEOMETRIES[name])
    n = GEOMETRIES[name].get("n", (6,))
    found = atom_norms(table.to(device), n, index.to(device), code.to(device))
    found = tuple(ratio.cpu() for ratio in found)
    agree(found, atom_norms_naive(bank.gram(), n, index, code), dtype)
    agree(found, dense_ratios(bank, n, index, code), dtype)


@settings(max_examples=EXAMPLES)
@given(
    dims=st.integers(1, 2), K=st.integers(1, 4), M=st.integers(1, 2), l=st.integers(1, 4),
    stride=st.integers(1, 3), sides=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    samples=st.integers(1, 5), seed=st.integers(0, 2**20), data=st.data(),
)  # fmt: skip
def test_small_banks(dims, K, M, l, stride, sides, samples, seed, data):
    n = sides[:dims]
    k = data.draw(st.integers(1, min(5, K * math.prod(n))))
    bank, table, index, code = case(dims, K, M, l, stride, n, k, samples, seed=seed)
    found = atom_norms(table, n, index, code)
    # Dependent atoms may leave nothing of W^T z but rounding.
    sound = found[0] > 1e-4
    for one, other in zip(found, dense_ratios(bank, n, index, code), strict=True):
        assert_close(one[sound], other[sound], rtol=1e-8, atol=1e-10)


def test_by_hand():
    # Atoms (1, 0) and (0.6, 0.8): G = [[1, .6], [.6, 1]]. For z = (1, 1), G z = 1.6 z and
    # G z - z = 0.6 z: the ratios are sqrt(1.6), 1.6 and 0.6. For z = (1, -1): sqrt(.4), .4, .6.
    table = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64).view(2, 2, 1)
    code = torch.tensor([[1.0, 1.0], [3.0, -3.0]], dtype=torch.float64)
    index = torch.tensor([[0, 1], [1, 0]])
    expected = [(1.6**0.5, 0.4**0.5), (1.6, 0.4), (0.6, 0.6)]
    for one, other in zip(atom_norms(table, (1,), index, code), expected, strict=True):
        assert_close(one, torch.tensor(other, dtype=torch.float64))


@pytest.mark.parametrize("size", [16, 1000])
def test_parts_and_blocks_change_nothing(size, monkeypatch):
    _, table, index, code = case(samples=37)
    whole = atom_norms(table, (6,), index, code)
    monkeypatch.setattr(module, "PART", size)
    monkeypatch.setattr(module, "BLOCK", 16)
    for one, other in zip(atom_norms(table, (6,), index, code), whole, strict=True):
        assert_close(one, other, rtol=1e-14, atol=0)


def test_any_strides():
    _, table, index, code = case(samples=8)
    whole = atom_norms(table, (6,), index, code)
    wide = torch.stack([index, index.flip(1)], 2)[:, :, 0], torch.stack([code, code], 1)[:, 1]
    for some, values in ((index.T.contiguous().T, code), wide, (index, code.T.contiguous().T)):
        assert (some.stride(), values.stride()) != (index.stride(), code.stride())
        for one, other in zip(atom_norms(table, (6,), some, values), whole, strict=True):
            assert torch.equal(one, other)
    turned = table.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(atom_norms(turned, (6,), index, code)[0], whole[0])


def test_both_routes_agree():
    _, table, index, code = case(dims=2, K=3, n=(4, 5), samples=50)
    plain = atom_norms_plain(table, [4, 5], index, code)
    for one, other in zip(atom_norms(table, (4, 5), index, code), plain, strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_orthonormal_atoms_are_inverted_exactly():
    table = torch.eye(4, dtype=torch.float64).unsqueeze(2)
    index = torch.tensor([[0, 5, 9], [3, 7, 11]])
    code = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b, c = atom_norms(table, (3,), index, code)
    assert_close(a, torch.ones(2, dtype=torch.float64))
    assert_close(b, a)
    assert c.tolist() == [0, 0]


def test_no_code_no_ratio():
    _, table, index, code = case(samples=3)
    code[1] = 0
    for ratio in atom_norms(table, (6,), index, code):
        assert ratio.isnan().tolist() == [False, True, False]
    assert all(ratio.shape == (0,) for ratio in atom_norms(table, (6,), index[:0], code[:0]))


def test_not_a_number_stays_in_its_sample():
    _, table, index, code = case(samples=3)
    code[2, 1] = math.nan
    for ratio in atom_norms(table, (6,), index, code):
        assert ratio.isnan().tolist() == [False, False, True]


@pytest.mark.skipif(not INTERPRET, reason="the op runs on CPU tensors under the interpreter only")
def test_the_op_keeps_its_contract_and_loads_nothing_out_of_range():
    _, table, index, code = case(samples=4)
    op = torch.ops.invertnb.atom_norms
    torch.library.opcheck(op.default, (table, [6], index, code))
    right = op(table, [6], index, code)
    index[1, 2], index[3, 0] = 30, -1
    found = op(table, [6], index, code)
    assert found[:, [1, 3]].isnan().all()
    assert torch.equal(found[:, [0, 2]], right[:, [0, 2]])


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_in_one_graph(dynamic):
    _, table, index, code = case(samples=5)
    run = torch.compile(
        lambda *tensors: atom_norms(table, (6,), *tensors), fullgraph=True, dynamic=dynamic,
        backend="aot_eager")  # fmt: skip
    for one, other in zip(run(index, code), atom_norms(table, (6,), index, code), strict=True):
        assert_close(one, other, rtol=1e-14, atol=0)


_, TABLE, INDEX, CODE = case(samples=2)
WIDE = torch.zeros(1, dtype=torch.float64)
BAD = {
    "table: dtype": ({"table": TABLE.half(), "code": CODE.half()}, "table = torch.float16", "float32"),
    "table: square": ({"table": TABLE[:4]}, "table = ", "(K, K, 2R+1)"),
    "table: even": ({"table": TABLE[..., 1:]}, "table = ", "(K, K, 2R+1)"),
    "table: large": ({"table": WIDE.expand(2**15, 2**15, 1)}, "table = ", "2^31"),
    "n: axes": ({"n": (6, 6)}, "n = [6, 6]", "each axis"),
    "n: zero": ({"n": (0,)}, "n = [0]", "positive"),
    "atoms: many": ({"n": (2**29,)}, "table = ", "2^31"),
    "index: dtype": ({"index": INDEX.int()}, "index = int32", "int64"),
    "index: axes": ({"index": INDEX[0]}, "index = ", "(samples, k)"),
    "index: none": ({"index": INDEX[:, :0], "code": CODE[:, :0]}, "index = ", "(samples, k)"),
    "index: high": ({"index": torch.full_like(INDEX, 30)}, "index = 30", "0 to 29"),
    "index: low": ({"index": torch.full_like(INDEX, -1)}, "index = -1", "0 to 29"),
    "code: shape": ({"code": CODE[:1]}, "code = ", "(2, 4)"),
    "code: dtype": ({"code": CODE.float()}, "code = float32", "the table's dtype"),
    "code: device": ({"code": CODE.to("meta")}, "code = ", "on meta", "device"),
    "code: gradient": ({"code": CODE.clone().requires_grad_()}, "code = ", "no gradient"),
    "table: gradient": ({"table": TABLE.clone().requires_grad_()}, "code = ", "no gradient"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, refuses):
    changes, *parts = BAD[name]
    given = {"table": TABLE, "n": (6,), "index": INDEX, "code": CODE, **changes}
    refuses(lambda: atom_norms(*(given[key] for key in ("table", "n", "index", "code"))), *parts)
