"""`encode` against its definition in float64, on whichever path is taken."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.library import opcheck

from invertnb import encode
from invertnb.kernels import encoder
from invertnb.kernels.encoder import _share
from invertnb.kernels.launch import INTERPRET, jit, tl, triton
from invertnb.kernels.patches import filter_rows, window_patches

BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-13}
# batch, M, H, W, K, l; window, padding, stride
CASES = {
    "odd": ((2, 3, 7, 9, 5, 3), (2, 0, 1)),
    "two blocks each way": ((3, 3, 12, 13, 130, 5), (2, 2, 1)),
    "one window": ((1, 1, 5, 5, 1, 5), (1, 0, 1)),
    "window 3": ((2, 3, 9, 8, 5, 3), (3, 1, 1)),
    "window 4": ((2, 2, 14, 13, 6, 4), (4, 3, 1)),
    "stride": ((2, 3, 13, 11, 7, 3), (2, 1, 2)),
    "1 x 1 filters": ((2, 3, 4, 5, 4, 1), (2, 0, 1)),
    "7 x 7 filters": ((1, 3, 16, 16, 5, 7), (2, 3, 1)),
    "many channels": ((2, 20, 6, 7, 5, 3), (2, 1, 1)),
}
infinite = pytest.mark.filterwarnings("ignore:invalid value encountered")  # by the interpreter
interpreted = pytest.mark.skipif(not INTERPRET, reason="a kernel on CPU tensors: the interpreter's run")


@pytest.fixture(autouse=True)
def full_float32():
    convolution = torch.backends.cudnn.conv
    before, convolution.fp32_precision = convolution.fp32_precision, "ieee"
    yield
    convolution.fp32_precision = before


def layer(shape, dtype=torch.float32, device="cpu", seed=0):
    """Images, filters, and scales and biases of both signs."""
    batch, M, H, W, K, l = shape
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, M, H, W, generator=g)
    weight = torch.randn(K, M, l, l, generator=g) / math.sqrt(M * l * l)
    scale, bias = torch.randn(2, K, generator=g)
    return tuple(t.to(device, dtype) for t in (x, weight, scale, bias))


def run(tensors, geometry):
    window, padding, stride = geometry
    return encode(*tensors, window=window, padding=padding, stride=stride)


def definition(tensors, geometry):
    return encoder.encode_naive(*(t if t is None else t.double() for t in tensors), *geometry)


def assert_near(result, expected, dtype):
    assert result.shape == expected.shape
    error = float((result.double() - expected).norm() / expected.norm())
    assert error <= BOUNDS[dtype], error


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("case", CASES)
def test_equals_its_definition(case, dtype, device):
    shape, geometry = CASES[case]
    tensors = layer(shape, dtype, device)
    result = run(tensors, geometry)
    assert_near(result, definition(tensors, geometry), dtype)
    assert result.dtype == dtype and result.device.type == device
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", ["odd", "many channels"])
def test_scale_and_bias_may_be_left_out(case, device):
    shape, geometry = CASES[case]
    x, weight, scale, bias = layer(shape, device=device)
    for tensors in ((x, weight), (x, weight, scale), (x, weight, None, bias)):
        expected = definition((*tensors, None, None)[:4], geometry)
        assert_near(run(tensors, geometry), expected, x.dtype)


def test_a_scale_of_zero_leaves_the_bias(device):
    x, weight, _, bias = layer(CASES["odd"][0], device=device)
    scale = torch.zeros_like(bias)
    result = run((x, weight, scale, bias), CASES["odd"][1])
    assert torch.equal(result, bias.relu().view(-1, 1, 1).expand_as(result))


@infinite
@pytest.mark.parametrize("case", ["odd", "window 3", "many channels"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_go_where_they_go_in_the_definition(bad, case, device):
    shape, geometry = CASES[case]
    x, weight, scale, bias = layer(shape, device=device)
    x[0, 0, 2, 3], x[1, 1, -1, 0] = bad, bad
    weight[1, 0, 0, 0] = 0  # 0 * inf in one of the responses
    scale[0], scale[2] = -1.0, math.nan
    tensors = x, weight, scale, bias
    result, expected = run(tensors, geometry), definition(tensors, geometry)
    assert result.isnan().any() and result.isfinite().any()
    torch.testing.assert_close(result.double(), expected, equal_nan=True, rtol=1e-4, atol=1e-5)


@infinite
def test_entries_that_fill_a_filter_up_meet_no_infinity(device):
    # 75 entries are computed as 80: what lies beyond must not become 0 * inf.
    x, weight, scale, bias = layer((1, 3, 8, 8, 4, 5), device=device)
    result = run((torch.full_like(x, math.inf), weight.abs(), scale, bias), (2, 0, 1))
    assert torch.equal(result, torch.where(scale > 0, math.inf, 0.0).view(-1, 1, 1).expand_as(result))


@pytest.mark.parametrize("case", ["odd", "many channels"])
def test_an_empty_batch(case, device):
    shape, geometry = CASES[case]
    x, *rest = layer(shape, device=device)
    full = run((x, *rest), geometry)
    rest[1].requires_grad_()
    empty = run((x[:0], *rest), geometry)
    assert empty.shape == (0, *full.shape[1:]) and empty.dtype == full.dtype
    empty.sum().backward()
    assert torch.equal(rest[1].grad, torch.zeros_like(rest[1]))


@pytest.mark.parametrize("case", ["odd", "stride", "many channels"])
def test_any_layout_goes_in(case, device):
    shape, geometry = CASES[case]
    x, weight, scale, bias = layer(shape, device=device)
    expected = definition((x, weight, scale, bias), geometry)
    spaced = torch.stack([x, x + 1], -1)[..., 0]
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    for images in (x.contiguous(memory_format=torch.channels_last), spaced, turned):
        assert_near(run((images, weight, scale, bias), geometry), expected, x.dtype)
    filters = weight.transpose(0, 1).contiguous().transpose(0, 1)
    pairs = torch.stack([scale, bias], 1)
    assert_near(run((x, filters, pairs[:, 0], pairs[:, 1]), geometry), expected, x.dtype)
    one = x[:1].expand_as(x)
    expected = definition((one, weight, scale, bias), geometry)
    assert_near(run((one, weight, scale, bias), geometry), expected, x.dtype)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_parts_of_a_batch_give_the_whole(images, monkeypatch):
    tensors = layer((5, *CASES["odd"][0][1:]))
    monkeypatch.setattr(encoder, "CACHED", images * 2 * 3 * 5 * 4)  # 2 x 3 windows, 5 filters
    assert_near(encoder.encode_torch(*tensors, *CASES["odd"][1]), definition(tensors, CASES["odd"][1]),
                torch.float32)


def test_the_inputs_stay_as_they_are(device):
    for case in ("1 x 1 filters", "many channels"):
        shape, geometry = CASES[case]
        tensors = layer(shape, device=device)
        copies = [t.clone() for t in tensors]
        run(tensors, geometry)
        assert all(map(torch.equal, tensors, copies))


@pytest.mark.parametrize("wanted", [(2, 3), (1,), (0,), (2,), (0, 1, 2, 3)])
@pytest.mark.parametrize("case", ["odd", "two blocks each way", "window 3", "stride", "many channels"])
def test_gradients_are_those_of_the_definition(case, wanted, device):
    shape, geometry = CASES[case]
    tensors, exact = layer(shape, device=device), layer(shape, torch.float64, device)
    for t in (tensors, exact):
        for place in wanted:
            t[place].requires_grad_()
    result, expected = run(tensors, geometry), definition(exact, geometry)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (result * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    for place in range(4):
        assert (tensors[place].grad is None) == (place not in wanted)
        if place in wanted:
            assert_near(tensors[place].grad, exact[place].grad, torch.float32)


def test_a_tie_sends_the_gradient_to_the_first(device):
    # A constant image: all responses of a window are equal.
    x, weight, scale, bias = layer(CASES["odd"][0], device=device)
    exact = torch.ones_like(x, dtype=torch.float64).requires_grad_()
    x = torch.ones_like(x).requires_grad_()
    run((x, weight, scale.abs(), bias), (2, 0, 1)).sum().backward()
    definition((exact, weight, scale.abs(), bias), (2, 0, 1)).sum().backward()
    assert_near(x.grad, exact.grad, x.dtype)


def test_gradcheck(device):
    # float64 has no kernel: this is torch's convolution and pooling. Their gradients on CUDA are sums
    # by atomic additions, whose order, and so the last bits, change from one run to the next.
    same = 1e-12 if device == "cuda" else 0.0
    for case in ("odd", "stride", "many channels"):
        shape, geometry = CASES[case]
        tensors = [t.requires_grad_() for t in layer(shape, torch.float64, device)]
        assert gradcheck(lambda *t, g=geometry: run(t, g), tensors, fast_mode=True, nondet_tol=same)


@pytest.mark.parametrize("value, nearest", [
    (0.0, 0.0), (1 + 2**-10, 1 + 2**-10), (1 + 2**-11, 1 + 2**-10), (1 + 2**-11 - 2**-23, 1.0),
    (1 + 3 * 2**-11, 1 + 2**-9), (2 - 2**-23, 2.0), (-1 - 2**-12, -1.0), (-1 - 2**-11, -1 - 2**-10),
    (0.1, 1638 * 2**-14), (2**-149, 0.0), (2**-137, 2**-136), (math.inf, math.inf), (-math.inf, -math.inf),
    (2.0**128 - 2.0**104, 2.0**128 - 2.0**117), (2.0**117 - 2.0**128, 2.0**117 - 2.0**128)])  # fmt: skip
def test_tf32_by_hand(value, nearest):
    given = torch.tensor([value])
    assert encoder.rounded_to_tf32(given).tolist() == [nearest]
    assert given.tolist() == torch.tensor([value]).tolist()


def test_every_nan_stays_one_in_tf32():
    # Also those whose fraction is in the bits that are cut off, and those that a carry would turn over.
    bits = torch.tensor([0x7F800001, 0x7FC00000, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    result = encoder.rounded_to_tf32(bits.view(torch.float32))
    assert result.isnan().all() and (result.view(torch.int32) & 0x1FFF == 0).all()


@pytest.mark.parametrize("case", ["odd", "two blocks each way", "stride"])
def test_operands_are_rounded_before_tensor_cores_cut_them(case, device):
    if device == "cpu" and not INTERPRET:
        pytest.skip("a kernel on CPU tensors: the interpreter's run")
    shape, geometry = CASES[case]
    x, weight, scale, bias = layer(shape, device=device)
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    result = torch.ops.invertnb.encode(x, weight, scale, bias, *geometry, True)
    near = encoder.rounded_to_tf32(x), encoder.rounded_to_tf32(weight), scale, bias
    exact = definition((x, weight, scale, bias), geometry)
    near, far = (float((result.double() - y).norm() / exact.norm()) for y in (definition(near, geometry), exact))
    # Tensor cores add up with fewer bits than float32 has; operands that are cut off make it 6e-4.
    assert near < (5e-5 if device == "cuda" else 1e-5) and 1e-4 < far < 3e-4
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert_near(torch.ops.invertnb.encode(x, weight, scale, bias, *geometry, True), exact, torch.float32)


@interpreted
@pytest.mark.parametrize("dtype, wanted, relu", [
    (torch.float32, (0, 1, 2, 3), True), (torch.float32, (2, 3), True),
    (torch.float16, (1, 2), False)])  # fmt: skip
def test_opcheck(dtype, wanted, relu):
    tensors = layer(CASES["odd"][0], dtype)
    for place in wanted:
        tensors[place].requires_grad_()
    opcheck(torch.ops.invertnb.encode.default, (*tensors, 2, 1, 1, relu))


@pytest.mark.parametrize("case, dynamic", [("odd", False), ("odd", True), ("many channels", True)])
def test_compiles_as_one_graph(case, dynamic, device):
    shape, geometry = CASES[case]
    tensors = layer(shape, device=device)
    torch._dynamo.reset()
    call = torch.compile(
        lambda *t: run(t, geometry), fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    expected = definition(tensors, geometry)
    assert_near(call(*tensors), expected, torch.float32)
    for t in tensors:
        t.requires_grad_()
    grads = torch.autograd.grad(call(*tensors).sum(), tensors)
    expected = torch.autograd.grad(run(tensors, geometry).sum(), tensors)
    for one, other in zip(grads, expected, strict=True):
        assert_near(one, other.double(), torch.float32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_gpu_that_is_not_there_gets_its_path_and_its_shape(case, dtype, monkeypatch):
    plain, calls = encoder.encode_torch, []
    monkeypatch.setattr(encoder, "encode_torch", lambda *a: calls.append(1) or plain(*a))
    shape, geometry = CASES[case]
    expected = definition(layer(shape), geometry)
    with FakeTensorMode(allow_non_fake_inputs=True):
        result = run([t.to("cuda") for t in layer(shape, dtype)], geometry)
    assert result.device.type == "cuda" and result.dtype == dtype and result.shape == expected.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    left = triton is None or dtype == torch.float64 or case == "many channels"
    assert len(calls) == left


class Recorder:
    """Stands in for the kernel: the same specification in plain PyTorch, and what it was launched with."""

    def __getitem__(self, grid):
        def launch(patches, filters, scale, bias, out, windows, K, blocks, **constants):
            self.grid, self.constants = grid, constants
            depth = constants["HEAD"] + constants["TAIL"]
            assert patches.shape == (constants["PLACES"], windows, depth) and patches.is_contiguous()
            assert filters.shape == (blocks * constants["FILTERS"], depth) and filters.is_contiguous()
            assert scale.dtype == bias.dtype == torch.float32 and len(scale) == len(bias) == len(filters)
            y = (patches.float() @ filters.float().T).amax(0) * scale + bias
            y = y.relu() if constants["RELU"] else y
            out.permute(0, 2, 3, 1).view(windows, K).copy_(y[:, :K])

        return launch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", [case for case in CASES if case != "many channels"])
def test_the_launch_gives_the_kernel_what_its_specification_asks_for(case, dtype, monkeypatch):
    shape, geometry = CASES[case]
    tensors, recorder = layer(shape, dtype), Recorder()
    monkeypatch.setattr(encoder, "_kernel", recorder)
    result = torch.ops.invertnb.encode(*tensors, *geometry, True)
    assert_near(result, definition(tensors, geometry), dtype)
    constants, windows, K = recorder.constants, result[:, 0].numel(), result.shape[1]
    ieee = dtype == torch.float32
    assert constants["PRECISION"] == "ieee" and constants["num_warps"] == (8 if ieee else 4)
    programs = -(-windows // constants["WINDOWS"]) * -(-K // constants["FILTERS"])
    assert recorder.grid == (programs,)
    # Tensor cores ask for powers of two from 16.
    entries = shape[1] * shape[5] ** 2
    for part in (constants["HEAD"], constants["TAIL"] or 16):
        assert part >= 16 and part & (part - 1) == 0
    assert entries <= constants["HEAD"] + constants["TAIL"] < 2 * max(entries, 16)
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.ops.invertnb.encode(*tensors, *geometry, True)
    assert recorder.constants["PRECISION"] == "tf32" and recorder.constants["num_warps"] == 4


@pytest.mark.parametrize("entries, parts", [
    (1, (16, 0)), (16, (16, 0)), (17, (16, 16)), (27, (16, 16)), (64, (64, 0)), (75, (64, 16)),
    (147, (128, 32)), (160, (128, 32))])  # fmt: skip
def test_a_filter_is_covered_by_powers_of_two(entries, parts):
    assert encoder._split(entries) == parts


@jit
def _offsets(to, program, blocks, K, WINDOWS: tl.constexpr, FILTERS: tl.constexpr):
    k, w = _share(program, blocks, WINDOWS, FILTERS)
    tl.store(to + tl.arange(0, WINDOWS)[:, None] * FILTERS + tl.arange(0, FILTERS)[None, :],
             w[:, None] * K + k[None, :])


def test_offsets_beyond_32_bits(device):
    if device == "cpu" and not INTERPRET:
        pytest.skip("a kernel on CPU tensors: the interpreter's run")
    to = torch.zeros(64, 128, dtype=torch.int64, device=device)
    blocks, K, program = 16, 2048, 16 * (2**31 // 2048) + 3
    _offsets[(1,)](to, program, blocks, K, WINDOWS=64, FILTERS=128)
    w = torch.arange(64).unsqueeze(1) + 2**31 // 2048 * 64
    expected = w * K + 3 * 128 + torch.arange(128)
    assert torch.equal(to.cpu(), expected) and int(expected.max()) > 2**36


def test_patches_are_those_that_the_filters_see():
    x, weight, *_ = layer((2, 3, 8, 9, 4, 3), torch.float64)
    response = F.conv2d(x, weight, stride=2, padding=1)  # 4 x 5
    patches = window_patches(x, 3, 2, 1, 2, depth=30)
    assert patches.shape == (4, 2 * 2 * 2, 30) and (patches[..., 27:] == 0).all()
    products = (patches[..., :27] @ filter_rows(weight).T).view(2, 2, 2, 2, 2, 4)
    for p, q in itertools.product(range(2), repeat=2):
        expected = response[:, :, p:4:2, q:4:2].permute(0, 2, 3, 1)
        torch.testing.assert_close(products[p, q], expected)
