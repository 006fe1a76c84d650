"""A record shows itself beside its claim and carries its numbers to the build."""

from __future__ import annotations

import math
import re

import pytest
import torch

from invertnb.notebook import Records, record
from invertnb.notebook.ledger import MIME, anchor


def test_a_record_carries_value_spread_verdict_and_readings():
    shown = record(
        "figure2.c", 1.43, (0.87, 1.68), readings={"support given": (0.142, 0.05), "squared": 0.102}
    )._repr_mimebundle_()
    (payload,) = shown[MIME]
    assert payload["claim"] == "figure2.c" and payload["verdict"] == "not reproduced"
    assert payload["spread"] == [0.87, 1.68]
    assert [r["verdict"] for r in payload["readings"]] == ["reproduced", "reproduced"]
    assert "1.43, 0.87 to 1.68" in shown["text/plain"]
    assert f'id="{anchor("figure2.c")}"' in shown["text/html"]


def test_tensors_are_numbers_and_rounded_the_same_everywhere():
    made = record("figure2.a", torch.tensor(1.0000004, dtype=torch.float64), torch.tensor(0.03))
    assert made.value == 1.0 and made.spread == pytest.approx(0.03)
    assert record("proposition1", torch.tensor(True)).value is True


def test_several_records_are_one_table():
    shown = Records([record("figure2.a", 1.0), record("figure2.b", 1.96)])._repr_mimebundle_()
    assert len(shown[MIME]) == 2 and shown["text/html"].count("<table") == 1


def test_readings_of_a_long_table_are_folded_behind_their_verdicts():
    made = record("figure2.a", 1.0, readings={"one": 1.0, "two": 3.0, "three": 4.0})
    short, long = (Records([made] * n)._repr_mimebundle_()["text/html"] for n in (10, 11))
    assert "<details>" not in short and long.count("<details>") == 11
    (summary, *_) = re.findall("<summary>(.*?)</summary>", long)
    assert summary.startswith("3 readings: ") and re.sub("<.*?>", "", summary).endswith(
        "not reproduced 2 reproduced 1"
    )
    assert long.count('<th scope="row">two</th>') == 11


@pytest.mark.parametrize("value", [math.nan, math.inf, "1.0", None])
def test_what_is_not_a_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="figure2.a.*expected a finite number"):
        record("figure2.a", value)


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="unknown claim 'figure2.z'"):
        record("figure2.z", 1.0)


def test_text_from_outside_is_escaped():
    shown = record("figure2.a", 1.0, note="<script>")._repr_mimebundle_()["text/html"]
    assert "<script>" not in shown and "&lt;script&gt;" in shown
