"""Products with a few rows of W, the working set of a solver: a sparse code costs what it has.

Row (i, p) of W is filter i at place p. With codes laid out places first, (batch, n1, n2, K), the
chosen rows form a sparse matrix over places and filters. W^T u then sums table rows into signals
(`embedding_bag`), and (W r) on the chosen rows is a product of patches and filters sampled at the
matrix's pattern (`torch.sparse.sampled_addmm`). At 1 to 3 % of the rows, each takes 2 to 10 % of
the time of the convolution (256 x 256 filters, 2 CPU cores).
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout:
    """Signals (batch, H + 2p, W + 2p, M) with their zero padding, codes as flat (batch, n1 n2 K).

    Args:
        weight: filters (K, M, l) or (K, M, l, l); signals in 1-D are images of height 1.
        stride, padding: of the convolution.
        x: signals (batch, M, D) or (batch, M, H, W).
    """

    def __init__(self, weight: Tensor, stride: int, padding: int, x: Tensor) -> None:
        if weight.dim() == 3:
            weight, x, self.pad = weight.unsqueeze(2), x.unsqueeze(2), (0, padding)
        else:
            self.pad = (padding, padding)
        self.stride = stride
        self.K, self.M, self.rows, self.columns = weight.shape
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        # (K, rows * columns * M), the order of a patch of the signal: the same memory.
        self.flat = self.weight.permute(0, 2, 3, 1).reshape(self.K, -1)
        self.side = tuple(x.shape[2:])
        self.padded = tuple(side + 2 * p for side, p in zip(self.side, self.pad, strict=True))
        self.n = tuple(
            (side - l) // stride + 1
            for side, l in zip(self.padded, (self.rows, self.columns), strict=True)
        )
        self.device = x.device
        # Signals gather per image row first: a bag takes `columns * M` numbers for one start column,
        # and the columns of a signal are diagonal sums over bags. Start columns run from
        # 1 - columns, so that every diagonal exists.
        self.bag_columns = self.padded[1] + self.columns - 1
        self.steps = self._range(self.rows)
        self.set_signals(x)

    def set_signals(self, x: Tensor) -> None:
        """Take other signals of the same size: (batch, M, H, W), or (batch, M, D)."""
        x = x.unsqueeze(2) if x.dim() == 3 else x
        (p, q), (n1, n2) = self.pad, self.n
        self.batch = len(x)
        self.x = F.pad(x.permute(0, 2, 3, 1), (0, 0, q, q, p, p)).contiguous()
        row = self._range(self.batch).view(-1, 1, 1) * self.padded[0]
        row = row + self._range(n1).view(-1, 1) * self.stride
        column = self._range(n2) * self.stride + self.columns - 1
        self.first_bag = (row * self.bag_columns + column).flatten()
        self.bags = self._range(self.batch * self.padded[0] * self.bag_columns)
        self.places = self._range(self.batch * n1 * n2 + 1)
        # Written over at every product: fresh memory of this size costs more than the copy.
        shape = (self.batch, n1, n2, self.rows, self.columns * self.M)
        self.patches = torch.empty(shape, dtype=x.dtype, device=x.device)

    def _range(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device)

    def analysis(self, r: Tensor) -> Tensor:
        """All of W r, (batch, n1 n2 K)."""
        g = F.conv2d(r.permute(0, 3, 1, 2), self.weight, stride=self.stride)
        return self.flatten(g)

    def flatten(self, code: Tensor) -> Tensor:
        """(batch, K, n1, n2) or (batch, K, n) to (batch, n1 n2 K)."""
        return code.flatten(2).transpose(1, 2).reshape(len(code), -1)

    def inside(self, r: Tensor) -> Tensor:
        """The signals without their padding, a view (batch, H, W, M)."""
        (p, q), (height, width) = self.pad, self.side
        return r[:, p : p + height, q : q + width]


class ActiveRows:
    """Some rows of W, and the two products with them.

    Args:
        layout: the shapes.
        index: int64 (s,), ascending positions in the flattened codes (batch * n1 n2 K).
    """

    def __init__(self, layout: Layout, index: Tensor) -> None:
        self.layout = layout
        place = torch.div(index, layout.K, rounding_mode="floor")
        filters = index - place * layout.K
        n1, n2 = layout.n
        self.sample = torch.div(place, n1 * n2, rounding_mode="floor")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            self.pattern = torch.sparse_csr_tensor(
                torch.searchsorted(place, layout.places), filters, layout.flat.new_zeros(len(index)),
                (len(layout.places) - 1, layout.K), check_invariants=False,
            )
        # One entry for every row of every filter, sorted by the bag it goes to.
        bag = layout.first_bag.index_select(0, place).unsqueeze(1) + layout.steps * layout.bag_columns
        bag, order = bag.flatten().sort()
        self.offsets = torch.searchsorted(bag, layout.bags)
        table_row = filters.unsqueeze(1) * layout.rows + layout.steps
        self.table_row = table_row.flatten().index_select(0, order)
        self.entry = torch.div(order, layout.rows, rounding_mode="floor")

    def synthesis(self, u: Tensor) -> Tensor:
        """W^T u, (batch, H, W, M), for one value a row."""
        lay = self.layout
        length = lay.columns * lay.M
        bags = F.embedding_bag(
            self.table_row, lay.flat.view(-1, length), self.offsets, mode="sum",
            per_sample_weights=u.index_select(0, self.entry),
        )
        # Column c takes part j of the bag that starts at c - j, for every j: with j counted down,
        # parts of one sum are `length - M` apart.
        (p, q), (height, width) = lay.pad, lay.side
        line = lay.bag_columns * length
        parts = bags.as_strided(
            (lay.batch, height, width, lay.columns, lay.M),
            (lay.padded[0] * line, line, length, length - lay.M, 1),
            p * line + q * length + length - lay.M,
        )
        return parts.sum(3)

    def analysis(self, r: Tensor) -> Tensor:
        """W r on the rows, (s,), of a padded signal."""
        lay = self.layout
        line = lay.padded[1] * lay.M
        lay.patches.copy_(r.as_strided(
            lay.patches.shape,
            (lay.padded[0] * line, lay.stride * line, lay.stride * lay.M, line, 1),
        ))  # fmt: skip
        patches = lay.patches.view(-1, lay.flat.shape[1])
        return torch.sparse.sampled_addmm(self.pattern, patches, lay.flat.T, beta=0.0).values()

    # Per sample: sums and maxima over its rows, and back from samples to rows.

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """The inner products of u and v, (batch,)."""
        if self.layout.batch == 1:
            return torch.dot(u, v).view(1)
        return u.new_zeros(self.layout.batch).index_add_(0, self.sample, u * v)

    def largest(self, u: Tensor) -> Tensor:
        """The largest magnitudes, (batch,)."""
        if self.layout.batch == 1 and len(u):
            return torch.linalg.vector_norm(u, torch.inf).view(1)
        zeros = u.new_zeros(self.layout.batch)
        return zeros.scatter_reduce(0, self.sample, u.abs(), "amax")

    def spread(self, per_sample: Tensor) -> Tensor:
        """A value of each sample for each of its rows; one sample's value is left to broadcast."""
        return per_sample if self.layout.batch == 1 else per_sample.index_select(0, self.sample)
