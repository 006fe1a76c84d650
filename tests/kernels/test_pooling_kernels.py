"""pool_switch, unpool, pick and keep against their definitions, on whichever path is taken."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch.library import opcheck

from invertnb.kernels.keep import keep, keep_naive
from invertnb.kernels.launch import INTERPRET, jit, tl, triton
from invertnb.kernels.pool_switch import pool_switch, pool_switch_naive
from invertnb.kernels.pooling import pair_place, window_place
from invertnb.kernels.selection import largest
from invertnb.kernels.threshold import Threshold, at_least, threshold
from invertnb.kernels.unpool import pick, unpool, unpool_naive

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
CONTIGUOUS, LAST = torch.contiguous_format, torch.channels_last
# Code sizes and blocks: whole and with rest; pairs of columns, other windows, one tile a window.
CASES = [
    ((3, 4, 6, 12), (2, 2)), ((2, 5, 7, 13), (2, 2)), ((2, 5, 7, 13), (1, 3)), ((2, 3, 6, 8), (3, 2)),
    ((2, 1, 4, 6), (2, 3)), ((2, 3, 11, 13), (5, 5)), ((1, 2, 40, 36), (20, 18)), ((3, 5, 13), 1),
    ((3, 5, 13), 2), ((3, 5, 12), 2), ((3, 5, 13), 7), ((2, 3, 28), 28), ((1, 2, 600), 300),
]  # fmt: skip

LAYOUTS = [(*case, layout) for case in CASES for layout in (CONTIGUOUS, LAST)[: len(case[0]) - 2]]


def with_ties(shape, dtype=torch.float32, layout=CONTIGUOUS, device="cpu", seed=0):
    """Few distinct values, so that blocks are full of ties; zeros of both signs."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randint(-2, 3, shape, generator=g).to(dtype)
    z = torch.where((z == 0) & (torch.rand(shape, generator=g) < 0.5), -0.0, z)
    return z.to(device).contiguous(memory_format=layout if len(shape) == 4 else CONTIGUOUS)


def same_bits(one, other):
    """Equal, NaN included, and zeros of one sign."""
    assert one.dtype == other.dtype and one.shape == other.shape
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    assert torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, block, layout", LAYOUTS)
def test_all_equal_their_definitions(shape, block, dtype, layout, device):
    z = with_ties(shape, dtype, layout, device)
    for by in ("abs", "signed"):
        values, switches = pool_switch(z, block, by)
        expected = pool_switch_naive(z, block, by)
        same_bits(values, expected[0])
        assert torch.equal(switches.long(), expected[1])
        code = unpool_naive(*expected, block, shape[2:])
        assert torch.equal(unpool(values, switches, block, size=shape[2:]), code)
        assert torch.equal(keep(z, block, by), code)
        assert torch.equal(pick(z, switches, block), values)
    for result in (values, switches, keep(z, block)):
        assert len(shape) == 3 or result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, block", [CASES[0], CASES[2], CASES[8], CASES[11]])
