"""What the encoder's kernel becomes on sm_90, compiled with no GPU at hand."""

from __future__ import annotations

import pytest

from invertnb.kernels.encoder import FILTERS, FILTERS_IEEE, WINDOWS, _kernel, _split
from invertnb.kernels.launch import INTERPRET, triton
from invertnb.kernels.machine_code import SHARED_LIMIT, machine_code

pytestmark = pytest.mark.skipif(triton is None or INTERPRET, reason="the interpreter compiles nothing")
# Entries of a filter: 3 x 3, 5 x 5 and 7 x 7 over three channels (section 4.1), and the most.
ENTRIES = [27, 75, 147, 160]


def compiled(kind, entries, precision="tf32", window=2, K="i32:16", ones=()):
    head, tail = _split(entries)
    ieee = kind == "fp32" and precision == "ieee"
    signature = dict.fromkeys(("patches", "filters", "out"), f"*{kind}")
    signature |= {"scale": "*fp32", "bias": "*fp32", "windows": "i32", "K": K, "blocks": "i32"}
    constants = {"PLACES": window**2, "HEAD": head, "TAIL": tail, "WINDOWS": WINDOWS,
                 "FILTERS": FILTERS_IEEE if ieee else FILTERS, "RELU": True, "PRECISION": precision,
                 "WIDEN": False, **dict.fromkeys(ones, 1)}  # fmt: skip
    code = machine_code(_kernel, signature, constants, warps=8 if ieee else 4, stages=2)
    assert code.spills == 0 and code.shared <= SHARED_LIMIT
    return code


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_tensor_cores_and_wide_access(kind, entries):
    code = compiled(kind, entries)
    assert code.matrix >= 8 and code.instructions <= 2000
    # Patches and filters by 128 bits; what is narrower is the scale and the bias, once each.
    assert max(code.loads) == 128 and sum(n for width, n in code.loads.items() if width < 128) <= 2
    assert set(code.stores) == {128}


@pytest.mark.parametrize("kind, shared", [("bf16", 40), ("fp32", 80)])
def test_layer_1_of_table_5_leaves_room_for_two_programs(kind, shared):
    code = compiled(kind, 75)
    assert code.shared <= shared * 1024 and 2 * 128 * code.registers <= 2**16


@pytest.mark.parametrize("entries", ENTRIES)
def test_float32_without_tf32_stays_off_the_tensor_cores(entries):
    code = compiled("fp32", entries, "ieee")
    assert code.matrix == 0 and code.registers <= 128 and set(code.stores) == {128}


@pytest.mark.parametrize("window", [1, 3])
def test_other_windows_and_odd_numbers_of_filters(window):
    compiled("bf16", 75, window=window, K="i32")
    compiled("fp32", 75, window=window, K="i32", ones=("windows", "blocks"))
