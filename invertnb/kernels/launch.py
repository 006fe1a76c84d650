"""Whether Triton runs a kernel here, and what every launch must respect.

Every kernel is one file: a naive reference, the plain PyTorch path of the CPU, and a Triton kernel
behind `torch.library.custom_op`. The public function branches on the device in Python, so that
`torch.compile` traces plain PyTorch on a CPU and one opaque call on a GPU. Under Triton's
interpreter (TRITON_INTERPRET=1, read when the package is imported) the same op runs on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel for this system: CUDA tensors take the plain path, too
    triton = tl = None

# One mode a process: Triton decides when a kernel is decorated.
INTERPRET = bool(triton is not None and triton.knobs.runtime.interpret)

# What the kernels load and store; they compute in float32, or in float64 for float64.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def jit(function: Callable) -> Any:
    """`triton.jit`, or the bare function where there is no Triton."""
    return function if triton is None else triton.jit(function)


def _plain(number: Any) -> Any:
    return int(number.handle.data.item()) if isinstance(number, tl.tensor) else number


def _same(number):  # noqa: ANN001, ANN202
    return number


# The end of a kernel's loop, `for a in range(bound(k))`. Triton before 3.8 interprets a number as
# an array of one entry, of which range() makes no integer under NumPy 2.4. Compiled, it is nothing.
bound = _plain if INTERPRET else jit(_same)


def use_triton(x: Tensor) -> bool:
    """Whether a Triton kernel takes this tensor: on an NVIDIA GPU, or under the interpreter."""
    here = INTERPRET or (x.is_cuda and torch.version.hip is None)
    return triton is not None and here and x.dtype in DTYPES


def roomy(x: Tensor) -> bool:
    """Whether a program has the shared memory and registers of sm_90, for which kernels are sized."""
    if INTERPRET or not torch.cuda.is_available():  # without a device x is a fake tensor
        return True
    return torch.cuda.get_device_capability(x.device) >= (9, 0)


def transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work, which no custom op knows of.

    The plain forms are differentiable in every way, and are taken then.
    """
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def blocks_of(count: int, block: int) -> tuple[int]:
    """The grid of one axis: programs of `block` elements that cover `count` of them."""
    return (-(-count // block),)


def on_device(x: Tensor) -> AbstractContextManager:
    """Launches inside go to the device of x, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
