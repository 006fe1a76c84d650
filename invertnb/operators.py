"""A convolution layer as a matrix W (section 2.2 of the paper), without ever storing W."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb import check
from invertnb.kernels.lanczos import largest_ritz_value, steps_needed

Size = int | tuple[int, int]

# Up to these sizes `norm` takes the eigenvalues of a dense Gram matrix.
EXACT_SIDE, EXACT_ENTRIES = 512, 2**23
# `norm` = sqrt(Ritz value / (1 - GAP)) exceeds the truth by at most 1 / sqrt(1 - GAP) < 1.0099.
GAP, FAILURE = 0.0195, 1e-8
# The Fourier bound costs one eigenvalue problem per frequency; above this many operations, skip it.
FOURIER_OPERATIONS = 2**31


@dataclass(frozen=True, eq=False)
class FilterBank:
    """K filters with M channels, as the analysis operator W and the synthesis operator W^T.

    Row (i, j) of W is filter i shifted by j * stride in every channel (section 2.2); rows are
    ordered row-major in (i, j), columns row-major in (m, d). With padding p the signal is taken
    as zero on p entries beyond each end, which crops the rows that reach over the boundary.

    Args:
        weight: filters, (K, M, l) for signals or (K, M, l, l) for images, float32 or float64.
        stride: the shift t between neighboring rows of one filter, at least 1.
        padding: zeros on each side, from 0 to l - 1.

    Raises:
        ValueError: a bad shape or dtype, NaN or infinite filters, stride or padding out of range.
    """

    weight: Tensor
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        two = isinstance(self.weight, Tensor) and self.weight.dim() == 4
        check.array("weight", self.weight, ("K", "M", "l", "l") if two else ("K", "M", "l"))
        if two and self.weight.shape[2] != self.weight.shape[3]:
            check.fail("weight", self.weight, "square filters (K, M, l, l)")
        check.integer("stride", self.stride, 1)
        check.integer("padding", self.padding, 0, self.l - 1)

    @property
    def K(self) -> int:
        """Number of filters."""
        return self.weight.shape[0]

    @property
    def M(self) -> int:
        """Number of input channels."""
        return self.weight.shape[1]

    @property
    def l(self) -> int:
        """Length (side) of a filter."""
        return self.weight.shape[2]

    @property
    def dims(self) -> int:
        """1 for signals, 2 for images."""
        return self.weight.dim() - 2

    @classmethod
    def gaussian(
        cls, K: int, M: int, l: int, *, dims: int = 1, stride: int = 1, padding: int = 0,
        generator: torch.Generator, dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> FilterBank:
        """I.i.d. N(0, 1) entries over sqrt(M l), or sqrt(M l^2) for images (Theorem 3.1).

        The draw is made in float64 on the CPU, so it is the same for every dtype and device.
        """
        for name, value in (("K", K), ("M", M), ("l", l)):
            check.integer(name, value, 1)
        check.integer("dims", dims, 1, 2)
        check.generator("generator", generator)
        check.dtype("dtype", dtype)
        weight = torch.randn(K, M, *(l,) * dims, generator=generator, dtype=torch.float64)
        weight = weight / math.sqrt(M * l**dims)
        return cls(weight.to(device=device, dtype=dtype), stride, padding)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> FilterBank:
        """The same bank on another device or in another dtype (float32 or float64)."""
        if dtype is not None:
            check.dtype("dtype", dtype)
        return FilterBank(self.weight.to(device=device, dtype=dtype), self.stride, self.padding)

    def normalized(self) -> FilterBank:
        """The bank with filters of unit l2 norm (section 2.2); ValueError for a zero filter."""
        # Squares of very large or small entries would overflow or vanish: bring filters to size first.
        largest = self.weight.detach().flatten(1).abs().amax(1)
        weight = self.weight / torch.where(largest > 0, largest, 1.0).view(-1, 1, *(1,) * self.dims)
        norms = weight.flatten(1).norm(dim=1)
        if not (norms > 0).all():
            zero = int(torch.nonzero(norms == 0)[0])
            check.fail("weight", self.weight, f"no zero filter to normalize, but filter {zero} is")
        weight = weight / norms.view(-1, 1, *(1,) * self.dims)
        return FilterBank(weight, self.stride, self.padding)

    def code_size(self, size: Size) -> Size:
        """n = (D + 2 padding - l) / stride + 1, or (n1, n2) for images; it must be an integer."""
        size = check.extent("size", size, self.dims)
        counts = []
        for side in (size,) if self.dims == 1 else size:
            room = side + 2 * self.padding - self.l
            if room < 0 or room % self.stride:
                expected = f"(size + 2*{self.padding} - {self.l}) to be a multiple of {self.stride}"
                check.fail("size", size, f"{expected} and not negative (section 2.2)")
            counts.append(room // self.stride + 1)
        return counts[0] if self.dims == 1 else tuple(counts)

    def analysis(self, x: Tensor) -> Tensor:
        """W x: (batch, M, D) to codes (batch, K, n), or (batch, M, H, W) to (batch, K, n1, n2)."""
        axes = ("D",) if self.dims == 1 else ("H", "W")
        check.array("x", x, ("batch", self.M, *axes), like=("weight", self.weight))
        self.code_size(x.shape[2] if self.dims == 1 else tuple(x.shape[2:]))
        return self._analysis(x)

    def synthesis(self, z: Tensor, size: Size) -> Tensor:
        """W^T z: codes (batch, K, n) or (batch, K, n1, n2) back to signals of size D or (H, W)."""
        n = self.code_size(size)
        shape = ("batch", *_shape(self.K, n))
        check.array("z", z, shape, like=("weight", self.weight))
        return self._synthesis(z)

    # The two convolutions without checks, for loops whose arguments were checked once.

    def _analysis(self, x: Tensor) -> Tensor:
        if self.dims == 1:
            return F.conv1d(x, self.weight, stride=self.stride, padding=self.padding)
        if x.dtype == torch.float32 and not x.is_cuda:
            # Pooling is much faster in this layout on the CPU, and the code inherits it from x.
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)

    def _synthesis(self, z: Tensor) -> Tensor:
        # n is an integer, so (n - 1) stride + l - 2 padding is the size of x again.
        convolve = F.conv_transpose1d if self.dims == 1 else F.conv_transpose2d
        return convolve(z, self.weight, stride=self.stride, padding=self.padding)

    def matrix(self, size: Size) -> Tensor:
        """W itself, dense, (K n) x (M D): column (m, d) is the analysis of a unit impulse there."""
        self.code_size(size)
        shape = _shape(self.M, check.extent("size", size, self.dims))
        impulses = torch.eye(math.prod(shape), dtype=self.weight.dtype, device=self.weight.device)
        return self._analysis(impulses.view(-1, *shape)).flatten(1).T.contiguous()

    def gram(self) -> Tensor:
        """Inner products of the rows of W, (K, K, 2R+1) or (K, K, 2R+1, 2R+1), R = (l-1) // stride.

        gram()[i, j, R + s] = <row (i, p), row (j, p + s)>; further shifts do not overlap. These are
        all entries of W W^T, which is block-Toeplitz, as long as padding crops no row.
        """
        reach = (self.l - 1) // self.stride * self.stride
        convolve = F.conv1d if self.dims == 1 else F.conv2d
        # Output i, position R + s: sum of w_i[. + s stride] w_j[.].
        return convolve(self.weight, self.weight, stride=self.stride, padding=reach)

    def _exact_gram(self) -> Tensor:
        """`gram` in float64, without a gradient; computed once for these values of the filters."""
        kept = self.__dict__.get("_kept_gram")
        if kept is None or not torch.equal(kept[0], self.weight):
            # The copy tells when the filters were changed in place, however that was done.
            copy = self.weight.detach().clone()
            kept = (copy, FilterBank(copy.double(), self.stride, self.padding).gram())
            self.__dict__["_kept_gram"] = kept
        return kept[1]

    def norm(self, size: Size) -> float:
        """The spectral norm of W at this size: never below the truth, at most 1 % above.

        Small matrices: exact, from the smaller Gram matrix. Else the Lanczos process from a fixed
        random start: its largest Ritz value theta satisfies theta >= 0.9805 ``||W||^2`` except
        with probability 1e-8 over the start (Kuczynski and Wozniakowski 1992, in exact
        arithmetic), and sqrt(theta / (1 - 0.0195)) is returned, or the Fourier bound (the largest
        transfer matrix of the circulant that contains W) where that is smaller. In float64.
        """
        n = _shape(self.K, self.code_size(size))
        shape = _shape(self.M, check.extent("size", size, self.dims))
        bank = FilterBank(self.weight.detach().double(), self.stride, self.padding)
        rows, columns = math.prod(n), math.prod(shape)
        if min(rows, columns) <= EXACT_SIDE and rows * columns <= EXACT_ENTRIES:
            W = bank.matrix(size)
            square = W @ W.T if rows < columns else W.T @ W
            value = float(torch.linalg.eigvalsh(square)[-1])
            return math.sqrt(max(value, 0.0)) * (1 + 1e-12)  # rounding must not take it below
        bound = bank._fourier_bound(shape[1:])
        # The Ritz value belongs to the smaller of W^T W and W W^T, which share their spectrum.
        first, second, start = bank._analysis, bank._synthesis, shape
        if rows < columns:
            first, second, start = bank._synthesis, bank._analysis, n
        draw = torch.randn(1, *start, generator=torch.Generator().manual_seed(0)).double()
        steps = steps_needed(min(rows, columns), GAP, FAILURE)
        theta = largest_ritz_value(
            lambda v: second(first(v)), draw.to(bank.weight.device), steps,
            enough=(1 - GAP) * bound**2,
        )
        return min(math.sqrt(theta / (1 - GAP)), bound)

    def _fourier_bound(self, size: tuple[int, ...]) -> float:
        # W is a part of the circulant of period D + 2 padding: no shifted filter wraps around.
        # That circulant's norm is the largest of its K x M transfer matrices; a stride drops rows.
        period = [side + 2 * self.padding for side in size]
        frequencies = math.prod(period[:-1]) * (period[-1] // 2 + 1)
        if frequencies * min(self.K, self.M) ** 2 * max(self.K, self.M) > FOURIER_OPERATIONS:
            return math.inf
        axes = tuple(range(2, 2 + self.dims))
        transfer = torch.fft.rfftn(self.weight, s=period, dim=axes).flatten(2).permute(2, 0, 1)
        adjoint = transfer.mH
        square = transfer @ adjoint if self.K < self.M else adjoint @ transfer
        value = float(torch.linalg.eigvalsh(square)[:, -1].max())
        return math.sqrt(max(value, 0.0)) * (1 + 1e-12)


def _shape(channels: int, size: Size) -> tuple[int, ...]:
    return (channels, size) if isinstance(size, int) else (channels, *size)


def adjoint_test(
    operator: Any, size: Size, *, generator: torch.Generator, trials: int = 3
) -> float:
    """The worst ``|<W x, z> - <x, W^T z>| / (||W x|| ||z||)`` over random x and z.

    `operator` is anything with analysis, synthesis, M, K and code_size; x and z take the dtype and
    device of its weight, or float64 on the CPU if it has none. A correct pair stays near the
    rounding unit: below 1e-12 in float64, 1e-4 in float32.
    """
    check.generator("generator", generator)
    check.integer("trials", trials, 1)
    n = operator.code_size(size)
    if not isinstance(n, int) and isinstance(size, int):
        size = (size, size)
    like = getattr(operator, "weight", torch.empty(0, dtype=torch.float64))
    draws = (
        torch.randn(trials, *shape, generator=generator, dtype=torch.float64).to(like)
        for shape in (_shape(operator.M, size), _shape(operator.K, n))
    )
    x, z = draws
    forward, back = operator.analysis(x).double(), operator.synthesis(z, size).double()
    x, z = x.double(), z.double()
    gap = ((forward * z).flatten(1).sum(1) - (x * back).flatten(1).sum(1)).abs()
    scale = forward.flatten(1).norm(dim=1) * z.flatten(1).norm(dim=1)
    # A gap that is NaN must not pass for none.
    return float(torch.where(gap == 0, 0.0, gap / scale).max())
