"""Block-sparsify: the magnitude from which on a pooled entry is kept, k of them in each sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import check
from invertnb.kernels.bits import INTEGERS
from invertnb.kernels.pooling import dense, is_last


class Threshold(NamedTuple):
    """The k entries of largest magnitude of each sample, as a rule for one pass over them.

    An entry is kept if its magnitude is above the sample's level, or equal to it and its index in
    the flattened contiguous sample at most `last_equal`: of equals the first are taken.

    Attributes:
        level: the k-th magnitude, (batch,), in the dtype of the values.
        last_equal: int64 (batch,).
    """

    level: Tensor
    last_equal: Tensor


def threshold(values: Tensor, k: int) -> Threshold:
    """The rule that keeps exactly k of the values (batch, ...) in each sample; NaN is the largest.

    Raises:
        ValueError: k below 1 or above the entries of a sample.
    """
    keys = _keys(values)
    if not 1 <= k <= keys.shape[1]:
        raise ValueError(f"k = {k}: expected 1 to {keys.shape[1]}, the entries of a sample")
    level = keys.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    wanted = k - (keys > level).sum(1, keepdim=True)
    last = torch.full_like(wanted, keys.shape[1])
    # Are there more equals than wanted? The question would wait for a GPU, and costs less here.
    always = values.is_cuda or torch.compiler.is_compiling()
    if always or ((keys == level).sum(1, keepdim=True) > wanted).any():
        equal = _keys(values.contiguous()) == level
        # The index of the last of the equals that is wanted: all before it have a smaller count.
        last = (equal.cumsum(1) < wanted).sum(1, keepdim=True)
    return Threshold(level.squeeze(1).contiguous().view(values.dtype), last.squeeze(1))


def check_threshold(rule: Threshold, values: Tensor) -> Threshold:
    """The rule, contiguous, for pooled values of a batch.

    Raises:
        ValueError: no level of the values' dtype and device for each sample.
    """
    shape, on = (len(values),), f"of shape ({len(values)},) on {values.device}"
    for name, part, dtype in zip(rule._fields, rule, (values.dtype, torch.int64), strict=True):
        if part.shape != shape or part.dtype != dtype or part.device != values.device:
            check.fail(name, part, f"a {str(dtype).removeprefix('torch.')} tensor {on}")
    return Threshold(*(part.contiguous() for part in rule))


def at_least(values: Tensor, rule: Threshold) -> Tensor:
    """Mask of the values that a threshold keeps, in their shape."""
    bits = _bits(values.detach())
    ones = (-1, *(1,) * (values.dim() - 1))
    level = rule.level.view(INTEGERS[values.dtype]).view(ones)
    index = torch.arange(values.shape[1:].numel(), device=values.device).view(values.shape[1:])
    return (bits > level) | ((bits == level) & (index <= rule.last_equal.view(ones)))


def _bits(values: Tensor) -> Tensor:
    kind = INTEGERS[values.dtype]
    return values.view(kind) & torch.iinfo(kind).max


def _keys(values: Tensor) -> Tensor:
    """Integers that sort like the magnitudes, (batch, entries), in the order of memory."""
    values = dense(values.detach())
    return _bits(values.permute(0, 2, 3, 1) if is_last(values) else values).flatten(1)
