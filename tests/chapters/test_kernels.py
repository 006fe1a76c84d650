"""The chapter on the limits of the hardware: counts by hand, the reader of recorded times, figures."""

import math
from pathlib import Path

import pytest

from invertnb.chapters import kernels as chapter
from invertnb.chapters.kernels import bars, counts, predictions, recorded, roofline, text, without
from invertnb.chapters.kernels.recorded import Recorded
from invertnb.notebook.figures import Figure
from invertnb.notebook.project import root

FIELDS = ("date,device,threads,python,torch,triton,kernel,size,dtype,way,seconds,low,high,ratio,items,"
          "bytes,operations,percent,note").split(",")  # fmt: skip
CPU, GPU = "Some CPU", "NVIDIA H200"
ENTRIES = 2 * 64 * 28 * 28


def row(**given) -> dict:
    base = dict.fromkeys(FIELDS, "") | {
        "date": "2026-01-02 10:00", "device": CPU, "threads": "2", "python": "3.11", "torch": "2.14",
        "triton": "3.8", "kernel": "keep", "size": "2x64x28x28", "dtype": "float32", "way": "eager",
        "seconds": "0.004", "ratio": "1", "items": "2", "bytes": str(8 * ENTRIES), "percent": "10",
    }  # fmt: skip
    return base | {name: str(value) for name, value in given.items()}


def ceiling(**given) -> list[dict]:
    blank = {"kernel": "ceiling", "size": "", "ratio": "", "items": "", "percent": "", "seconds": 1}
    copy = row(way="copy", dtype="", bytes=1e10, **blank, **given)
    return [copy, row(way="matmul", bytes="", operations=1e11, **blank, **given)]


def pooling(**given) -> list[dict]:
    """A row for every way of every task, in both layouts, each at copy speed exactly."""
    rows = []
    for task, known in counts.ways(4).items():
        least, first = counts.total(known["ours"]), counts.total(next(iter(known.values())))
        for layout in ("", ", channels last"):
            rows += [
                row(kernel=task, way=way, size="2x64x28x28" + layout, bytes=least * ENTRIES,
                    seconds=counts.total(passes) * ENTRIES / 1e10,
                    ratio=first / counts.total(passes), **given)
                for way, passes in known.items()
            ]  # fmt: skip
    return rows


def others(**given) -> list[dict]:
    shape = {"bytes": "", "operations": "2e9"}
    return [
        row(kernel="coherence", size="8x8x3x3", way=way, seconds=s, ratio=0.1 / s, **shape, **given)
        for way, s in (("a product a shift", 0.1), ("ours, conv2d(w, w)", 0.05))
    ] + [row(kernel="lasso", size="small", way="peer", seconds="", ratio="", note="not installed", **given)]


