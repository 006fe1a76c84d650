"""The chapter on sparsity with a reader's own weights: which claims get which values, and when."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from invertnb import coherence, networks, notebook
from invertnb.chapters import sparsity as chapter
from invertnb.chapters.sparsity import explorers, figures, rows, verdicts
from invertnb.notebook import Recorded

FILTERS = (4, 5, 6, 7)  # of the four convolutions of blocks 1 and 2
SMALL_ROWS = {
    network: {layer: rows.Size(4, 2, 3, size.groups) for layer, size in sizes.items()}
    for network, sizes in rows.NETWORKS.items()
}
TABLES = {
    "table2": verdicts.table2, "table7": verdicts.table7, "table4.learned": verdicts.table4,
    "table6.learned": verdicts.table6_learned, "table6.random": verdicts.table6_random,
}  # fmt: skip
HERE = [f"conv({i},{j})" for i in (1, 2) for j in (1, 2)]


def caffe_file(path, many=len(FILTERS)):
    """A file with Caffe's names: the first convolutions of a narrow VGG-16."""
    generator, arrays, channels = torch.Generator().manual_seed(3), {}, 3
    for layer, filters in list(zip(("1_1", "1_2", "2_1", "2_2"), FILTERS, strict=True))[:many]:
        weight = torch.randn(filters, channels, 3, 3, generator=generator)
        arrays[f"conv{layer}.weight"] = weight.numpy()
        arrays[f"conv{layer}.bias"] = torch.randn(filters, generator=generator).numpy()
        channels = filters
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images and the file of weights."""
    root = tmp_path_factory.mktemp("reader")
    (root / "photographs").mkdir()
    generator = torch.Generator().manual_seed(4)
    for i in range(3):
        pixels = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((260, 260)).save(root / "photographs" / f"{i}.png")
    caffe_file(root / "narrow.npz")
    return root


@pytest.fixture(scope="module")
def parameters(folder):
    return chapter.Parameters(
        weights=str(folder / "narrow.npz"), images=str(folder / "photographs"), count=2, draws=3,
        bank_draws=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(parameters):
    """With a reader's weights, and nothing recorded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chapter, "load_recorded", lambda name: {})
        patch.setattr(rows, "NETWORKS", SMALL_ROWS)
        return chapter.compute(parameters)


@pytest.fixture(scope="module")
def recording(parameters):
    return chapter.recording(parameters)


@pytest.fixture(scope="module")
def stand_in(data, recording):
    """The same layers from a source that is not real, with the recording beside them."""
    about = {"date": "today", "device": "CPU", "versions": {"torch": "2"}, "seed": 0,
             "inputs": recording.inputs, "command": "invertnb run sparsity"}  # fmt: skip
    kept = json.loads(json.dumps(recording.results))
    entries = {recording.label: Recorded(recording.label, about, kept)}
    source = dataclasses.replace(data.source, tier="embedded")
    return dataclasses.replace(
        data, source=source, recorded=chapter._recorded_network(entries)
    )


def by_claim(records):
    return {record.claim.id: record for record in records}


def test_every_claim_of_the_chapter_is_recorded_once(data):
    found = [record.claim.id for table in TABLES.values() for record in table(data)]
    found += [verdicts.pairs(data).claim.id, verdicts.compressible(data).claim.id]
    claims = notebook.claims.load().values()
    assert sorted(found) == sorted(c.id for c in claims if c.chapter == "sparsity")


def test_real_weights_give_the_values_of_the_layers_that_they_have(data, parameters):
    found = by_claim(verdicts.table2(data))
    network = networks.load("vgg16", parameters.weights)
    pixels = networks.open_images(parameters.images).first(2).all()
    names = networks.VGG16.published
    for name, h in network.activations(pixels).items():
        record = found.pop(f"table2.{names[name]}")
        percent = 100 * (h > 0).double().flatten(1).mean(1)
        assert record.value == pytest.approx(float(percent.mean()), rel=1e-5)
        assert record.spread == pytest.approx(float(percent.std()), rel=1e-4)
    assert len(found) == 12
    assert all(record.value is None and record.verdict == "needs weights" for record in found.values())


def test_real_coherences_in_the_stated_reading_with_the_others_beside(data, parameters):
    found = by_claim(verdicts.table4(data))
    network = networks.load("vgg16", parameters.weights)
    for name, after in zip(HERE, [*HERE[1:], None], strict=True):
        record = found[f"table4.learned.{name.removeprefix('conv')}"]
        weight = network.filters(name)[0]
        readings = {each.name: each.value for each in record.readings}
        assert record.value == pytest.approx(float(coherence(weight)), abs=1e-5)
        assert readings["signed"] == pytest.approx(float(coherence(weight, signed=True)), abs=1e-5)
        shifted = float(coherence(weight, shifts="all"))
        assert readings["absolute, all shifts"] == pytest.approx(shifted, abs=1e-5)
        assert ("signed, next layer" in readings) == (after is not None)
        if after:
            expected = float(coherence(network.filters(after)[0], signed=True))
            assert readings["signed, next layer"] == pytest.approx(expected, abs=1e-5)
    assert found["table4.learned.(3,1)"].value is None


