"""The ledger joins claims and records, and its page shows every one of them."""

from __future__ import annotations

from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from invertnb.build import BuildError, pages
from invertnb.build.chapters import Chapter
from invertnb.build.execute import Execution
from invertnb.build.gather import collect
from invertnb.notebook import record
from invertnb.notebook.claims import load
from invertnb.notebook.ledger import MIME


def executed(*shown, name: str = "proposition_1") -> Execution:
    notebook = new_notebook(
        cells=[
            new_code_cell(outputs=[new_output("display_data", data=made._repr_mimebundle_())])
            for made in shown
        ]
    )
    notebook.metadata["invertnb"] = {
        "chapter": name,
        "fingerprint": "0123456789abcdef",
        "seconds": 1.5,
        "profile": "embedded",
        "parameters": {"seed": 0, "ks": [1, 2]},
        "versions": {"torch": "2"},
    }
    return Execution(Chapter(name, None), nbformat.from_dict(notebook))


@pytest.fixture
def claims():
    return {key: claim for key, claim in load().items() if key in ("proposition1", "table4.random.(2,1)", "theorem3.1")}


def made():
    first = record("proposition1", True)
    return first, record("table4.random.(2,1)", 0.16, 0.004, readings={"signed <b>": (0.155, 0.004)})


def test_rows_follow_the_paper_and_carry_how_they_were_made(claims):
    rows = collect([executed(*made())], claims)
    assert [row.claim.id for row in rows] == list(claims)
    table = {row.claim.id: row.as_json() for row in rows}
    assert table["proposition1"]["verdict"] == "reproduced"
    assert table["theorem3.1"]["verdict"] == "open" and table["theorem3.1"]["ours"] is None
    row = table["table4.random.(2,1)"]
    assert (row["ours"], row["spread"], row["seed"]) == (0.16, 0.004, 0)
    assert row["readings"][0]["verdict"] == "reproduced"
    assert row["link"] == "proposition_1.html#record-table4-random-2-1"


def test_a_claim_recorded_twice_or_elsewhere_is_refused(claims):
    first, second = made()
    with pytest.raises(BuildError, match="recorded twice"):
        collect([executed(first, first, second)], claims)
    with pytest.raises(BuildError, match="gives it to 'proposition_1'"):
        collect([executed(first, second, name="iht_as_layer")], claims)


def test_rules_that_are_newer_than_a_record_judge_it(claims):
    strict = replace(claims["table4.random.(2,1)"], rule={"within": 1e-4})
    rows = collect([executed(*made())], claims | {strict.id: strict})
    assert [row.verdict for row in rows if row.claim == strict] == ["not reproduced"]


def test_the_page_shows_every_claim_and_reading_escaped(claims):
    page = pages.ledger(collect([executed(*made())], claims))
    assert page.count("<code>") >= 3 and "## Section 3" in page and "## Table 4" in page
    assert "signed &lt;b&gt;" in page and "<b>" not in page
    assert "ks 1 2" in page and "0123456789" in page


def test_many_readings_of_a_claim_are_folded_and_counted(claims):
    def page(many: int) -> str:
        readings = {f"reading {i}": (0.155 + 0.1 * (i > 1), 0.004) for i in range(many)}
        shown = record("table4.random.(2,1)", 0.16, 0.004, readings=readings)
        return pages.ledger(collect([executed(made()[0], shown)], claims))

    few, more = page(pages.UNFOLDED), page(pages.UNFOLDED + 1)
    assert "readings:" not in few and few.count("<summary>") + 1 == more.count("<summary>")
    folded = more[more.index("6 readings:") : more.index("</summary>", more.index("6 readings:"))]
    assert "not reproduced</span> 4" in folded and "reproduced</span> 2" in folded
    assert all(f">reading {i}</th>" in more for i in range(6))


def test_prose_can_quote_values_readings_and_verdicts(claims):
    quoted = pages.substitutions(collect([executed(*made())], claims))
    assert quoted["ours"]["table4.random.(2,1)"] == "0.16 ± 0.004"
    assert quoted["ours"]["table4.random.(2,1)/signed <b>"] == "0.155 ± 0.004"
    assert quoted["spread"]["table4.random.(2,1)"] == "± 0.004"
    assert quoted["ours"]["theorem3.1"] == "not yet recorded"
    assert "refuted" not in quoted["verdict"]["proposition1"]
    assert quoted["cell"]["proposition1"] == '<a href="proposition_1.html#record-proposition1">the cell</a>'


def test_the_mime_type_is_what_the_build_looks_for():
    assert MIME in made()[0]._repr_mimebundle_()


def test_a_chapter_over_its_limit_is_marked():
    slow = executed()
    slow.notebook.metadata["invertnb"]["seconds"] = 31.0
    assert "31.0 (over)" in pages.status([slow])
    assert "(over)" not in pages.status([executed()])


@pytest.mark.parametrize("seconds, late", [(31.0, False), (61.0, True)])
def test_two_chapters_may_take_a_minute(seconds, late):
    slow = executed(name="inverting_vgg")
    slow.notebook.metadata["invertnb"]["seconds"] = seconds
    assert ("(over)" in pages.status([slow])) is late and "<td>60</td>" in pages.status([slow])