def written(folder: Path, rows: list[dict], fields=FIELDS) -> Path:
    path = folder / "kernels.csv"
    lines = [",".join(fields)]
    lines += [",".join(f'"{r[f]}"' if "," in r[f] else r[f] for f in fields) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def full(tmp_path) -> Recorded:
    gpu = {"device": GPU, "threads": 16, "date": "2026-01-03 10:00"}
    rows = ceiling() + pooling() + others()
    return recorded.load(written(tmp_path, rows + ceiling(**gpu) + pooling(**gpu) + others(**gpu)))


@pytest.fixture
def cpu_only(tmp_path) -> Recorded:
    return recorded.load(written(tmp_path, ceiling() + pooling() + others()))


# Counts


@pytest.mark.parametrize(
    ("task", "way", "fp32", "bf16"),
    [("keep", "eager", 33, 19.5), ("keep", "ours", 8, 4), ("keep", "compiled", 18, 11),
     ("keep", "eager, amax", 28, 15), ("keep", "compiled, amax", 8, 4),
     ("pool_switch", "eager", 22, 13), ("pool_switch", "ours", 5.25, 2.75), ("pool_switch", "compiled", 7, 4.5),
     ("unpool", "eager", 11, 6.5), ("unpool", "compiled", 11, 6.5), ("unpool", "ours", 5.25, 2.75)],
)  # fmt: skip
def test_bytes_of_an_entry_counted_by_hand(task, way, fp32, bf16):
    assert counts.total(counts.ways(4)[task][way]) == fp32
    assert counts.total(counts.ways(2)[task][way]) == bf16
    assert counts.predicted(task, way, 4) == counts.total(counts.ways(4)[task]["eager"]) / fp32


def test_operations_counted_by_hand():
    # A window of four: four keys, three comparisons, nine selections; four of each to write.
    assert counts.window_operations("pool_switch") == (4 + 3 + 9) / 4
    assert counts.window_operations("unpool") == (4 + 4) / 4
    assert counts.window_operations("keep") == (4 + 3 + 9 + 4 + 4) / 4
    assert counts.lookups(10) == 155
    assert counts.dense_operations(96, 28, 32, 32) == 2 * 2688 * 1024
    assert counts.table_bytes(96, 4) == 96 * 96 * 9 * 4
    assert counts.table_bytes(512, 2, dims=2) == 512 * 512 * 25 * 4
    layer = counts.RANDOM_FILTERS
    assert layer.operations == 2 * 75 * 2048 * 28 * 28
    assert layer.bytes(4, pooled=True) == 4 * (3 * 32 * 32 + 2048 * 14 * 14)
    assert counts.VGG[0].operations == 2 * 128 * 64 * 9 * 112 * 112
    # Two words of random bits an atom, ten rounds of forty instructions for every two atoms.
    assert counts.draw_operations(10) == 5 * 10 * 40 + 45 * 8 + 300


def test_the_groups_of_the_roofline_are_those_that_the_text_names():
    operations = counts.operations(10, 96, 32, 5, 32)
    bounds = [roofline.h200().bound(each)[0] for each in operations]
    assert bounds[:4] == ["memory"] * 4
    assert bounds[4:6] == ["instructions"] * 2
    assert set(bounds[6:]) == {"TF32", "bfloat16"}


def test_ceilings_of_the_h200():
    ceilings = roofline.h200()
    assert ceilings.copy == pytest.approx(4.3e12, rel=0.01)
    assert ceilings.rates["instructions"] == pytest.approx(33.4e12, rel=0.01)
    assert ceilings.rates["bfloat16"] == pytest.approx(790e12, rel=0.01)
    pooling_ = counts.operations(10, 96, 32, 5, 32)[3]
    assert ceilings.seconds(pooling_) == pytest.approx(8 / ceilings.copy)


def test_what_a_kernel_would_have_to_reach():
    stakes = [without.stake(layer, "bfloat16", roofline.h200()) for layer in counts.VGG]
    shares = [stake.share for stake in stakes]
    assert shares == sorted(shares) and 0.65 < shares[0] < 0.75 and shares[-1] > 0.9
    assert without.stake(counts.RANDOM_FILTERS, "TF32", roofline.h200()).share < 0.25
    assert without.taps_by_window(3) == [4, 2, 2, 1]
    assert without.sparse_speedup(3) == pytest.approx(1.8)


# Reader


def test_of_each_task_the_newest_run_on_a_machine_counts(tmp_path):
    rows = [row(seconds=9, date="2026-01-01 10:00"), row(seconds=1), row(seconds=5, date="2025-12-31 23:59"),
            row(kernel="unpool", date="2026-01-01 10:00"),
            row(seconds=7, threads=1, date="2026-01-01 10:00")]  # fmt: skip
    found = recorded.load(written(tmp_path, rows))
    assert [(run.threads, run.date, len(run.rows)) for run in found.runs] == [
        (2, "2026-01-02 10:00", 2), (1, "2026-01-01 10:00", 1)]  # fmt: skip
    assert found.cpu.of(row()["kernel"])[0].seconds == 1 and found.cpu.threads == 2
    assert len(found.cpu.of("unpool")) == 1  # a run of some topics leaves the others
    assert found.gpu is None


def test_all_ways_of_a_task_are_from_one_run(tmp_path):
    rows = [row(way="peer", seconds=2, date="2026-01-01 10:00"), row(seconds=1, date="2026-01-02 10:00")]
    assert [r.seconds for r in recorded.load(written(tmp_path, rows)).cpu.rows] == [1]


def test_of_two_rows_in_one_run_the_later_counts(tmp_path):
    found = recorded.load(written(tmp_path, [row(seconds=3), row(seconds=4)]))
    assert [r.seconds for r in found.cpu.rows] == [4]


def test_ceilings_are_no_tasks(cpu_only):
    assert cpu_only.cpu.copy == 1e10 and cpu_only.cpu.matrix == {"float32": 1e11}
    assert all(kernel != "ceiling" for kernel, *_ in cpu_only.cpu.tasks())


def test_a_gpu_is_known_by_its_name(full):
    assert (full.cpu.device, full.gpu.device) == (CPU, GPU)
    assert full.gpu.name == GPU and full.cpu.name == "Some CPU, 2 threads"


@pytest.mark.parametrize("device", ["AMD Ryzen 7 with Radeon Graphics", "Intel(R) Xeon(R)", "AMD EPYC"])
def test_a_cpu_is_no_gpu(tmp_path, device):
    found = recorded.load(written(tmp_path, [row(device=device)]))
    assert found.cpu and found.gpu is None


def test_no_file_is_no_run(tmp_path):
    assert recorded.load(tmp_path / "none.csv") == Recorded()
    assert recorded.load_machine_code(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("given", "message"),
    [({"seconds": "soon"}, r"kernels.csv, line 3: seconds = 'soon': expected a number"),
     ({"seconds": "-1"}, r"line 3: seconds = '-1'"),
     ({"ratio": "nan"}, r"line 3: ratio = 'nan'"),
     ({"threads": "two"}, r"line 3: threads = 'two': expected a whole number"),
     ({"threads": ""}, r"line 3: threads = ''"),
     ({"items": "1.5"}, r"line 3: items = '1.5'"),
     ({"date": "yesterday"}, r"line 3: date = 'yesterday'"),
     ({"kernel": ""}, r"line 3: kernel is empty")],
)  # fmt: skip
def test_a_malformed_row_is_named(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        recorded.load(written(tmp_path, [row(), row(**given)]))


def test_missing_columns_and_short_rows_are_named(tmp_path):
    path = written(tmp_path, [row()], [name for name in FIELDS if name != "way"])
    with pytest.raises(ValueError, match="no column 'way'"):
        recorded.load(path)
    path = written(tmp_path, [row()])
    path.write_text(path.read_text() + "2026-01-01 10:00,CPU\n")
    with pytest.raises(ValueError, match="line 3: expected 19 columns"):
        recorded.load(path)


def test_the_recorded_files_of_the_book_can_be_read():
    found = recorded.load(root() / recorded.FILE)
    for run in found.runs:
        assert run.copy and run.rows
        for each in run.rows:
            assert each.seconds is not None or each.note
    for compiled in recorded.load_machine_code(root() / recorded.MACHINE_CODE):
        assert compiled.registers <= 255


def test_side_and_layout():
    assert recorded.side_and_layout("2x64x224x224, channels last") == (224, "channels last")
    assert recorded.side_and_layout("8x512x28x28") == (28, "contiguous")


# Predictions


def test_at_copy_speed_every_prediction_holds(full):
    for run in full.runs:
        found = predictions.compare(run)
        assert len(found) == 2 * (5 + 3 + 3)
        for each in found:
            assert each.ratio == pytest.approx(each.predicted)
            assert each.excess == pytest.approx(1) and each.limit == "memory"
    assert "10 within" not in predictions.verdict(full) and "16 within" in predictions.verdict(full)


def test_a_deviation_is_predicted_ratio_times_the_two_excesses():
    found = recorded.load(root() / recorded.FILE)
    for run in found.runs:
        for each in predictions.compare(run):
            if each.excess:
                # Ratios are stored with four digits.
                expected = each.predicted * each.literal_excess / each.excess
                assert each.ratio == pytest.approx(expected, rel=3e-3)


def test_excess_says_what_is_the_limit(tmp_path):
    base = 8 * ENTRIES / 1e10
    for factor, limit in ((0.5, "cache"), (1.5, "memory"), (3, "other")):
        rows = ceiling() + [row(seconds=33 / 8 * base), row(way="ours", seconds=factor * base, ratio=4.125 / factor)]
        found = predictions.compare(recorded.load(written(tmp_path, rows)).cpu)
        (ours,) = [each for each in found if each.way == "ours"]
        assert ours.limit == limit and ours.excess == pytest.approx(factor)


def test_a_missing_gpu_is_labelled_everywhere(cpu_only):
    tables = [predictions.table(cpu_only), predictions.verdict(cpu_only, "gpu"),
              roofline.ceilings_table(cpu_only), bars.ratios(cpu_only, ("coherence",))]  # fmt: skip
    for table in tables:
        assert "recorded on a GPU: none yet" in table and recorded.COMMANDS["gpu"] in table
    assert "Some CPU, 2 threads, 2026-01-02: not timed" in bars.ratios(cpu_only, ("no such kernel",))


def test_rows_of_a_gpu_fill_the_part_of_the_gpu(full):
    tables = [predictions.table(full), predictions.verdict(full, "gpu"), roofline.ceilings_table(full),
              bars.ratios(full, ("coherence",))]  # fmt: skip
    for table in tables:
        assert GPU in table and "none yet" not in table


def test_a_way_that_did_not_run_says_why(full):
    assert "peer: not installed" in bars.ratios(full, ("lasso",))


def test_nothing_recorded_at_all_is_said():
    assert predictions.table(Recorded()).count("none yet") == 2
    with pytest.raises(ValueError, match="bench --record"):
        bars.pooling_explorer(Recorded())
    with pytest.raises(ValueError, match="bench --record"):
        bars.tasks_explorer(Recorded())


# Figures and explorers


@pytest.mark.parametrize("state", ["full", "cpu_only", "empty"])
def test_figures_draw(state, request):
    found = Recorded() if state == "empty" else request.getfixturevalue(state)
    operations = counts.operations(10, 96, 32, 5, 32)
    pictures = (roofline.draw(operations, found), predictions.draw(found),
                bars.draw_ratios(found, ("keep", "coherence", "lasso")))  # fmt: skip
    for picture in pictures:
        assert isinstance(picture, Figure)
        assert picture._repr_png_().startswith(b"\x89PNG")
    said = [t.get_text() for picture in pictures[:2] for ax in picture.axes for t in ax.texts]
    assert any("none yet" in words for words in said) == (state != "full")


def covered(*explorers) -> set[tuple[str, str, str]]:
    """Machine, kernel, size with dtype."""
    found = set()
    for explorer in explorers:
        for point in explorer.grid():
            values = explorer.render(**point).values
            for size in values.get("size", "").split(" and "):
                kernel = point["task"].partition(": ")[2].removesuffix(f", {size}") or point["task"]
                found.add((values.get("machine"), kernel, size))
    return found


@pytest.mark.parametrize("state", ["full", "cpu_only", "book"])
def test_the_explorers_show_every_recorded_task(state, request):
    found = recorded.load(root() / recorded.FILE) if state == "book" else request.getfixturevalue(state)
    shown = covered(bars.pooling_explorer(found), bars.tasks_explorer(found))
    for run in (found.cpu, found.gpu):
        for kernel, size, dtype in run.tasks() if run else ():
            timed = any(r.seconds for r in run.of(kernel, size, dtype))
            assert not timed or (run.name, kernel, f"{size}, {dtype}") in shown
    grids = [len(list(e.grid())) for e in (bars.pooling_explorer(found), bars.tasks_explorer(found))]
    assert sum(grids) <= 60 + 12 and max(grids) <= 60


def test_the_machine_is_a_control_only_where_there_are_two(full, cpu_only):
    names = [[c.name for c in bars.pooling_explorer(each).controls] for each in (cpu_only, full)]
    assert names == [["task", "side", "layout"], ["machine", "task", "side", "layout"]]


def test_values_of_the_explorer_are_those_of_the_row(cpu_only):
    explorer = bars.pooling_explorer(cpu_only)
    values = explorer.render(task="keep", side=28, layout="contiguous").values
    expected = 8 * ENTRIES / 1e10 / 2
    assert values["fastest"] == f"compiled, amax: {text.seconds(expected)} an item, 4.1x"
    assert values["percent of the measured copy bandwidth"] == "10"


# Words and chapter


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0, "0"), (0.456, "0.46"), (1, "1.0"), (9.96, "10"), (123, "120"), (15_400, "15,000"),
     (5.5e6, "5.5 M"), (math.inf, "inf")],
)  # fmt: skip
def test_two_significant_digits(value, words):
    assert text.two(value) == words


def test_rates_and_columns():
    assert text.rate(4.32e12, "B/s") == "4.3 TB/s"
    assert text.seconds(1.6e-10) == "160 ps" and text.seconds(0.00996) == "10 ms" and text.seconds(None) == "-"
    assert text.columns([("a heading of its own",), ("x", "1"), ("yy", "22")]) == (
        "a heading of its own\nx    1\nyy  22")  # fmt: skip


def test_bad_sizes_are_refused_by_name():
    for name, values in (("k", {"k": 97}), ("l", {"l": 33}), ("samples", {"samples": 1})):
        with pytest.raises(ValueError, match=rf"^{name}="):
            chapter.Parameters(**values)


def test_the_chapter_reads_the_book_and_draws():
    data = chapter.compute(chapter.Parameters())
    assert len(data.operations) == len({each.name for each in data.operations}) == 10
    assert isinstance(chapter.draw(data), Figure)
    assert chapter.Parameters(**chapter.PAPER).samples > chapter.Parameters().samples
