"""What a Triton kernel becomes on a GPU that need not be there: registers, spills, widths of loads.

Triton compiles for sm_90 (H100, H200) anywhere, and its wheel carries NVIDIA's disassembler. The
interpreter checks results; only this shows whether a kernel fits the chip at all.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from invertnb.kernels.launch import INTERPRET, triton

SHARED_LIMIT = 227 * 1024  # bytes a program may have on sm_90; Triton does not refuse more offline


class MachineCode(NamedTuple):
    """Counts for one compiled kernel.

    Attributes:
        registers: registers a thread.
        spills: bytes of local memory a thread, 0 unless registers ran out.
        shared: bytes of shared memory a program.
        instructions: all instructions of the kernel.
        loads: global loads by width in bits, as ``{128: 4, 32: 1}``.
        stores: global stores by width in bits.
        matrix: tensor-core instructions (HGMMA, HMMA).
    """

    registers: int
    spills: int
    shared: int
    instructions: int
    loads: dict[int, int]
    stores: dict[int, int]
    matrix: int


def machine_code(
    kernel: Any, signature: Mapping[str, str], constants: Mapping[str, Any] | None = None, *,
    warps: int = 4, stages: int = 3, capability: int = 90,
) -> MachineCode:
    """Compile a `triton.jit` kernel and count what came out.

    Args:
        kernel: the decorated function.
        signature: type of every argument that is no constant, as ``{"x": "*fp32", "n": "i32"}``.
            Pointers are taken as aligned to 16 bytes, as torch allocates. An integer marked
            ``"i32:16"`` is taken as a multiple of 16.
        constants: the constexpr arguments.
        warps, stages: as in a launch.
        capability: 90 for sm_90.

    Raises:
        RuntimeError: no Triton here, or its interpreter is on, which compiles nothing.
    """
    if triton is None or INTERPRET:
        raise RuntimeError("machine_code needs Triton, and a process without TRITON_INTERPRET")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = dict(constants or {})
    types, aligned = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            types[name] = "constexpr"
            continue
        kind, _, multiple = signature[name].partition(":")
        types[name] = kind
        if kind.startswith("*") or multiple == "16":
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages},
    )  # fmt: skip
    return counts(*_disassemble(compiled.asm["cubin"]), compiled.metadata.shared)


def counts(usage: str, listing: str, shared: int) -> MachineCode:
    """Read what cuobjdump says of resources and what nvdisasm lists."""
    numbers = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    opcode = r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)"
    opcodes = re.findall(opcode, listing, re.MULTILINE)
    return MachineCode(
        registers=numbers["REG"], spills=numbers["LOCAL"] + numbers["STACK"], shared=shared,
        instructions=len(opcodes), loads=_widths(opcodes, "LDG"), stores=_widths(opcodes, "STG"),
        matrix=sum(code.startswith(("HGMMA", "HMMA", "QGMMA", "IGMMA")) for code in opcodes),
    )  # fmt: skip


def _widths(opcodes: list[str], family: str) -> dict[int, int]:
    found = Counter()
    for code in opcodes:
        first, *rest = code.split(".")
        if first == family:
            found[next((int(re.sub(r"\D", "", part)) for part in rest
                        if re.fullmatch(r"(?:U|S)?(?:8|16|64|128)", part)), 32)] += 1
    return dict(sorted(found.items(), reverse=True))


def _disassemble(cubin: bytes) -> tuple[str, str]:
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return tuple(
            subprocess.run([tools / tool, flag, path], capture_output=True, text=True, check=True,
                           timeout=120).stdout
            for tool, flag in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
