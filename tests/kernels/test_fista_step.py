"""fista_step against its definition, on whichever path is taken, and what it becomes for sm_90."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.testing import assert_close

from invertnb.kernels.fista_step import BLOCK, _kernel, fista_step, fista_step_naive
from invertnb.kernels.launch import INTERPRET, triton
from invertnb.kernels.machine_code import machine_code

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# One block with rest, several blocks with rest, entries that fill blocks, and a single one.
SHAPES = [(3, 5, 13), (2, 3, 37, 29), (2, 2, BLOCK), (1, 1, 1)]


def arguments(shape, dtype=torch.float32, device="cpu", support=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    codes = [torch.randn(shape, generator=g, dtype=torch.float64).to(device, dtype) for _ in range(3)]
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    # Every sample has numbers of its own; the momentum includes 0, that of the first step.
    numbers = [torch.rand(shape[0], generator=g, dtype=torch.float64) for _ in range(3)]
    numbers[2][:1] = 0
    mask = (torch.rand(shape, generator=g) < 0.5).to(device) if support else None
    return [*codes, *(number.to(device, kind) for number in numbers), mask]


def close_to_naive(args):
    found, expected = fista_step(*args), fista_step_naive(*args)
    # The interpreter cuts float32 to bfloat16 where a chip rounds.
    loose = {"rtol": 2e-2, "atol": 2e-2} if args[0].dtype == torch.bfloat16 else {}
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, equal_nan=True, **loose)
    return found


@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape, dtype, support, device):
    args = arguments(shape, dtype, device, support)
    new, point = close_to_naive(args)
    assert new.dtype == point.dtype == dtype
    assert not support or (new[~args[6]] == 0).all()
    # The first sample has no momentum.
    assert torch.equal(new[0], point[0])


def test_by_hand(device):
    def row(*values):
        return torch.tensor([values], device=device)

    # y + g / 2 = 2, 0.75, -0.75, -2, threshold 1: z' = 1, 0, 0, -1; momentum 1/2 from z = 1.
    y, gradient, z = row(1.0, 0.5, -0.5, -1.0), row(2.0, 0.5, -0.5, -2.0), row(1.0, 1.0, 1.0, 1.0)
    number = [torch.tensor([value], device=device) for value in (0.5, 1.0, 0.5)]
    new, point = fista_step(y, gradient, z, *number)
    assert new.tolist() == [[1, 0, 0, -1]] and point.tolist() == [[1, -0.5, -0.5, -2]]


@pytest.mark.parametrize("support", [False, True])
def test_layouts(support, device):
    plain = arguments((2, 6, 7, 9), torch.float32, device, support)
    expected = fista_step_naive(*plain)
    last = [a.contiguous(memory_format=torch.channels_last) if a is not None and a.dim() == 4 else a
            for a in plain]  # fmt: skip
    strided = [a.transpose(2, 3).contiguous().transpose(2, 3) if a is not None and a.dim() == 4 else a
               for a in plain]  # fmt: skip
    for first, others in ((last, plain), (plain, last), (strided, last), (last, strided)):
        mixed = [first[0], *others[1:]]
        found = fista_step(*mixed)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    assert fista_step(*last)[0].is_contiguous(memory_format=torch.channels_last)


def test_numbers_with_a_stride(device):
    args = arguments((3, 2, 5), device=device)
    every_other = [torch.stack([number, number + 9], 1)[:, 0] for number in args[3:6]]
    for one, other in zip(fista_step(*args[:3], *every_other), fista_step(*args), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_infinity_stay(device):
    args = arguments((1, 2, 3), device=device)
    args[0].view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    new, _ = close_to_naive(args)
    assert new.view(-1)[0].isnan() and new.view(-1)[1:3].tolist() == [math.inf, -math.inf]
    assert new.view(-1)[3:].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_empty(shape, device):
    for part in fista_step(*arguments(shape, device=device)):
        assert part.shape == shape


def test_no_gradient_is_recorded(device):
    args = arguments((2, 3, 4), device=device)
    args[0].requires_grad_()
    assert not any(part.requires_grad for part in fista_step(*args))


@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 3, 4)])
def test_the_operator_is_registered_right(shape, support, device):
    args = arguments(shape, device=device, support=support)
    if len(shape) == 4:
        args[0] = args[0].contiguous(memory_format=torch.channels_last)
    # Without a chip and without the interpreter the kernel cannot run.
    able = device == "cuda" or INTERPRET
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic") if able else ()
    opcheck(torch.ops.invertnb.fista_step.default, tuple(args),
            test_utils=("test_autograd_registration", *checks))  # fmt: skip


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(dynamic, device):
    run = torch.compile(fista_step, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for shape in ((2, 3, 5), (3, 4, 7)):
        args = arguments(shape, device=device, support=True)
        for one, other in zip(run(*args), fista_step(*args), strict=True):
            assert_close(one, other)


def test_shapes_and_layouts_are_known_without_a_gpu():
    with FakeTensorMode():
        code = torch.empty(2, 3, 4, 5, device="cuda", memory_format=torch.channels_last)
        number = torch.empty(2, device="cuda")
        for part in fista_step(code, code, code, number, number, number, code > 0):
            assert part.shape == code.shape and part.device.type == "cuda"
            assert part.is_contiguous(memory_format=torch.channels_last)


def bad(place, value):
    args = arguments((2, 3, 4), support=True)
    args[place] = value
    return args


@pytest.mark.parametrize("place, value, parts", [
    (0, [1.0], ("y = [1.0]", "floating tensor")),
    (0, torch.zeros(2, 3, 4, dtype=torch.int64), ("y = int64", "floating tensor")),
    (0, torch.zeros(3), ("y = ", "(batch, ...)")),
    (1, torch.zeros(2, 3, 5), ("gradient = float32 tensor of shape (2, 3, 5)", "(2, 3, 4)")),
    (2, torch.zeros(2, 3, 4).double(), ("z = float64", "float32")),
    (2, torch.zeros(2, 3, 4, device="meta"), ("z = ", "on meta", "on cpu")),
    (3, 0.5, ("step = 0.5", "shape (2,)")),
    (4, torch.ones(3), ("threshold = float32 tensor of shape (3,)", "shape (2,)")),
    (5, torch.ones(2).double(), ("momentum = float64", "float32")),
    (6, torch.ones(2, 3, 4), ("support = float32", "bool")),
    (6, torch.ones(2, 3, 5, dtype=torch.bool), ("support = bool", "(2, 3, 4)")),
])  # fmt: skip
def test_bad_input(place, value, parts, refuses):
    refuses(lambda: fista_step(*bad(place, value)), *parts)


@pytest.mark.skipif(triton is None, reason="there is no Triton for this system")
@pytest.mark.skipif(INTERPRET, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("whole", [True, False], ids=["whole words", "any size"])
@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "fp64", "bf16"])
def test_machine_code(dtype, support, whole):
    kind = "fp64" if dtype == "fp64" else "fp32"
    signature = {name: f"*{dtype}" for name in ("y", "gradient", "z", "new", "point")}
    signature |= {name: f"*{kind}" for name in ("step", "threshold", "momentum")}
    signature |= {"support": "*u8", "per_sample": "i32:16" if whole else "i64", "blocks": "i32"}
    code = machine_code(_kernel, signature, {"HAS_SUPPORT": support, "BLOCK": BLOCK})
    assert code.spills == 0 and code.registers <= 64 and code.instructions <= 800
    if whole:
        # Codes move in words of 128 bits; narrower loads are the three numbers and the mask.
        assert code.loads[128] >= 3 and set(code.stores) == {128}
        assert code.shared == 0 or support
