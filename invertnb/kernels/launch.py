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


def use_triton(x: Tensor) -> bool:
    """Whether the Triton kernel takes this tensor: on CUDA, or under the interpreter."""
    return triton is not None and (x.is_cuda or INTERPRET) and x.dtype in DTYPES


def blocks_of(count: int, block: int) -> tuple[int]:
    """The grid of one axis: programs of `block` elements that cover `count` of them."""
    return (-(-count // block),)


def on_device(x: Tensor) -> AbstractContextManager:
    """Launches inside go to the device of x, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
