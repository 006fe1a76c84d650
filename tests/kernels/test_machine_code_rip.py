"""What the kernels of model-RIP sampling become on sm_90, compiled with no GPU at hand."""

from __future__ import annotations

import time

import pytest

from invertnb.kernels.atom_norms import _atom_norms_kernel
from invertnb.kernels.draw_atoms import _draw_atoms_kernel
from invertnb.kernels.launch import INTERPRET, triton
from invertnb.kernels.machine_code import SHARED_LIMIT, machine_code

pytestmark = pytest.mark.skipif(triton is None or INTERPRET, reason="the interpreter compiles nothing")


def compiled(kernel, signature, constants):
    start = time.perf_counter()
    code = machine_code(kernel, signature, {**constants, "BLOCK": 128})
    assert time.perf_counter() - start < 30  # straight-line code for k = 10 took 12 s and more
    assert code.spills == 0 and code.shared <= SHARED_LIMIT
    return code


# A plain 1 among the arguments becomes a constant of the code: `ones` names them.


@pytest.mark.parametrize("per_block, gaussian, ones, kind", [
    (1, False, (), "fp32"), (1, True, (), "fp64"), (3, True, (), "fp32"),
    (1, False, ("samples", "first", "entries", "slots", "length"), "fp32")])  # fmt: skip
def test_draw_atoms(per_block, gaussian, ones, kind):
    signature = {"key": "*i64", "blocks": "*i64", "index": "*i64", "code": f"*{kind}",
                 "samples": "i64", "first": "i64", "entries": "i32", "slots": "i32", "length": "i32"}
    constants = {"PER_BLOCK": per_block, "GAUSSIAN": gaussian, **dict.fromkeys(ones, 1)}
    code = compiled(_draw_atoms_kernel, signature, constants)
    assert code.registers <= 64 and code.instructions <= 2500 and code.shared == 0


@pytest.mark.parametrize("geometry, ones, kind", [
    ((1, 28, 0, 4), (), "fp32"), ((28, 28, 4, 4), (), "fp32"), ((1, 28, 0, 4), (), "fp64"),
    ((1, 28, 0, 4), ("index_atom", "code_atom"), "fp32"),
    ((1, 1, 0, 0), ("samples", "k", "index_sample", "index_atom", "code_sample", "code_atom",
                    "filters"), "fp32")])  # fmt: skip
def test_atom_norms(geometry, ones, kind):
    signature = {name: f"*{kind}" for name in ("table", "code", "gap", "out")} | {"index": "*i64"}
    integers = ("index_sample", "index_atom", "code_sample", "code_atom", "k", "filters")
    signature |= dict.fromkeys(integers, "i32") | {"samples": "i64"}
    constants = dict(zip(("ROWS", "COLUMNS", "UP", "ACROSS"), geometry, strict=True))
    code = compiled(_atom_norms_kernel, signature, constants | dict.fromkeys(ones, 1))
    assert code.registers <= 48 and code.instructions <= 2000 and code.shared == 0
