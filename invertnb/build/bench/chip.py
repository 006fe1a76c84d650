"""What every kernel becomes on an H100 or H200 (sm_90), compiled without one: a row each."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from ...kernels import atom_norms, draw_atoms, encoder, fista_step, keep, pool_switch, unpool
from ...kernels.launch import triton
from ...kernels.machine_code import MachineCode, machine_code

FIELDS = (
    "date", "triton", "kernel", "dtype", "layout", "registers", "spills", "shared", "instructions",
    "per_window", "loads", "stores", "matrix",
)  # fmt: skip
# conv(1, 2) of VGG-16: 64 filters of 224 x 224, windows of 2 x 2.
EXTENTS = {"HEIGHT": 224, "WIDTH": 224, "INNER": 1, "ROWS": 112, "COLUMNS": 112, "P": 2, "Q": 2}
LAST = EXTENTS | {"INNER": 64}
BYTES = {"fp32": 4, "bf16": 2}


def rows() -> Iterator[dict[str, str]]:
    """Resources of each kernel at one realistic size.

    Raises:
        RuntimeError: no Triton on this system.
    """
    for dtype in BYTES:
        for layout in ("contiguous", "channels last"):
            yield from _windows(dtype, layout)
    for dtype in BYTES:
        head, tail = encoder._split(75)
        signature = dict.fromkeys(("patches", "filters", "out"), f"*{dtype}")
        signature |= {"scale": "*fp32", "bias": "*fp32", "windows": "i32", "K": "i32:16", "blocks": "i32"}
        constants = {"PLACES": 4, "HEAD": head, "TAIL": tail, "WINDOWS": encoder.WINDOWS,
                     "FILTERS": encoder.FILTERS, "RELU": True, "PRECISION": "tf32", "WIDEN": False}  # fmt: skip
        yield _row("encode", dtype, "3 x 5 x 5", machine_code(encoder._kernel, signature, constants, stages=2))
    for dtype in BYTES:
        signature = {name: f"*{dtype}" for name in ("y", "gradient", "z", "new", "point")}
        signature |= {name: "*fp32" for name in ("step", "threshold", "momentum")}
        signature |= {"support": "*u8", "per_sample": "i32:16", "blocks": "i32"}
        code = machine_code(fista_step._kernel, signature, {"HAS_SUPPORT": False, "BLOCK": fista_step.BLOCK})
        yield _row("fista_step", dtype, "", code)
    draws = {"key": "*i64", "blocks": "*i64", "index": "*i64", "code": "*fp32", "samples": "i64",
             "first": "i64", "entries": "i32", "slots": "i32", "length": "i32"}  # fmt: skip
    constants = {"PER_BLOCK": 1, "GAUSSIAN": False, "BLOCK": 128}
    yield _row("draw_atoms", "fp32", "", machine_code(draw_atoms._draw_atoms_kernel, draws, constants))
    norms = {name: "*fp32" for name in ("table", "code", "gap", "out")} | {"index": "*i64", "samples": "i64"}
    norms |= dict.fromkeys(("index_sample", "index_atom", "code_sample", "code_atom", "k", "filters"), "i32")
    constants = {"ROWS": 1, "COLUMNS": 28, "UP": 0, "ACROSS": 4, "BLOCK": 128}
    yield _row("atom_norms", "fp32", "", machine_code(atom_norms._atom_norms_kernel, norms, constants))


def _windows(dtype: str, layout: str) -> Iterator[dict[str, str]]:
    paired = layout == "contiguous"
    block = (1024 if paired else 2048) // BYTES[dtype]
    signature = {name: f"*{dtype}" for name in ("z", "values", "code", "level")}
    signature |= {"switches": "*u8", "last_equal": "*i64", "windows": "i32:16", "per_sample": "i32:16"}
    constants = (EXTENTS if paired else LAST) | {
        "PAIRED": paired, "SIGNED": False, "HAS_LEVEL": False, "BLOCK": block}  # fmt: skip
    for name, kernel in (("pool_switch", pool_switch._kernel), ("unpool", unpool._kernel), ("keep", keep._kernel)):
        given = {key: value for key, value in constants.items() if key in kernel.arg_names}
        code = machine_code(kernel, signature, given)
        yield _row(name, dtype, layout, code, windows=block / 128)


def _row(kernel: str, dtype: str, layout: str, code: MachineCode, windows: float = 0.0) -> dict[str, str]:
    def widths(counts: dict[int, int]) -> str:
        return " ".join(f"{count}x{width}" for width, count in counts.items())

    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "triton": triton.__version__,
        "kernel": kernel, "dtype": dtype, "layout": layout, "registers": str(code.registers),
        "spills": str(code.spills), "shared": str(code.shared), "instructions": str(code.instructions),
        "per_window": f"{code.instructions / windows:.0f}" if windows else "",
        "loads": widths(code.loads), "stores": widths(code.stores), "matrix": str(code.matrix),
    }  # fmt: skip