def test_statements_are_judged_on_real_weights(data):
    for record in (verdicts.pairs(data), verdicts.compressible(data)):
        assert isinstance(record.value, bool)
        assert verdicts.STAND_IN not in {each.name for each in record.readings}


def test_a_stand_in_is_a_reading_and_the_recorded_value_the_claims(stand_in, data):
    live, kept = by_claim(verdicts.table2(data)), by_claim(verdicts.table2(stand_in))
    record = kept["table2.c(1,2)"]
    assert record.value == pytest.approx(live["table2.c(1,2)"].value, rel=1e-4)
    assert record.note.startswith("recorded: ")
    assert [each.name for each in record.readings] == [verdicts.STAND_IN]
    assert verdicts.pairs(stand_in).note.startswith("recorded: ")
    name = verdicts.STAND_IN
    assert name in {each.name for each in by_claim(verdicts.table4(stand_in))["table4.learned.(1,1)"].readings}


def test_without_real_weights_and_recordings_there_is_no_value(stand_in):
    bare = dataclasses.replace(stand_in, recorded=None)
    found = [*verdicts.table2(bare), *verdicts.table4(bare), *verdicts.table7(bare)]
    found += [verdicts.pairs(bare), verdicts.compressible(bare)]
    assert all(record.value is None and record.verdict == "needs weights" for record in found)
    assert {r.name for r in found[0].readings} == {verdicts.STAND_IN}


def test_random_alexnet_is_no_value_and_real_alexnet_is(data):
    assert all(record.value is None for record in verdicts.table7(data))
    assert all(record.value is None for record in verdicts.table6_learned(data))
    # As a reader's AlexNet would be: real, with its banks.
    measured, _ = data.alexnet
    banks = {name: data.live.banks["conv(1,2)"] for name in networks.ALEXNET.convolutions}
    real = dataclasses.replace(data, alexnet=(dataclasses.replace(measured, banks=banks), True))
    for record in verdicts.table7(real):
        assert record.value is not None and not record.readings
    for record in verdicts.table6_learned(real):
        assert record.value == pytest.approx(banks["conv(1,1)"].coherence("absolute"), abs=1e-5)


def test_the_stated_reading_of_the_random_row_is_its_value(data):
    record = verdicts.table6_random(data)[0]
    samples = data.rows["absolute, AlexNet of 2012, in groups, in place"].samples["conv1"]
    assert record.value == pytest.approx(float(samples.mean()), rel=1e-5)
    assert record.spread == pytest.approx(float(samples.std()), rel=1e-5)
    assert [each.name for each in record.readings] == [
        "signed, in groups, in place", "absolute, all with all, in place",
        "signed, all with all, in place",
    ]  # fmt: skip


def test_a_recording_names_its_inputs_without_their_folders(recording, folder):
    assert recording.label == "vgg16-blocks12"
    text = json.dumps([recording.inputs, recording.results])
    assert str(folder) not in text and "narrow.npz" in text and "the first 2 of folder" in text
    assert list(recording.results["layers"]) == [*HERE[:2], "pool(1)", *HERE[2:], "pool(2)"]


def test_without_weights_the_random_rows_are_recorded(monkeypatch):
    monkeypatch.setattr(rows, "NETWORKS", SMALL_ROWS)
    found = chapter.recording(chapter.Parameters(draws=3))
    assert found.label == "random-rows" and len(found.results) == 12
    assert all(0 <= each["odds"] <= 1 for each in found.results.values())
    assert found.inputs["draws"] == "3"


def test_figures_and_explorers_of_a_partial_network(data, stand_in):
    for each in (data, stand_in):
        for figure in (chapter.draw(each), figures.draw_coherence(each)):
            assert figure.axes
    figures.draw_pooling(data.live.layers, data.random.layers, stand_in.recorded[0].layers)
    assert list(chapter.explorer(data).grid())
    maps = chapter.map_explorer(data)
    view = maps.render(layer="conv(2,2)", image=1)
    assert view.picture.shape == (48, 48) and view.picture.dtype == np.uint8


def test_the_explorer_names_the_nearest_partners(data):
    weight = data.network.filters("conv(1,1)")[0].flatten(1)
    unit = weight / weight.norm(dim=1, keepdim=True)
    products = unit @ unit[0]
    view = explorers.explorer(data).render(layer="conv(1,1)", filter=0)
    minus = int(products[1:].argmin()) + 1
    assert view.values["nearest - partner"].startswith(f"filter {minus}, cosine {products[minus]:.2f}")


def test_a_file_with_one_convolution_is_enough(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(chapter, "load_recorded", lambda name: {})
    monkeypatch.setattr(rows, "NETWORKS", SMALL_ROWS)
    one = chapter.compute(
        chapter.Parameters(
            weights=str(caffe_file(tmp_path / "one.npz", 1)), images=str(folder / "photographs"),
            count=1, draws=3, bank_draws=1,
        )
    )  # fmt: skip
    values = {record.claim.id: record.value for record in verdicts.table2(one)}
    assert [name for name, value in values.items() if value is not None] == ["table2.c(1,1)"]
    assert verdicts.compressible(one).value is None  # no window was measured
    figures.draw_pooling(one.live.layers, one.random.layers, {})
