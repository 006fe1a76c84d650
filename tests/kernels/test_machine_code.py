"""What the pooling kernels become for sm_90, compiled without a GPU."""

from __future__ import annotations

import pytest
import torch

from invertnb.kernels import keep, pool_switch, unpool
from invertnb.kernels.launch import INTERPRET, jit, tl, triton
from invertnb.kernels.pooling import geometry, windows_of
from invertnb.kernels.machine_code import SHARED_LIMIT, counts, machine_code

pytestmark = [
    pytest.mark.skipif(triton is None, reason="there is no Triton for this system"),
    pytest.mark.skipif(INTERPRET, reason="the interpreter compiles nothing"),
]
WIDTH_OF = {"fp32": 256, "bf16": 512, "fp16": 512}


def compiled(kernel, dtype, last, paired=False, **flags):
    extents = {"HEIGHT": 224, "WIDTH": 224, "INNER": 64 if last else 1, "ROWS": 112, "COLUMNS": 112,
               "P": 2, "Q": 2}  # fmt: skip
    flags = {**extents, "PAIRED": paired, "SIGNED": False, "BLOCK": WIDTH_OF[dtype] * (1 if paired else 2), **flags}
    signature = {name: f"*{dtype}" for name in ("z", "values", "code", "level")}
    signature |= {"switches": "*u8", "last_equal": "*i64", "windows": "i32:16", "per_sample": "i32:16"}
    return machine_code(kernel, signature, {k: v for k, v in flags.items() if k in kernel.arg_names})


@pytest.mark.parametrize("dtype", WIDTH_OF)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["pool", "keep", "unpool"])
def test_whole_windows_move_in_words_of_128_bits(name, last, dtype):
    kernel = {"pool": pool_switch._kernel, "keep": keep._kernel, "unpool": unpool._kernel}[name]
    code = compiled(kernel, dtype, last, paired=not last, HAS_LEVEL=False)
    assert code.spills == 0 and code.registers <= 64
    if name != "unpool":
        assert set(code.loads) == {128}
    if name != "pool":
        assert set(code.stores) == {128}
    # The lanes keep their windows: nothing is passed through shared memory.
    assert code.shared == 0


@pytest.mark.parametrize("dtype", WIDTH_OF)
@pytest.mark.parametrize("last, paired", [(False, True), (False, False), (True, False)])
def test_the_threshold_costs_no_wide_access(dtype, last, paired):
    for kernel in (keep._kernel, unpool._kernel):
        code = compiled(kernel, dtype, last, paired, HAS_LEVEL=True)
        assert code.spills == 0 and code.shared <= SHARED_LIMIT and code.registers <= 128
        if last or paired:
            assert set(code.stores) == {128}


@pytest.mark.parametrize("size, block", [((224, 224), (4, 4)), ((222, 220), (3, 5)), ((1, 221), (1, 13))])
@pytest.mark.parametrize("signed", [False, True])
def test_larger_windows_do_not_run_out_of_registers(signed, size, block):
    code = machine_code(
        keep._kernel,
        {"z": "*bf16", "code": "*bf16", "level": "*bf16", "last_equal": "*i64", "windows": "i32",
         "per_sample": "i32"},
        {"HEIGHT": size[0], "WIDTH": size[1], "INNER": 1, "ROWS": size[0] // block[0],
         "COLUMNS": size[1] // block[1], "P": block[0], "Q": block[1], "PAIRED": False, "SIGNED": signed,
         "HAS_LEVEL": True, "BLOCK": windows_of(torch.empty(0, dtype=torch.bfloat16), geometry(
             (1, 1, *size), False, block))},
    )  # fmt: skip
    assert code.spills == 0


def test_large_windows_fit():
    extents = {"HEIGHT": 1, "WIDTH": 280, "INNER": 1, "ROWS": 1, "COLUMNS": 10, "P": 1, "Q": 28}
    pooled = machine_code(
        pool_switch._wide_kernel,
        {"z": "*fp32", "values": "*fp32", "switches": "*u8", "windows": "i32"},
        {**extents, "SIGNED": False, "SPAN": 32, "BLOCK": 128},
    )
    entries = machine_code(
        unpool._entry_kernel,
        {"values": "*fp32", "switches": "*u8", "code": "*fp32", "level": "*fp32", "last_equal": "*i64",
         "windows": "i32", "per_sample": "i32"},
        {**extents, "HAS_LEVEL": True, "BLOCK": 1024},
    )  # fmt: skip
    for code in (pooled, entries):
        assert code.spills == 0 and code.shared <= SHARED_LIMIT


def test_narrow_loads_and_shared_memory_are_seen():
    @jit
    def strided(x, y, BLOCK: tl.constexpr):
        lane = tl.arange(0, BLOCK)
        tl.store(y + lane, tl.load(x + 3 * lane) / tl.sum(tl.load(x + lane)))

    code = machine_code(strided, {"x": "*fp32", "y": "*fp32"}, {"BLOCK": 512})
    assert 32 in code.loads and 128 in code.loads and code.stores == {128: 1} and code.shared > 0


def test_spills_are_counted():
    usage = " Function k:\n  REG:255 STACK:16 SHARED:0 LOCAL:8 CONSTANT[0]:560\n"
    listing = "        /*0010*/                   LDG.E.64 R2, [R4.64] ;\n"
    code = counts(usage, listing, shared=7)
    assert code.spills == 24 and code.registers == 255 and code.shared == 7 and code.loads == {64: 1}


def test_no_machine_code_under_the_interpreter(monkeypatch):
    monkeypatch.setattr("invertnb.kernels.machine_code.INTERPRET", True)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        machine_code(pool_switch._kernel, {})
