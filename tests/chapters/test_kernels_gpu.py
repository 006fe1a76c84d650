"""The chapter on the limits of the hardware: a recorded GPU beside what was predicted of it."""

from __future__ import annotations

import dataclasses

import pytest

from invertnb.chapters import kernels as chapter
from invertnb.chapters.kernels import bars, counts, gpu, predictions, recorded, roofline, tested
from invertnb.chapters.kernels.recorded import Recorded, Recording, Row
from invertnb.notebook.project import root

COPY, RATE = 1e12, 1e14
SIZE = "10x3x32x32, K=2048 l=5"


def run(*rows: Row, device="NVIDIA H100 80GB HBM3", **rates) -> Recording:
    rates = rates or {"float32": RATE, "bfloat16": 2 * RATE}
    return Recording(device, 1, "2026-01-02 10:00", {"torch": "2"}, rows, COPY, rates)


def layer(way: str, seconds: float, ratio: float = 1.0, dtype: str = "float32") -> Row:
    return Row("encode", SIZE, dtype, way, seconds, ratio=ratio, items=10, percent=30.0)


def step(way: str, seconds: float, ratio: float = 1.0) -> Row:
    return Row("fista_step", "2x8x4x4", "float32", way, seconds, ratio=ratio, items=2, bytes=20.0 * 256)


def test_bytes_of_a_layer_counted_by_hand():
    # 3 x 32 x 32 entries in, 2048 x 28 x 28 responses, 2048 x 14 x 14 pooled, 4 x 14 x 14 patches of 80.
    x, full, few, patches = 3072, 1_605_632, 401_408, 62_720
    ways = {way: counts.total(passes) for way, passes in gpu.layer_ways(counts.RANDOM_FILTERS, 4).items()}
    assert ways["literal"] == 4 * (x + 8 * full + few) + 8 * few
    assert ways["pooling first"] == 4 * (x + 4 * full + 3 * few) + 8 * few
    assert ways["literal, compiled"] == ways["pooling first, compiled"] == 4 * (x + 2 * full + few)
    assert ways["encode"] == 4 * (x + 2 * patches + few)
    half = {way: counts.total(passes) for way, passes in gpu.layer_ways(counts.RANDOM_FILTERS, 2).items()}
    assert half["encode"] == ways["encode"] / 2 and half["literal"] == (ways["literal"] + 8 * few) / 2


def test_bytes_of_the_step_counted_by_hand():
    ways = {way: counts.total(passes) for way, passes in gpu.step_ways(4).items()}
    assert ways == {"literal": 112, "five operations": 44, "compiled": 20, "fista_step": 20}


def test_a_way_as_fast_as_its_count_has_no_excess():
    layer_ = counts.RANDOM_FILTERS
    products, written = layer_.operations / RATE, 4 * (3072 + 1_605_632) / COPY
    rest = 4 * (1_605_632 + 401_408) / COPY
    compiled = max(products, written) + rest
    # The kernel multiplies 80 entries for 75, and its products take longer than its bytes.
    ours = products * 80 / 75 + 4 * (3072 + 62_720) / COPY
    found = gpu.checks(run(layer("literal, compiled", 10 * compiled), layer("encode", 20 * ours)), "encode")
    assert [c.excess for c in found] == pytest.approx([1, 2]) and written > products
    assert found[1].predicted == pytest.approx(compiled / ours) and found[0].predicted == 1
    (one,) = gpu.checks(run(step("five operations", 3 * 44 * 256 / COPY)), "fista_step")
    assert one.least == pytest.approx(44 * 128 / COPY) and one.excess == pytest.approx(3)


def test_ways_without_a_time_or_a_count_are_left_out():
    rows = layer("literal", 1.0), layer("encode", 1.0)._replace(seconds=None), layer("another", 1.0)
    assert [c.row.way for c in gpu.checks(run(*rows), "encode")] == ["literal"]


