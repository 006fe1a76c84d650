"""Argument checks: a ValueError that names the argument, its value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)


def fail(name: str, value: Any, expected: str) -> NoReturn:
    """Raise the ValueError of every check: ``name = value: expected ...``."""
    raise ValueError(f"{name} = {_shown(value)}: expected {expected}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} tensor of shape {tuple(value.shape)} on {value.device}"
    return repr(value)


def integer(name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """An int (no bool) in minimum..maximum."""
    expected = f"an integer of at least {minimum}"
    if maximum is not None:
        expected = f"an integer from {minimum} to {maximum}"
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        fail(name, value, expected)
    if maximum is not None and value > maximum:
        fail(name, value, expected)
    return value


def real(name: str, value: Any, minimum: float, *, strict: bool = False) -> float:
    """A finite number of at least (strict: above) the minimum."""
    expected = f"a finite number {'above' if strict else 'of at least'} {minimum}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        fail(name, value, expected)
    if value < minimum or (strict and value == minimum):
        fail(name, value, expected)
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        fail(name, value, "True or False")
    return value


def instance(name: str, value: Any, kind: type) -> Any:
    """An object of this class."""
    if not isinstance(value, kind):
        fail(name, value, f"a {kind.__name__}")
    return value


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """One of the given strings."""
    if not isinstance(value, str) or value not in options:
        fail(name, value, "one of " + ", ".join(repr(option) for option in options))
    return value


def extent(name: str, value: Any, dims: int) -> int | tuple[int, int]:
    """A size in `dims` dimensions: an int in one, (H, W) or the side of a square in two."""
    if dims == 1:
        return integer(name, value, 1)
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not isinstance(value, tuple | list) or len(value) != 2:
        fail(name, value, "a side or a pair (H, W)")
    for side in value:
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            fail(name, value, "positive integers")
    return tuple(value)


def dtype(name: str, value: Any) -> torch.dtype:
    """float32 or float64."""
    if value not in DTYPES:
        fail(name, value, "torch.float32 or torch.float64")
    return value


def generator(name: str, value: Any) -> torch.Generator:
    """A CPU generator: draws are made on the CPU, so that they are equal on every device."""
    if not isinstance(value, torch.Generator) or value.device.type != "cpu":
        fail(name, value, "a torch.Generator on the CPU")
    return value


def array(
    name: str, value: Any, shape: Sequence[int | str], like: tuple[str, Tensor] | None = None
) -> Tensor:
    """A non-empty, finite float32 or float64 tensor; a str in `shape` names a free axis.

    like=(other's name, other) asks for the dtype and the device of another tensor too.
    """
    layout = "(" + ", ".join(map(str, shape)) + ")"
    if not isinstance(value, Tensor):
        fail(name, value, f"a tensor of shape {layout}")
    if value.dtype not in DTYPES:
        fail(name, value, "dtype float32 or float64")
    if like and (value.dtype, value.device) != (like[1].dtype, like[1].device):
        kind = str(like[1].dtype).removeprefix("torch.")
        fail(name, value, f"{kind} on {like[1].device} like {like[0]}")
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits or value.numel() == 0:
        fail(name, value, f"a non-empty tensor of shape {layout}")
    # A sum is finite only if every entry is; entry by entry is slow, and only needed to find one.
    if not torch.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
        bad = value[~torch.isfinite(value)][0].item()
        fail(name, value, f"finite entries, but found {bad}")
    return value


def mask(name: str, value: Any, shape: Sequence[int], device: torch.device) -> Tensor:
    """A bool tensor of exactly this shape, on this device."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        fail(name, value, f"a bool tensor of shape {tuple(shape)}")
    if tuple(value.shape) != tuple(shape) or value.device != device:
        fail(name, value, f"a bool tensor of shape {tuple(shape)} on {device}")
    return value
