"""Recorded results come back with their provenance, and are whole or not there."""

from __future__ import annotations

import json
import math

import pytest

from invertnb.notebook import Recording, load_recorded, record, recorded

ABOUT = {
    "date": "2026-11-27", "device": "CPU (toy, 1 threads)", "versions": {"torch": "2.0"}, "seed": 3,
    "parameters": {"seed": 3}, "command": "invertnb run toy --record", "seconds": 1.5,
}  # fmt: skip


@pytest.fixture
def book(tmp_path, monkeypatch):
    (tmp_path / "book" / "recorded").mkdir(parents=True)
    monkeypatch.setattr(recorded, "root", lambda: tmp_path)
    return tmp_path / "book" / "recorded"


def test_what_was_written_is_read_back_with_its_provenance(book):
    results = {"rows": [[1, 2.5e-3], [-3, 4]], "names": ["a", "b"], "empty": []}
    recording = Recording("blocks-12", {"weights": "file x.npz, SHA-256 ab"}, results)
    path = recorded.write_recorded("toy", recording, ABOUT, book)
    assert path.name == "toy-blocks-12.json" and "[1, 0.0025]" in path.read_text()
    (found,) = load_recorded("toy").values()
    assert found.label == "blocks-12" and found.results == results
    for part in ("2026-11-27", "CPU (toy", "torch 2.0", "seed 3", "weights: file x.npz", "invertnb run toy"):
        assert part in found.provenance
    assert load_recorded("to") == {}


@pytest.mark.parametrize("results", [{"x": math.nan}, {"x": math.inf}, {"x": object()}])
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(book, results):
    with pytest.raises(ValueError):
        recorded.write_recorded("toy", Recording("x", {}, results), ABOUT, book)
    assert not list(book.iterdir())


@pytest.mark.parametrize("label", ["", "../x", "Blocks", "a b", "-a"])
def test_a_label_is_a_slug(book, label):
    with pytest.raises(ValueError, match="expected small letters, digits and hyphens"):
        recorded.write_recorded("toy", Recording(label, {}, {}), ABOUT, book)


def test_a_file_without_provenance_is_refused(book):
    (book / "toy-x.json").write_text("{")
    with pytest.raises(ValueError, match="toy-x.json: expected JSON"):
        load_recorded("toy")
    (book / "toy-x.json").write_text(json.dumps({"results": {}}))
    with pytest.raises(ValueError, match="toy-x.json: expected an object of about and results"):
        load_recorded("toy")
    less = {key: each for key, each in (ABOUT | {"inputs": {}}).items() if key != "device"}
    (book / "toy-x.json").write_text(json.dumps({"about": less, "results": {}}))
    with pytest.raises(ValueError, match="expected provenance, but device is missing"):
        load_recorded("toy")


def test_a_claim_without_weights_of_its_tier_keeps_its_verdict_and_shows_what_ran_instead():
    shown = record("table2.c(5,1)", None, readings={"embedded": 24.0, "random": (50.0, 1.0)})
    assert shown.value is None and shown.verdict == "needs weights"
    assert [reading.verdict for reading in shown.readings] == ["reproduced", "not reproduced"]
    text = shown._repr_mimebundle_()
    assert "ours –" in text["text/plain"] and "needs weights" in text["text/html"]
