"""Draws by a counter: one definition for every device, and its distribution."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invertnb.kernels import draw_atoms as module
from invertnb.kernels.draw_atoms import (
    _draw_plain, draw_atoms, draw_atoms_naive, draw_key, philox_naive,
)

KEY = draw_key(torch.Generator().manual_seed(20170524))

# blocks, atoms of a block, slots of a block, entries of a support
SHAPES = [(5, 4, 1, 3), (4, 1, 1, 4), (1, 6, 1, 1), (4, 3, 2, 5), (2, 5, 3, 6), (3, 3, 3, 9)]


def blocks_of(count: int, length: int, scattered: bool = False) -> torch.Tensor:
    index = torch.arange(count * length)
    return index.view(length, count).T if scattered else index.view(count, length)


def test_the_generator_is_philox():
    # Known answer for Philox4x64-10 of the authors' Random123 1.14: counter and key of zeros.
    assert philox_naive((0, 0), 0) == (
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    key = (2**64 - 3, 2**63 + 12345)
    for counter in (0, 1, 2**32 - 1, 2**63 + 7):
        # NumPy adds 1 to the counter first.
        source = np.random.Philox(key=list(key), counter=(counter - 1) % 2**256)
        assert philox_naive(key, counter) == tuple(source.random_raw(4).tolist())


@pytest.mark.parametrize("values, dtype, scattered", [
    ("uniform", torch.float64, False), ("uniform", torch.float32, True),
    ("gaussian", torch.float64, True), ("gaussian", torch.float32, False)])  # fmt: skip
@pytest.mark.parametrize("count, length, per_block, entries", SHAPES)
def test_draws_equal_their_definition(count, length, per_block, entries, values, dtype, scattered, device):
    blocks = blocks_of(count, length, scattered)
    setting = {"entries": entries, "per_block": per_block, "key": KEY, "first": 2**33 + 5,
               "values": values, "dtype": dtype}  # fmt: skip
    index, code = (drawn.cpu() for drawn in draw_atoms(blocks.to(device), 21, **setting))
    right, expected = draw_atoms_naive(blocks, 21, **setting)
    assert index.dtype == torch.int64 and torch.equal(index, right)
    assert code.dtype == dtype
    if values == "uniform":
        assert torch.equal(code, expected)
    else:
        error = 2e-6 if dtype == torch.float32 else 1e-14
        assert_close(code, expected, rtol=error, atol=error)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_sample_s_is_the_same_in_a_run_of_any_length(order):
    blocks, setting = blocks_of(6, 3), {"entries": 5, "per_block": order, "key": KEY}
    index, code = draw_atoms(blocks, 300, **setting)
    for first, samples in ((0, 7), (7, 1), (123, 177)):
        some, values = draw_atoms(blocks, samples, first=first, **setting)
        assert torch.equal(some, index[first : first + samples])
        assert torch.equal(values, code[first : first + samples])


@pytest.mark.parametrize("order", [1, 3])
def test_parts_blocks_and_threads_change_nothing(order, monkeypatch):
    blocks, setting = blocks_of(6, 3), {"entries": 5, "per_block": order, "key": KEY}
    index, code = draw_atoms(blocks, 40, **setting)
    for size in (1, 16, 64):  # the CPU's parts are of 1, 1 and 5 samples, the programs of these
        monkeypatch.setattr(module, "PART", size)
        monkeypatch.setattr(module, "SHORT", 1)
        monkeypatch.setattr(module, "BLOCK", max(16, size))
        for threads in (1, 3):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            some, values = draw_atoms(blocks, 40, **setting)
            assert torch.equal(some, index) and torch.equal(values, code)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_both_routes_draw_the_same(order, device):
    # The op takes the route of the device; the CPU's route is called here by name.
    blocks, samples, entries = blocks_of(7, 4), 500, 6
    index = torch.full((entries, samples), -1)
    code = torch.full((entries, samples), torch.nan, dtype=torch.float64)
    _draw_plain(KEY, blocks, order, 3, False, index, code)
    there, values = draw_atoms(
        blocks.to(device), samples, entries=entries, per_block=order, key=KEY, first=3)
    assert torch.equal(there.cpu(), index.T) and torch.equal(values.cpu(), code.T)


def within(counts, probability: float, samples: int) -> bool:
    """All counts within 5 standard deviations."""
    spread = (samples * probability * (1 - probability)) ** 0.5
    return all(abs(count - samples * probability) < 5 * spread for count in counts)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_marginals_and_pairs(order):
    samples, count, length, entries = 20_000, 4, 3, 4
    index, _ = draw_atoms(
        blocks_of(count, length), samples, entries=entries, per_block=order, key=KEY)
    atoms = count * length
    assert (index.sort(1).values.diff(dim=1) > 0).all()
    assert (index // length).T.unsqueeze(1).eq((index // length).T).sum(0).max() <= order
    assert within(index.flatten().bincount(minlength=atoms).tolist(), entries / atoms, samples)
    ones = torch.zeros(samples, atoms, dtype=torch.float64).scatter_(1, index, 1.0)
    pairs = (ones.T @ ones).tolist()
    slots = count * order
    both = entries * (entries - 1) / (slots * (slots - 1))  # two given slots are both drawn
    for a, b in combinations(range(atoms), 2):
        same = a // length == b // length
        if same:
            # order (order - 1) / 2 pairs of slots, at any of 3 pairs of places
            probability = both * order * (order - 1) / 2 / 3
        else:
            probability = both * (order / length) ** 2
        assert within([pairs[a][b]], probability, samples) if probability else pairs[a][b] == 0


def test_whole_supports_are_uniform():
    samples = 12_000
    index, _ = draw_atoms(blocks_of(5, 1), samples, entries=3, key=KEY)
    drawn = Counter(map(frozenset, index.tolist()))
    assert set(drawn) == set(map(frozenset, combinations(range(5), 3)))
    assert within(drawn.values(), 1 / 10, samples)


@pytest.mark.parametrize("values, moments", [
    ("uniform", (0, 1 / 3, 0, 1 / 5, 0, 1 / 7, 0, 1 / 9)), ("gaussian", (0, 1, 0, 3, 0, 15, 0, 105))])
def test_moments_of_values(values, moments):
    index, code = draw_atoms(blocks_of(8, 4), 6000, entries=5, key=KEY, values=values)
    flat = code.flatten()
    for power in (1, 2, 3, 4):
        spread = (moments[2 * power - 1] - moments[power - 1] ** 2) ** 0.5
        assert abs(float((flat**power).mean()) - moments[power - 1]) < 5 * spread / len(flat) ** 0.5
    # Values know nothing of one another, nor of the atoms.
    scale = moments[1] * 6000**0.5
    for a, b in combinations(range(5), 2):
        assert abs(float((code[:, a] * code[:, b]).sum())) < 5 * scale
    centered = index.double() - 15.5
    covariance = float((centered * code).sum())
    assert abs(covariance) < 5 * float((centered.square().sum() * moments[1]) ** 0.5)
    if values == "uniform":
        assert -1 <= float(flat.min()) < -0.999 and 0.999 < float(flat.max()) < 1


def test_no_samples_and_one():
    index, code = draw_atoms(blocks_of(5, 4), 0, entries=3, key=KEY)
    assert index.shape == code.shape == (0, 3)
    index, code = draw_atoms(blocks_of(1, 1), 1, entries=1, key=KEY)
    assert index.tolist() == [[0]] and -1 <= float(code) < 1


def test_the_layout_is_that_of_the_kernels():
    index, code = draw_atoms(blocks_of(5, 4), 9, entries=3, key=KEY)
    assert index.stride() == code.stride() == (1, 9)


def test_keys_follow_the_generator():
    one, other = (draw_key(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(one, draw_key(torch.Generator().manual_seed(1)))
    assert not torch.equal(one, other)
    draws = [draw_atoms(blocks_of(9, 9), 9, entries=4, key=key)[0] for key in (one, other)]
    assert not torch.equal(*draws)
    # All 128 bits are used: the sign bits are not always 0.
    words = torch.stack([draw_key(torch.Generator().manual_seed(seed)) for seed in range(32)])
    assert ((words < 0).any(0) & (words > 0).any(0)).all()


def test_slots_near_the_limit_do_not_overflow():
    # The last of 2^31 - 1 places is reached: half * length stays in int64.
    words = np.array([[2**64 - 1], [2**64 - 1]], dtype=np.uint64)
    top = module._positions(words, 2, 2**31 - 1, 1)
    assert sorted(top.ravel().tolist()) == [2**31 - 2, 2 * (2**31 - 1) - 1]


def test_the_op_keeps_its_contract():
    arguments = (KEY, blocks_of(5, 4), 6, 3, 2, 1, False, torch.float32)
    torch.library.opcheck(torch.ops.invertnb.draw_atoms.default, arguments)


def test_compiled_in_one_graph():
    def double(key):
        index, code = draw_atoms(blocks_of(5, 4), 6, entries=3, key=key)
        return 2 * index, 2 * code

    for one, other in zip(torch.compile(double, fullgraph=True, backend="aot_eager")(KEY), double(KEY),
                          strict=True):
        assert torch.equal(one, other)


HUGE = torch.zeros(1, dtype=torch.int64)
BAD = {
    "blocks: dtype": ({"blocks": blocks_of(5, 4).int()}, "blocks = int32", "int64"),
    "blocks: axes": ({"blocks": torch.arange(5)}, "blocks = ", "(blocks, atoms of a block)"),
    "blocks: long": ({"blocks": HUGE.expand(1, 2**31), "entries": 1}, "blocks = ", "2^31"),
    "blocks: many": ({"blocks": HUGE.expand(2**30, 2), "per_block": 2}, "blocks = ", "2^31"),
    "samples": ({"samples": -1}, "samples = -1", "at least 0"),
    "first": ({"first": -1}, "first = -1", "at least 0"),
    "counters": ({"first": 2**62}, f"first = {2**62}", "2^63 counters"),
    "entries: none": ({"entries": 0}, "entries = 0", "from 1 to 5"),
    "entries: many": ({"entries": 6}, "entries = 6", "from 1 to 5"),
    "per_block: many": ({"per_block": 4}, "per_block = 4", "from 1 to 3"),
    "per_block: short": ({"blocks": blocks_of(4, 2), "per_block": 3}, "per_block = 3", "from 1 to 2"),
    "values": ({"values": "normal"}, "values = 'normal'", "'gaussian'"),
    "dtype": ({"dtype": torch.float16}, "dtype = torch.float16", "float32"),
    "key: none": ({"key": 5}, "key = 5", "int64 tensor of shape (2,)"),
    "key: shape": ({"key": torch.zeros(3, dtype=torch.int64)}, "key = ", "shape (2,)"),
    "key: dtype": ({"key": torch.zeros(2)}, "key = float32", "int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, refuses):
    changes, *parts = BAD[case]
    given = {"blocks": blocks_of(5, 4), "samples": 3, "entries": 3, "key": KEY, **changes}
    refuses(lambda: draw_atoms(given.pop("blocks"), given.pop("samples"), **given), *parts)
