"""The paper's claims are all there, and their rules judge as they say."""

from __future__ import annotations

from collections import Counter

import pytest

from invertnb.notebook.claims import Claim, find, half_unit, load, show_ours


def claim(rule, paper=0.5, **changes) -> Claim:
    given = {"id": "x", "place": "p", "statement": "s", "tier": "embedded", "chapter": "c"}
    return Claim(**given | changes, paper=paper, rule=rule)


def test_every_cell_of_every_table_is_a_claim():
    tables = Counter(identity.split(".")[0] for identity in load() if identity.startswith("table"))
    # Tables 1 and 5: 2 x 3; 2: 18 layers; 3: 2 spaces x 3 ways x 4; 4: 2 x 13; 6: 2 x 5; 7: 8 layers.
    assert tables == {"table1": 6, "table5": 6, "table2": 18, "table3": 24, "table4": 26, "table6": 10, "table7": 8}


@pytest.mark.parametrize(
    ("identity", "paper"),
    [
        ("table4.random.(2,1)", 0.1546),
        ("table4.learned.(5,3)", 0.4046),
        ("table3.image.learned.3", 0.326),
        ("table3.activation.activations.4", 1.414),
        ("table2.c(4,3)", 12.6),
        ("table1.learned.3 layers", 89.3),
        ("table6.random.conv3", 0.0929),
        ("table7.pool1", 87.79),
    ],
)
def test_cells_stand_where_the_paper_has_them(identity, paper):
    assert load()[identity].paper == paper


def test_propositions_theorems_lemmas_and_figures_are_claims():
    named = {"proposition1", "theorem3.1", "corollary3.2", "theorem3.3", "lemmaA.1", "theoremA.2", "figure4"}
    named |= {f"lemmaB.{i}" for i in range(1, 5)} | {f"figure2.{p}" for p in "abc"} | {f"figure3.{p}" for p in "abc"}
    assert named <= set(load())


@pytest.mark.parametrize(
    ("rule", "value", "spread", "verdict"),
    [
        ({"interval": [0.1, 0.2]}, 0.2, None, "reproduced"),
        ({"interval": [0.1, 0.2]}, 0.21, None, "not reproduced"),
        ({"below": 0.5}, 0.5, None, "not reproduced"),
        ({"below": 0.5}, 0.49, None, "reproduced"),
        ({"within": 0.05}, 0.549, None, "reproduced"),
        ({"within": 0.05}, 0.44, None, "not reproduced"),
        # Half a unit of the last printed digit (0.05 for "0.5") is the paper's own rounding.
        ({"within_sd": 3.0}, 0.84, 0.1, "reproduced"),
        ({"within_sd": 3.0}, 0.86, 0.1, "not reproduced"),
        ("holds", True, None, "reproduced"),
        ("holds", False, None, "refuted"),
    ],
)
def test_rules(rule, value, spread, verdict):
    assert claim(rule).judge(value, spread) == verdict


def test_a_trend_without_its_number_is_shape_only():
    assert claim({"within": 0.1}).judge(2.0, shape=True) == "shape only"
    assert claim({"within": 0.1}).judge(0.5, shape=False) == "reproduced"


@pytest.mark.parametrize(("rule", "value"), [("holds", 1.0), ({"within": 0.1}, True)])
def test_a_value_that_the_rule_cannot_judge_is_refused(rule, value):
    with pytest.raises(ValueError, match="expected"):
        claim(rule).judge(value)


def test_a_rule_over_seeds_needs_a_standard_deviation():
    with pytest.raises(ValueError, match="standard deviation"):
        claim({"within_sd": 3.0}).judge(0.5, (0.4, 0.6))


def test_half_a_unit_of_the_last_printed_digit():
    assert half_unit(0.6701) == pytest.approx(5e-5)
    assert half_unit(66.5) == pytest.approx(0.05)


def test_an_unknown_claim_gets_a_hint():
    with pytest.raises(ValueError, match="did you mean.*table4.random"):
        find(load(), "table4.random.(2,2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rule = "hold"', "expected holds or"),
        ('rule = "holds"\ntier = "moon"', "tier='moon'"),
        ('rule = "holds"\ncolour = "red"', "colour"),
    ],
)
def test_a_malformed_claim_is_named(tmp_path, text, message):
    tier = "" if "tier" in text else '\ntier = "embedded"'
    entry = f'[[entry]]\nid = "odd"\nplace = "p"\nstatement = "s"\npaper = 1.0\nchapter = "c"\n{text}{tier}\n'
    (tmp_path / "claims.toml").write_text(entry)
    with pytest.raises(ValueError, match="odd") as error:
        load(tmp_path / "claims.toml")
    assert message in str(error.value)


def test_a_claim_given_twice_is_named(tmp_path):
    entry = (
        '[[entry]]\nid = "odd"\nplace = "p"\nstatement = "s"\npaper = 1.0\nchapter = "c"\n'
        'rule = "holds"\ntier = "embedded"\n'
    )
    (tmp_path / "claims.toml").write_text(entry * 2)
    with pytest.raises(ValueError, match="'odd' is given twice"):
        load(tmp_path / "claims.toml")


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (1.4321, 0.0123, "1.432 ± 0.012"),
        (0.98, (0.87, 1.123), "0.98, 0.87 to 1.123"),
        (False, (0.84, 1.1), "does not hold (0.84 to 1.1)"),
        (True, None, "holds"),
        (0.5, None, "0.5"),
    ],
)
def test_values_are_shown_with_their_spread(value, spread, shown):
    assert show_ours(value, spread) == shown
