"""What pool_switch, unpool, pick and keep refuse, each by name and value."""

from __future__ import annotations

import pytest
import torch

from invertnb.kernels.keep import keep
from invertnb.kernels.pool_switch import pool_switch
from invertnb.kernels.threshold import Threshold
from invertnb.kernels.unpool import pick, unpool


@pytest.mark.parametrize("bad", [4, 255, -1])
def test_a_switch_outside_its_block_raises(bad, device):
    values = torch.ones(1, 2, 3, 3, device=device)
    switches = torch.zeros(1, 2, 3, 3, dtype=torch.int64, device=device)
    switches[0, 1, 2, 2] = bad
    with pytest.raises(ValueError, match=rf"switches = {bad}: expected positions from 0 to 3"):
        unpool(values, switches, (2, 2))
    # Trusted, it writes nothing: neither outside its block nor anywhere else.
    code = unpool(values, switches, (2, 2), trusted=True)
    assert code.sum() == 17 and code[0, 1, 4:, 4:].sum() == 0
    assert pick(torch.ones(1, 2, 6, 6, device=device), switches, (2, 2)).sum() == 17


@pytest.mark.parametrize(
    "change, message",
    [
        ({"z": torch.zeros(2, 4)}, r"z = float32 tensor of shape \(2, 4\)"),
        ({"z": torch.zeros(2, 3, 4, 4, dtype=torch.int64)}, "z = int64.*expected float16"),
        ({"z": torch.zeros(2, 3, 4, 4, dtype=torch.complex64)}, "z = complex64"),
        ({"z": [1.0]}, r"z = \[1.0\]"),
        ({"block": (2, 5)}, r"block = \(2, 5\): expected no side longer"),
        ({"block": (2, 0)}, "block = "),
        ({"block": 0}, "block = 0"),
        ({"block": 2}, "z = float32 tensor"),
        ({"by": "max"}, "by = 'max'"),
    ],
)
def test_bad_codes(change, message):
    arguments = {"z": torch.zeros(2, 3, 4, 4), "block": (2, 2), "by": "abs"} | change
    for function in (pool_switch, keep):
        with pytest.raises(ValueError, match=message):
            function(**arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"values": torch.zeros(2, 3)}, r"values = float32 tensor of shape \(2, 3\)"),
        ({"values": torch.zeros(2, 3, 2, 2, dtype=torch.int32)}, "values = int32"),
        ({"switches": torch.zeros(2, 3, 2, 2)}, "switches = float32"),
        ({"switches": torch.zeros(2, 3, 2, 1, dtype=torch.int64)}, "switches = int64 tensor of shape"),
        ({"block": (2, True)}, "block"),
        ({"size": (4, 6)}, r"size = \(4, 6\)"),
        ({"size": (4,)}, r"size = \(4,\)"),
    ],
)
def test_bad_pooled_codes(change, message):
    arguments = {"values": torch.zeros(2, 3, 2, 2), "block": (2, 2), "size": None,
                 "switches": torch.zeros(2, 3, 2, 2, dtype=torch.uint8)}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        unpool(**arguments | change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g": torch.zeros(2, 3, 4)}, "g = float32 tensor"),
        ({"switches": torch.zeros(2, 3, 3, 2, dtype=torch.uint8)}, "switches = uint8 tensor of shape"),
        ({"switches": torch.zeros(2, 3, 2, 2, dtype=torch.uint16)}, "switches = uint16"),
    ],
)
def test_bad_picks(change, message):
    arguments = {"g": torch.zeros(2, 3, 4, 4), "block": (2, 2),
                 "switches": torch.zeros(2, 3, 2, 2, dtype=torch.uint8)}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        pick(**arguments | change)


@pytest.mark.parametrize(
    "level, last_equal, message",
    [
        (torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64), "level = float64"),
        (torch.ones(1), torch.ones(2, dtype=torch.int64), r"level = float32 tensor of shape \(1,\)"),
        (torch.ones(2), torch.ones(2, dtype=torch.int32), "last_equal = int32"),
    ],
)
def test_bad_thresholds(level, last_equal, message):
    rule = Threshold(level, last_equal)
    with pytest.raises(ValueError, match=message):
        unpool(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2, dtype=torch.uint8), (2, 2), threshold=rule)
    with pytest.raises(ValueError, match=message):
        keep(torch.zeros(2, 3, 4, 4), (2, 2), threshold=rule)
