"""The chapter on the limits of the hardware: the kernels' own text, its commentary, their machine code."""

import pytest

from invertnb.chapters.kernels import recorded, roofline, sources
from invertnb.chapters.kernels.recorded import Compiled


def test_sources_are_those_of_the_package():
    assert "larger = key > best" in sources.source("first_largest").text
    assert sources.source("keep")._repr_markdown_().startswith("```python\ndef _kernel(")
    for name in sources.KERNELS:
        assert sources.source(name).text.startswith("def ")
    assert sources.specifications().count("\n    ") == 3


def test_the_commentary_fits_the_kernel_and_follows_its_lines():
    source = sources.source("keep", "first_largest")
    sources.Commentary(source, sources.KEEP)
    flat = " ".join(source.text.split())
    places = [flat.index(code.split(" … ")[0]) for code, _ in sources.KEEP]
    assert places == sorted(places)
    html = sources.Commentary(source, sources.KEEP)._repr_html_()
    assert html.count("<tr>") == len(sources.KEEP) + 1 and "key &gt; best" in html


def test_a_stale_commentary_is_refused():
    with pytest.raises(ValueError, match="stale: 'no such line'"):
        sources.Commentary(sources.source("keep"), [("no such line", "is explained")])


HEADER = "date,triton,kernel,dtype,layout,registers,spills,shared,instructions,per_window,loads,stores,matrix\n"


def test_machine_code_is_read_and_judged(tmp_path):
    path = tmp_path / "kernels_machine_code.csv"
    path.write_text(HEADER + "2026-01-01,3.8,keep,fp32,contiguous,40,0,0,400,50,4x128,4x128,0\n"
                    "2026-01-01,3.8,keep,bf16,contiguous,40,0,0,400,400,4x128,4x128,0\n"
                    "2026-01-01,3.8,atom_norms,fp32,,32,0,0,700,,10x32,3x32,0\n")  # fmt: skip
    compiled = recorded.load_machine_code(path)
    assert compiled[0] == Compiled("keep", "fp32", "contiguous", 40, 0, 0, 400, 50.0, "4x128", "4x128", 0, "3.8")
    assert compiled[2].per_window is None
    table = sources.machine_code(compiled, roofline.h200())
    last = [line.split() for line in table.split("\n\n")[1].split("\n") if "contiguous" in line]
    assert [line[-1] for line in last] == ["memory", "instructions"]
    assert float(last[0][3]) == pytest.approx(32e12 / roofline.h200().copy, rel=0.05)
    path.write_text(HEADER + "2026-01-01,3.8,keep,fp32,contiguous,many,0,0,400,50,,,0\n")
    with pytest.raises(ValueError, match="line 2: registers = 'many'"):
        recorded.load_machine_code(path)


def test_missing_machine_code_is_labelled():
    assert recorded.COMMANDS["machine code"] in sources.machine_code([], roofline.h200())