def test_the_k_largest_in_the_same_pass(shape, block, dtype, layout, device):
    z = with_ties(shape, dtype, layout, device)
    values, switches = pool_switch(z, block)
    for k in (1, 3, values[0].numel()):
        rule = threshold(values, k)
        kept = largest(values.flatten(1), k).view(values.shape)
        assert torch.equal(at_least(values, rule), kept)
        code = unpool_naive(torch.where(kept, values, 0.0), switches.long(), block, shape[2:])
        assert torch.equal(unpool(values, switches, block, size=shape[2:], threshold=rule), code)
        assert torch.equal(keep(z, block, threshold=rule), code)


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [(2, 2), (3, 5)])
def test_nan_counts_as_the_largest_and_infinity_as_a_number(dtype, layout, block, device):
    z = torch.randn(2, 3, 6, 20, generator=torch.Generator().manual_seed(1))
    z = z.to(device, dtype).contiguous(memory_format=layout)
    z[0, 0, 0, 1], z[0, 1, 1, 0], z[1, 2, 5, 19] = torch.inf, -torch.inf, torch.nan
    z[1, 0, 0, 0], z[1, 0, 1, 1] = torch.inf, torch.nan
    z[1, 1, 0, 0] = torch.tensor(torch.nan).copysign(torch.tensor(-1.0))
    for by in ("abs", "signed"):
        values, switches = pool_switch(z, block, by)
        expected = pool_switch_naive(z, block, by)
        torch.testing.assert_close(values, expected[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(switches.long(), expected[1])  # one NaN a block: its place is determined
        torch.testing.assert_close(keep(z, block, by), keep_naive(z, block, by), rtol=0, atol=0,
                                   equal_nan=True)  # fmt: skip
    assert values[1, 1, 0, 0].isnan()


def test_the_k_largest_with_nan(device):
    values = torch.tensor([[[1.0, torch.nan, -3.0, 2.0]], [[torch.nan, 0.0, torch.nan, 1.0]]])
    values = values.to(device)
    assert at_least(values, threshold(values, 2))[0, 0].tolist() == [False, True, True, False]
    assert at_least(values, threshold(values, 1))[1, 0].tolist() == [True, False, False, False]


@pytest.mark.parametrize("shape, block", [((0, 3, 4, 6), (2, 2)), ((0, 3, 8), 4), ((2, 0, 4, 6), (2, 2))])
def test_empty(shape, block, device):
    z = torch.zeros(shape, device=device)
    values, switches = pool_switch(z, block)
    assert values.numel() == 0 and switches.shape == values.shape
    assert unpool(values, switches, block).shape == z.shape and keep(z, block).shape == z.shape


def test_any_strides(device):
    whole = with_ties((4, 6, 12, 8), device=device)
    for z in (whole[::2], whole[:, 1::2], whole.transpose(2, 3), whole[..., 2:6], whole.expand(4, 6, 12, 8)):
        expected = pool_switch_naive(z, (2, 2))
        values, switches = pool_switch(z, (2, 2))
        assert torch.equal(values, expected[0]) and torch.equal(switches.long(), expected[1])
        assert torch.equal(keep(z, (2, 2)), keep_naive(z, (2, 2)))
        turned = unpool(values.mT.contiguous().mT, switches.mT.contiguous().mT, (2, 2))
        assert torch.equal(turned, keep_naive(z, (2, 2)))


def test_by_hand(device):
    z = torch.tensor([[[[1.0, -3.0, 0.0, 2.0], [2.0, 3.0, -2.0, 1.0]]]], device=device)
    values, switches = pool_switch(z, (2, 2), "abs")
    assert values.tolist() == [[[[-3.0, 2.0]]]]  # |-3| = |3|: the lower index wins
    assert switches.tolist() == [[[[1, 1]]]]
    values, switches = pool_switch(z, (2, 2), "signed")
    assert values.tolist() == [[[[3.0, 2.0]]]] and switches.tolist() == [[[[3, 1]]]]
    # The right column of the upper row ties with the left column of the lower row, and comes first.
    z = torch.tensor([[[[0.0, 1.0], [-1.0, 0.0]]]], device=device)
    assert pool_switch(z, (2, 2))[1].item() == 1 and keep(z, (2, 2)).flatten().tolist() == [0, 1, 0, 0]


def test_switches_are_narrow(device):
    assert pool_switch(torch.zeros(1, 1, 512, device=device), 256)[1].dtype == torch.uint8
    assert pool_switch(torch.zeros(1, 1, 514, device=device), 257)[1].dtype == torch.int32


def test_a_threshold_of_any_strides(device):
    z = with_ties((2, 3, 4, 4), device=device)
    values, switches = pool_switch(z, (2, 2))
    rule = threshold(values, 3)
    apart = Threshold(*(torch.stack([part, part], 1)[:, 0] for part in rule))
    assert torch.equal(keep(z, (2, 2), threshold=apart), keep(z, (2, 2), threshold=rule))
    assert all(part.shape == (0,) for part in threshold(values[:0], 2))
    assert keep(z[:0], (2, 2), threshold=threshold(values[:0], 2)).shape == (0, 3, 4, 4)


def test_switches_are_compared_before_they_are_made_narrow(device):
    values, far = torch.ones(1, 1, 2, 2, device=device), torch.full((1, 1, 2, 2), 2**32 + 1, device=device)
    assert unpool(values, far, (2, 2), trusted=True).sum() == 0
    assert pick(torch.ones(1, 1, 4, 4, device=device), far, (2, 2)).sum() == 0


def test_large_windows_of_negative_values(device):
    z = -1 - torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(2)).to(device)
    for some, block in ((z, (6, 5)), (z.double(), (6, 5)), (z.flatten(2), 20)):
        values, switches = pool_switch(some, block, "signed")
        expected = pool_switch_naive(some, block, "signed")
        assert torch.equal(values, expected[0]) and torch.equal(switches.long(), expected[1])


def test_picks_by_switches_in_another_layout(device):
    z = with_ties((2, 3, 6, 8), device=device)
    switches = pool_switch(z, (2, 2))[1]
    turned = switches.contiguous(memory_format=LAST)
    assert torch.equal(pick(z, turned, (2, 2)), pick(z, switches, (2, 2)))
    assert torch.equal(pick(z, switches.mT.contiguous().mT, (2, 2)), pick(z, switches, (2, 2)))


def test_the_same_with_deterministic_algorithms(device):
    z = with_ties((2, 3, 6, 8), device=device).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        code = unpool(*pool_switch(z, (2, 2)), (2, 2))
        code.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(code, keep_naive(z, (2, 2))) and z.grad.sum() == code.numel() // 4


@pytest.mark.parametrize("block", [(2, 2), (3, 2)])
def test_transforms_of_functions(block, device):
    z = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(device)
    switches = pool_switch(z, block)[1]
    for function in (
        lambda z: keep(z, block),
        lambda z: pool_switch(z, block)[0],
        lambda z: unpool(pool_switch(z, block)[0], switches, block),
        lambda z: pick(z, switches, block),
    ):
        out, tangent = torch.func.jvp(function, (z,), (v,))
        assert torch.equal(out, function(z))
        # All four are linear where no switch changes, and a small step changes none.
        torch.testing.assert_close(tangent, (function(z + 1e-6 * v) - function(z)) / 1e-6, atol=1e-7, rtol=1e-7)
        leaf = z.clone().requires_grad_()
        (expected,) = torch.autograd.grad(function(leaf).square().sum(), leaf)
        assert torch.equal(torch.func.grad(lambda z: function(z).square().sum())(z), expected)


def test_no_level_for_more_than_there_is():
    with pytest.raises(ValueError, match="k = 5: expected 1 to 4"):
        threshold(torch.zeros(1, 2, 2), 5)


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
@pytest.mark.parametrize("shape, block", [((1, 2, 4, 6), (2, 2)), ((1, 2, 5, 6), (2, 3)), ((1, 2, 7), 3)])
def test_gradients(shape, block, layout, device):
    g = torch.Generator().manual_seed(3)
    # Distinct magnitudes: a small step does not change a switch.
    z = (torch.randperm(torch.Size(shape).numel(), generator=g) + 1.0).double().view(shape) / 10
    z = (z * torch.randn(shape, generator=g).sign()).to(device)
    z = z.contiguous(memory_format=layout if len(shape) == 4 else CONTIGUOUS).requires_grad_()
    values, switches = pool_switch(z, block)
    for function, at in (
        (lambda z: pool_switch(z, block)[0], z),
        (lambda z: pool_switch(z, block, "signed")[0], z),
        (lambda z: keep(z, block), z),
        (lambda z: keep(z, block, threshold=threshold(pool_switch(z, block)[0], 2)), z),
        (lambda v: unpool(v, switches, block, size=shape[2:]), values.detach().requires_grad_()),
        (lambda z: pick(z, switches, block), z),
    ):
        assert torch.autograd.gradcheck(function, (at,), fast_mode=INTERPRET, check_batched_grad=False)
    # Once more: the second derivative of a square passes through the backward of the backward.
    assert torch.autograd.gradgradcheck(lambda z: pool_switch(z, block)[0] ** 2, (z,), fast_mode=True)


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
def test_gradients_are_the_adjoints(layout, device):
    z = with_ties((2, 3, 6, 8), layout=layout, device=device).requires_grad_()
    values, switches = pool_switch(z, (2, 2))
    upstream = with_ties((2, 3, 3, 4), layout=layout, device=device, seed=5)
    (gradient,) = torch.autograd.grad(values, z, upstream)
    assert torch.equal(gradient, unpool(upstream, switches, (2, 2)))
    assert not switches.requires_grad


OPS = torch.ops.invertnb


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
def test_the_ops_keep_their_promises(layout, device):
    z = with_ties((2, 3, 4, 6), layout=layout, device=device)
    values, switches = pool_switch(z, (2, 2))
    level, last_equal = threshold(values, 3)
    opcheck(OPS.pool_switch.default, (z.clone().requires_grad_(), 2, 2, False))
    opcheck(OPS.unpool.default, (values.clone().requires_grad_(), switches, 2, 2, [4, 6], None, None))
    opcheck(OPS.unpool.default, (values, switches, 2, 2, [5, 7], level, last_equal))
    opcheck(OPS.pick.default, (z.clone().requires_grad_(), switches, 2, 2))
    opcheck(OPS.keep.default, (z, 2, 2, False, None, None))
    small = with_ties((2, 3, 2, 2), layout=layout, device=device)  # one window: both layouts at once
    opcheck(OPS.unpool.default, (*pool_switch(small, (2, 2)), 2, 2, [2, 2], None, None))


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_graph(dynamic, device):
    def model(z):
        values, switches = pool_switch(z, (2, 2))
        return keep(z, (2, 2)) + unpool(values, switches, (2, 2)), switches

    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (2, 3):
        z = with_ties((batch, 3, 6, 8), device=device)
        for one, other in zip(run(z), model(z), strict=True):
            assert torch.equal(one, other) and one.dtype == other.dtype
    z = with_ties((2, 3, 6, 8), device=device).requires_grad_()
    gradients = [torch.autograd.grad(f(z)[0].sum(), z)[0] for f in (run, model)]
    assert torch.equal(*gradients)


@pytest.mark.skipif(INTERPRET, reason="the interpreter compiles nothing")
def test_compiled_code(device):
    if device == "cpu" and not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("no C++ compiler")
    torch._dynamo.reset()
    z = with_ties((2, 3, 6, 8), device=device)
    run = torch.compile(lambda z: keep(z, (2, 2)), fullgraph=True)
    assert torch.equal(run(z), keep(z, (2, 2)))


def test_fake_tensors_of_a_device_that_is_not_there():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        z = torch.zeros(2, 3, 8, 8, device="cuda", dtype=torch.bfloat16)
        values, switches = pool_switch(z, (2, 2))
        assert values.device.type == "cuda" and switches.dtype == torch.uint8
        assert keep(z, (2, 2)).shape == z.shape


@jit
def _where(first, out, BLOCK: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
           INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, P: tl.constexpr,
           Q: tl.constexpr, PAIRED: tl.constexpr):  # fmt: skip
    first = tl.cast(first, tl.int64)
    if PAIRED:
        base, offset = pair_place(first, BLOCK, WIDTH, P)
        tl.store(out + tl.arange(0, 2 * BLOCK), base + offset)
    else:
        base, offset = window_place(first, BLOCK, HEIGHT, WIDTH, INNER, ROWS, COLUMNS, P, Q)
        tl.store(out + tl.arange(0, BLOCK), base + offset)


@pytest.mark.skipif(triton is None, reason="there is no Triton for this system")
@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("first", [0, 32, 2**31 - 64, 2**33 + 96])
def test_offsets_beyond_two_to_the_31(first, inner, device):
    if device == "cpu" and not INTERPRET:
        pytest.skip("a kernel runs on a GPU or under the interpreter")
    H, W, p, q, B = 7, 10, 2, 3, 32
    rows, columns = H // p, W // q
    out = torch.zeros(B, dtype=torch.int64, device=device)
    _where[(1,)](first, out, B, H, W, inner, rows, columns, p, q, False)
    expected = []
    for w in range(first, first + B):
        i, c, r, plane = w % inner, w // inner % columns, w // inner // columns % rows, w // inner // columns // rows
        expected.append(((plane * H + r * p) * W + c * q) * inner + i)
    assert out.tolist() == expected
    if inner == 1:
        out = torch.zeros(2 * B, dtype=torch.int64, device=device)
        _where[(1,)](first, out, B, 6, 10, 1, 3, 5, 2, 2, True)
        assert out.tolist() == [w // 5 * 20 + w % 5 * 2 + b for w in range(first, first + B) for b in (0, 1)]
