"""The kernels' own text, with a commentary that is checked against it, and what they compiled to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from invertnb.chapters.kernels.counts import WINDOW, total, ways
from invertnb.chapters.kernels.recorded import Compiled, missing
from invertnb.chapters.kernels.roofline import Ceilings
from invertnb.chapters.kernels.text import columns, two
from invertnb.kernels import atom_norms, draw_atoms, keep, pool_switch, pooling, unpool


class Source:
    """The text of functions as it stands in the package now; shows itself as Python."""

    def __init__(self, *functions: Any) -> None:
        self.text = "\n\n".join(text_of(function) for function in functions)

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"


def text_of(function: Any) -> str:
    """Source of a plain function or of the one inside a Triton kernel, without decorator."""
    plain: Callable = getattr(function, "fn", function)
    lines = inspect.getsource(plain).rstrip().split("\n")
    while lines[0].startswith("@"):
        del lines[0]
    return "\n".join(lines)


class Commentary:
    """A table of code and what it is for; every piece of code must stand in the source.

    Raises:
        ValueError: a piece that does not.
    """

    def __init__(self, source: Source, rows: Sequence[tuple[str, str]]) -> None:
        text = " ".join(source.text.split())
        for code, _ in rows:
            for piece in code.split(" … "):
                if piece not in text:
                    raise ValueError(f"the commentary is stale: {piece!r} is not in the source")
        self.rows = tuple(rows)

    def __repr__(self) -> str:
        return "\n".join(f"{code}\n    {words}" for code, words in self.rows)

    def _repr_html_(self) -> str:
        # Markdown in an output has no tables in the built page.
        rows = "".join(
            f'<tr><th scope="row"><code>{escape(code)}</code></th><td>{_marked(words)}</td></tr>'
            for code, words in self.rows
        )
        head = '<th scope="col">code</th><th scope="col">what it does</th>'
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="ledger-records">{table}</div>'


def _marked(words: str) -> str:
    """Words with `code` in backticks as HTML."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(words))


#: The kernel behind M_known and the search that it calls, in the order of their lines.
KEEP = (
    ("first, lane = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)",
     "A program takes `BLOCK` windows from `first` on. All its lines act on vectors of `BLOCK` lanes. "
     "The number of the window is an int64: a batch of codes can pass 2³¹ entries."),
    ("value, place, base, offset, whole = first_largest(",
     "The search, which `pool_switch` has too; its own lines follow below. It also returns where the "
     "windows lie."),
    ("if HAS_LEVEL:",
     "Block-sparsify in the same pass, where a threshold was given; else these lines are not compiled."),
    ("if PAIRED: … else:",
     "Decided when the kernel is compiled, not when it runs: `tl.constexpr` arguments make one kernel for "
     "each geometry. `PAIRED` is the common case: windows of two columns in contiguous rows, none cut off."),
    ("left = tl.where(place == 2 * a, value, 0.0)",
     "Back to an entry: the value where its place is, zero elsewhere."),
    ("row = tl.reshape(tl.join(left, right), (2 * BLOCK,))",
     "The inverse of the split below, so that the row is stored in whole words."),
    ("tl.store(code + base + (offset + a * WIDTH), row, mask=whole)",
     "Every entry of the code is written once. Nothing has to be filled with zeros before."),
    ("base, offset = pair_place(first, BLOCK, WIDTH, P)",
     "Where the entries lie. Window w of pooled row r starts at 2w + r·(P-1)·`WIDTH`, so one division is "
     "enough, and neighbors in the vector are neighbors in memory."),
    ("row = tl.load(z + base + (offset + a * WIDTH), mask=live, other=0.0)",
     "The search takes one row of the windows at a time, in whole words of 16 bytes a thread; `mask` stops at the last window."),
    ("left, right = tl.split(tl.reshape(row, (BLOCK, 2)))",
     "Even and odd columns: the two entries of each window. No instruction moves data between threads, "
     "for a thread holds both."),
    ("key = float_key(entry, SIGNED)",
     "The bits of a float, without its sign, as an integer: it sorts like the magnitude, NaN at the top."),
    ("larger = key > best",
     "Strictly larger: of equals the first stays, as in `argmax` of the definition."),
    ("value = tl.where(larger, entry, value)",
     "A selection and no branch: all lanes do the same, whatever their data."),
    ("place = tl.where(larger, a * Q + b, place)", "The switch, row-major in its window."),
)  # fmt: skip

KERNELS = {
    "pool_switch": pool_switch._kernel, "unpool": unpool._kernel, "keep": keep._kernel,
    "first_largest": pool_switch.first_largest, "float_key": pooling.float_key, "atom_norms": atom_norms._atom_norms_kernel,
    "draw_atoms": draw_atoms._draw_atoms_kernel,
}  # fmt: skip


def source(*names: str) -> Source:
    """Sources of kernels and of what they call, one after the other: the keys of `KERNELS`."""
    return Source(*(KERNELS[name] for name in names))


def specifications() -> str:
    """The one line with which each windowed kernel says what it computes."""
    lines = []
    for name in ("pool_switch", "unpool", "keep"):
        for line in text_of(KERNELS[name]).split("\n"):
            _, found, words = line.partition('"""Specification: ')
            if found:
                lines.append((name, words.rstrip('"')))
    return "\n".join(f"{name}\n    {words}" for name, words in lines)


def machine_code(compiled: Sequence[Compiled], ceilings: Ceilings) -> str:
    """What each kernel became, and for windowed ones the time of a window by memory and by issue."""
    if not compiled:
        return missing("machine code")
    rows = [("", "registers", "spills", "shared B", "matrix", "loads", "stores")]
    timed = [("ps a window, derived", "instructions", "by memory", "by issue", "limit")]
    for name in dict.fromkeys(c.kernel for c in compiled):
        rows.append((name,))
        same = [c for c in compiled if c.kernel == name]
        rows += [
            (_label(c), str(c.registers), str(c.spills), str(c.shared), str(c.matrix), c.loads or "-",
             c.stores or "-") for c in same
        ]  # fmt: skip
        windowed = [c for c in same if c.per_window is not None and name in ways(4)]
        timed += [(name,)] * bool(windowed) + [_window(c, ceilings) for c in windowed]
    text = f"compiled for sm_90 by Triton {compiled[0].triton}\n{columns(rows)}"
    return text if len(timed) == 1 else f"{text}\n\n{columns(timed)}"


def _window(c: Compiled, ceilings: Ceilings) -> tuple[str, ...]:
    itemsize = 2 if c.dtype in ("bf16", "bfloat16", "fp16", "float16") else 4
    memory = WINDOW * total(ways(itemsize)[c.kernel]["ours"]) / ceilings.copy
    issue = c.per_window / ceilings.rates["instructions"]
    limit = "memory" if memory > issue else "instructions"
    return (_label(c), two(c.per_window), two(1e12 * memory), two(1e12 * issue), limit)


def _label(c: Compiled) -> str:
    return "  " + ", ".join(part for part in (c.dtype, c.layout) if part)