def held(*rows: Row, **given) -> dict[str, bool | None]:
    return {each.said.split(":")[0]: each.held for each in gpu.forecasts(run(*rows, **given))}


def test_shares_are_those_of_the_cards_own_data_sheet():
    sheet = roofline.SHEETS["H100 80GB HBM3"]
    assert sheet["copy"] < roofline.SHEET["copy"] and sheet["TF32"] == roofline.SHEET["TF32"]
    some = run(float32=0.77 * 494e12, bfloat16=0.75 * 989e12)
    found = roofline.shares(some)
    assert found == pytest.approx({"copy": COPY / 3.35e12, "TF32": 0.77, "bfloat16": 0.75})
    assert held(float32=0.77 * 494e12, bfloat16=0.75 * 989e12)["TF32"] is True  # 95 % of 80 % is 76 %
    assert held(float32=0.77 * 494e12, bfloat16=0.75 * 989e12)["bfloat16"] is False
    other = dataclasses.replace(some, device="NVIDIA A100")
    assert roofline.shares(other) == {}
    assert gpu.forecasts(other)[0].held is None


@pytest.mark.parametrize("ours, compiled, memory, worth", [
    (1.0, 2.0, True, True), (1.0, 1.0, True, False), (1.0, 1.04, True, False), (3.0, 4.0, False, True)])  # fmt: skip
def test_the_step_is_judged_by_its_bytes_and_by_the_compiler(ours, compiled, memory, worth):
    least = 20 * 256 / COPY
    found = held(step("compiled", compiled * least), step("fista_step", ours * least))
    assert found["fista_step is bound by memory"] is memory
    assert found["fista_step is worth a kernel"] is worth


def test_the_layer_is_judged_by_its_count_and_by_the_products():
    # Without its products the literal way would be 1 / (1 - 1 / 12) = 1.09 times as fast.
    products = 10 * counts.RANDOM_FILTERS.operations / RATE
    rows = layer("literal", 12 * products), layer("encode", 6 * products, 2.0)
    found = held(*rows)
    assert found["encode is bound by its products"] is False
    assert found["encode wins from 18 % of the rate of products on"] is True
    assert found["encode gains more than products for nothing would"] is True
    rows = layer("literal", 1.5 * products), layer("encode", 1.4 * products, 1.5 / 1.4)
    found = held(*rows)
    assert found["encode is bound by its products"] is True
    assert found["encode gains more than products for nothing would"] is False


def test_what_was_not_timed_stays_open():
    found = held()
    assert {name for name, each in found.items() if each is not None} == {"copy", "TF32", "bfloat16"}
    pooled = Row("keep", "2x64x28x28", "float32", "ours", 1.0, percent=79.0)
    assert held(pooled)["keep"] is False and held(pooled._replace(percent=81.0))["keep"] is True
    assert held(pooled._replace(size="2x64x28x28, channels last"))["keep"] is None
    # 0 is a value, if a bad one; also beside others.
    nothing = pooled._replace(percent=0.0)
    assert held(nothing)["keep"] is held(pooled._replace(percent=81.0), nothing)["keep"] is False
    assert held(float32=0.0)["TF32"] is False


def test_a_gpu_without_the_task_is_said_to_be_without_it():
    cpu = dataclasses.replace(run(layer("literal", 1.0), step("literal", 1.0)), device="Some CPU")
    some = Recorded((run(step("fista_step", 1.0), device="NVIDIA H100 80GB HBM3"), cpu))
    for text in (predictions.table(some), predictions.verdict(some, "gpu"), gpu.table(some, "encode"),
                 bars.ratios(some, ("encode",))):  # fmt: skip
        assert "NVIDIA H100 80GB HBM3, 2026-01-02: not timed" in text and recorded.COMMANDS["gpu"] in text
        assert "none yet" not in text
    said = [t.get_text() for ax in predictions.draw(some).axes for t in ax.texts]
    assert any("not timed on\nNVIDIA H100" in words for words in said)
    timed, left = recorded.coverage(some).split("not timed there:")
    assert "fista_step (float32)" in timed and left.split() == ["encode"]
    for text in (gpu.table(Recorded(), "encode"), gpu.verdicts(Recorded()), recorded.coverage(Recorded())):
        assert "recorded on a GPU: none yet" in text


