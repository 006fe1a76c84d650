"""Bytes and operations, counted from formulas: what each way has to move, what each task asks for.

Bytes are those that pass between the chip and its memory, for one entry of a code. A pass reads
its inputs once and writes its results once; nothing is kept in a cache from one pass to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Entries of a pooling window 2 x 2, and bytes of the index that torch's max_pool2d returns.
WINDOW, INDEX, SWITCH = 4, 8, 1


class Pass(NamedTuple):
    """One operation over a code, and the bytes it moves for an entry: read, written."""

    name: str
    read: float
    written: float

    @property
    def bytes(self) -> float:
        """Both together."""
        return self.read + self.written


Way = tuple[Pass, ...]


def total(way: Way) -> float:
    """Bytes an entry of all passes of a way."""
    return sum(step.bytes for step in way)


def ways(itemsize: int) -> dict[str, dict[str, Way]]:
    """By task and by the benchmark's name of each way: the passes it makes over the code.

    `itemsize` is the size of an entry in bytes. The literal way comes first.
    """
    s, w = itemsize, WINDOW
    size = Pass("abs", s, s)
    pool = Pass("max_pool2d, int64 index", s, (s + INDEX) / w)
    signed = Pass("gather the signed value", INDEX / w + s, s / w)
    # Zeros first; then values and indices are read and single entries written, whole lines of memory.
    fill = Pass("fill with zeros", 0, s)
    scatter = Pass("scatter", (s + INDEX) / w, s)
    amax = (
        size, Pass("amax", s, s / w), Pass("compare", s + s / w, 1), Pass("where", 1 + s, s),
    )  # fmt: skip
    first = Pass("abs, pool and gather in one", s, (s + INDEX) / w)
    switches = Pass("values and switches", s, (s + SWITCH) / w)
    back = Pass("values and switches to a code", (s + SWITCH) / w, s)
    whole = Pass("all in one", s, s)
    return {
        "keep": {
            "eager": (size, pool, signed, fill, scatter),
            "eager, amax": amax,
            "compiled": (first, fill, scatter),
            "compiled, amax": (whole,),
            "ours": (whole,),
        },
        "pool_switch": {"eager": (size, pool, signed), "compiled": (first,), "ours": (switches,)},
        "unpool": {"eager": (fill, scatter), "compiled": (fill, scatter), "ours": (back,)},
    }


def predicted(task: str, way: str, itemsize: int) -> float:
    """How many times faster than the literal way, if bytes were all that counts."""
    known = ways(itemsize)[task]
    return total(next(iter(known.values()))) / total(known[way])


# Operations of one entry, or of one sample. Comparisons and selections count as one each, a product
# with its addition as two; addresses and loops are not counted.


def window_operations(task: str, window: int = WINDOW) -> float:
    """For an entry of a code: the integer operations that pooling and unpooling ask for."""
    # A key by a mask for each entry; a comparison and three selections (key, value, place) for each
    # but the first. To write: a comparison of the place and a selection for each entry.
    find, write = window + 4 * (window - 1), 2 * window
    return {"pool_switch": find, "unpool": write, "keep": find + write}[task] / window


#: A soft threshold takes a product and a sum, a magnitude, a difference, a maximum, a sign; the
#: momentum a difference, a product, a sum.
PROX_OPERATIONS = 9
#: Instructions of a round of Philox in 32-bit pieces: two products of 64 bits (4 multiplications
#: and 8 additions with carry each), four 64-bit xors, two 64-bit key additions, 4 moves.
PHILOX_ROUND, PHILOX_ROUNDS = 2 * 12 + 8 + 4 + 4, 10
#: Instructions for one look-up of a product of two atoms: two divisions by a constant, a shift, its
#: range, an address, the product; and for one comparison of slots.
LOOKUP, COMPARISON = 35, 8


def draw_operations(k: int) -> float:
    """For a support of k atoms and their values: random bits, and the comparisons of slots."""
    return -(-k // 2) * PHILOX_ROUNDS * PHILOX_ROUND + k * (k - 1) / 2 * COMPARISON + 30 * k


def lookups(k: int) -> int:
    """Products of atoms that `atom_norms` reads: all pairs for G z, half of them for the error."""
    return k * k + k * (k + 1) // 2


def dense_operations(K: int, n: int, M: int, D: int) -> float:
    """For W^T z with W as a matrix and a code with its zeros."""
    return 2.0 * (K * n) * (M * D)


def table_bytes(K: int, reach: int, itemsize: int = 4, dims: int = 1) -> int:
    """Of the table of correlations, K x K x (2 reach + 1) in one dimension."""
    return K * K * (2 * reach + 1) ** dims * itemsize


@dataclass(frozen=True)
class Layer:
    """A two-dimensional layer: filters, channels, sides of a filter, of a response, of the image."""

    name: str
    K: int
    M: int
    l: int
    side: int
    image: int

    @property
    def operations(self) -> float:
        """Of the convolution, for one image."""
        return 2.0 * self.K * self.M * self.l**2 * self.side**2

    def bytes(self, itemsize: int, pooled: bool = False) -> float:
        """The least that is moved for an image: it is read, and its responses written, or a quarter."""
        outgoing = self.K * self.side**2 / (WINDOW if pooled else 1)
        return (self.M * self.image**2 + outgoing) * itemsize


#: The layers of VGG-16 that the paper inverts from, and layer 1 of its Table 5 on 32 x 32 pixels.
VGG = (
    Layer("conv(2,1)", 128, 64, 3, 112, 112),
    Layer("conv(3,1)", 256, 128, 3, 56, 56),
    Layer("conv(4,1)", 512, 256, 3, 28, 28),
    Layer("conv(5,1)", 512, 512, 3, 14, 14),
)
RANDOM_FILTERS = Layer("random", 2048, 3, 5, 28, 32)
#: Coherence of conv(5,1): all products of its filters, at all 25 shifts.
COHERENCE = (512, 512, 3)


@dataclass(frozen=True)
class Operation:
    """A hot operation of the book, for one item: an entry, a sample or an image.

    Attributes:
        unit: what carries it out, "instructions", "TF32" or "bfloat16" (tensor cores).
        row: kernel and way in the recorded benchmark, if it times this very operation.
    """

    name: str
    item: str
    bytes: float
    operations: float
    unit: str
    row: tuple[str, str] | None = None
    dtype: str = "float32"

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.operations / self.bytes


def operations(k: int, K: int, M: int, l: int, D: int) -> list[Operation]:
    """The hot operations of the book; sizes are those of the model-RIP experiment."""

    def pooling(name: str, task: str) -> Operation:
        least = total(ways(4)[task]["ours"])
        return Operation(name, "entry", least, window_operations(task), "instructions", (task, "ours"))

    n, deep = D - l + 1, VGG[1]
    Kc, Mc, lc = COHERENCE
    filters = Kc * Mc * lc**2 * 4
    return [
        pooling("unpool", "unpool"),
        # y, gradient and z are read, z' and y' written.
        Operation("prox step of FISTA", "entry", 5 * 4, PROX_OPERATIONS, "instructions",
                  ("fista_step", "fista_step")),
        pooling("pool with switches", "pool_switch"),
        pooling("M_known in one pass", "keep"),
        # An index of 8 bytes and a value of 4 for each atom; three ratios.
        Operation("draw of a code", "sample", 12 * k, draw_operations(k), "instructions"),
        Operation("ratios from the table", "sample", 12 * (k + 1), LOOKUP * lookups(k), "instructions"),
        Operation("random filters, pooled", "image", RANDOM_FILTERS.bytes(4, pooled=True),
                  RANDOM_FILTERS.operations, "TF32", ("encode", "encode")),
        # The code in, the signal out; W itself stays on the chip.
        Operation("dense product W^T z", "sample", 4.0 * (K * n + M * D), dense_operations(K, n, M, D), "TF32"),
        Operation(f"convolution, {deep.name}", "image", deep.bytes(2), deep.operations, "bfloat16"),
        Operation("coherence by conv2d(w, w)", "bank", 2.0 * filters + 4 * Kc * Kc * (2 * lc - 1) ** 2,
                  2.0 * Kc * Kc * Mc * lc**4, "TF32", ("coherence", "ours, conv2d(w, w)")),
    ]  # fmt: skip