def test_the_roof_of_the_recorded_gpu_is_its_own():
    some = Recorded((run(step("fista_step", 20 * 256 / COPY)),))
    ax = roofline.draw(counts.operations(10, 96, 32, 5, 32), some).axes[0]
    slopes = {line.get_linestyle(): line.get_ydata()[0] / line.get_xdata()[0]
              for line in ax.lines if line.get_xdata()[0] == 0.1}  # fmt: skip
    assert slopes == pytest.approx({"--": 0.9 * 4.8e12, "-": COPY})
    x, y = next((line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines
                if line.get_marker() == "o" and line.get_markerfacecolor() != "white")  # fmt: skip
    assert y == pytest.approx(x * COPY)


REPORT = """<testsuites><testsuite>
<testcase classname="tests.kernels.test_a" name="test_x[cuda-1]"/>
<testcase classname="tests.kernels.test_a" name="test_x[cuda-2]"><failure message="m"/></testcase>
<testcase classname="tests.kernels.test_a" name="test_x[cuda-3]"><skipped/></testcase>
<testcase classname="tests.kernels.test_a" name="test_x[cpu-1]"/>
<testcase classname="elsewhere.test_b" name="test_y[cuda]"/><testcase time="0.001"/>
</testsuite></testsuites>"""
WHERE = {"date": "2026-01-02 10:00", "device": "NVIDIA H100", "python": "3", "torch": "2", "triton": "3"}
SELECTED = [f"tests/kernels/test_a.py::test_x[cuda-{i}]" for i in (1, 2, 3, 4)]


def test_only_what_ran_on_the_gpu_is_counted(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    selected = [*SELECTED, "tests/kernels/test_a.py::test_x[cpu-1]", "4 tests collected"]
    rows = tested.count(tmp_path / "report.xml", selected, WHERE)
    tested.write(tmp_path / "tests.csv", rows)
    (found,) = tested.load(tmp_path / "tests.csv")
    assert found[3:] == ("tests/kernels/test_a.py", 4, 1, 1, 1) and found.left == 1
    assert tested.table([found]).splitlines()[1].split() == ["passed", "failed", "skipped", "cut", "off"]
    assert tested.table([found]).splitlines()[-1].split() == ["all", "1", "1", "1", "1"]
    # A file of before the column.
    lines = (tmp_path / "tests.csv").read_text().splitlines()
    (tmp_path / "tests.csv").write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines))
    (older,) = tested.load(tmp_path / "tests.csv")
    assert older == found._replace(skipped=0) and older.left == 2
    assert "skipped" not in tested.table([older])
    with pytest.raises(ValueError, match="more results than the 1 selected"):
        tested.count(tmp_path / "report.xml", SELECTED[:1], WHERE)
    with pytest.raises(ValueError, match="line 2: more results"):
        tested.write(tmp_path / "tests.csv", [rows[0] | {"passed": "5"}])
        tested.load(tmp_path / "tests.csv")
    assert tested.load(tmp_path / "none.csv") == [] and tested.COMMAND in tested.table([])


def test_the_book_tells_every_forecast_of_its_gpu():
    data = chapter.compute(chapter.Parameters())
    words = gpu.verdicts(data.recorded)
    for each in gpu.forecasts(data.recorded.gpu):
        assert each.said in words and each.found in words
    # Both tasks are counted in full: a way that no count knows would be missing in silence.
    for kernel in ("encode", "fista_step"):
        assert len(gpu.checks(data.recorded.gpu, kernel)) == len(data.recorded.gpu.of(kernel))
    assert {t.device for t in data.tests} == {data.recorded.gpu.device}
    files = {t.file for t in data.tests}
    assert all((root() / file).is_file() for file in files)
