"""The chapter on sparsity with a reader's own weights: which claims get which values, and when."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from invertnb import coherence, networks, notebook
from invertnb.chapters import sparsity as chapter
from invertnb.chapters.sparsity import explorers, figures, recordings, rows, verdicts
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


@pytest.fixture(scope="module", autouse=True)
def narrow_files_are_real():
    """So that small files can stand for real weights, and are read in this module anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.weights, "full_width", lambda chain, tensors: True)
        yield


@pytest.fixture(scope="module")
def folder(narrow_files_are_real, tmp_path_factory):
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
def entries(recording):
    """The recording as it comes back from a file."""
    about = {"date": "today", "device": "CPU", "versions": {"torch": "2"}, "seed": 0,
             "inputs": recording.inputs, "command": "invertnb run sparsity"}  # fmt: skip
    kept = json.loads(json.dumps(recording.results))
    return {recording.label: Recorded(recording.label, about, kept)}


@pytest.fixture(scope="module")
def stand_in(data, entries):
    """The same layers from a source that is not real, with the recording beside them."""
    live = dataclasses.replace(data.live, tier="embedded", real=False)
    return dataclasses.replace(data, live=live, recorded=recordings.real_network(entries))


def whole(measured):
    """With all convolutions of VGG-16, which repeat those that were measured."""
    layers = {name: measured.layers["conv(1,2)"] for name in networks.VGG16.convolutions}
    banks = {name: measured.banks["conv(1,2)"] for name in networks.VGG16.convolutions}
    return dataclasses.replace(measured, layers=layers, banks=banks)


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
        assert record.value == pytest.approx(float(percent.mean()), abs=0.051)
        assert record.spread == pytest.approx(float(percent.std()), abs=0.051)
        assert "narrow.npz" in record.note and "folder photographs, 2 images" in record.note
    assert len(found) == 12
    assert all(record.value is None and record.verdict == "needs weights" for record in found.values())


def test_real_coherences_in_the_stated_reading_with_the_others_beside(data, parameters):
    found = by_claim(verdicts.table4(data))
    network = networks.load("vgg16", parameters.weights)
    for name, after in zip(HERE, [*HERE[1:], None], strict=True):
        record = found[f"table4.learned.{name.removeprefix('conv')}"]
        weight = network.filters(name)[0]
        readings = {each.name: each.value for each in record.readings}
        assert record.value == pytest.approx(float(coherence(weight)), abs=6e-5)
        assert readings["signed"] == pytest.approx(float(coherence(weight, signed=True)), abs=6e-5)
        shifted = float(coherence(weight, shifts="all"))
        assert readings["absolute, all shifts"] == pytest.approx(shifted, abs=6e-4)
        assert ("signed, next layer" in readings) == (after is not None)
        if after:
            expected = float(coherence(network.filters(after)[0], signed=True))
            assert readings["signed, next layer"] == pytest.approx(expected, abs=6e-5)
    assert found["table4.learned.(3,1)"].value is None


def test_statements_about_all_layers_wait_for_all_layers(data, stand_in):
    for judge in (verdicts.pairs, verdicts.compressible):
        for given, name, kind in (
            (data, "real weights of blocks 1 and 2 (live)", "live: "),
            (stand_in, "real weights of blocks 1 and 2 (recorded)", "recorded: "),
        ):
            record = judge(given)
            readings = {each.name: each.value for each in record.readings}
            assert record.value is None and record.verdict == "needs weights"
            assert isinstance(readings[name], bool) and record.note.startswith(kind)
            assert (verdicts.STAND_IN in readings) == (given is stand_in)


def test_whole_real_networks_judge_statements_live_before_recorded(data, stand_in):
    recorded = (whole(data.live), "a line")
    first = dataclasses.replace(data, live=whole(data.live), recorded=recorded)
    second = dataclasses.replace(stand_in, recorded=recorded)
    for judge in (verdicts.pairs, verdicts.compressible):
        live, kept = judge(first), judge(second)
        assert isinstance(live.value, bool) and live.note.startswith("live: ")
        assert kept.value == live.value and kept.note.startswith("recorded: ")
        assert verdicts.STAND_IN in {each.name for each in kept.readings}
    assert "first layer only" in {each.name for each in verdicts.pairs(second).readings}


def test_a_layer_that_a_live_real_network_lacks_may_be_recorded(data, stand_in):
    live = dataclasses.replace(
        data.live, **{
            kind: {name: each for name, each in getattr(data.live, kind).items() if name < "conv(2"}
            for kind in ("layers", "banks")
        },
    )  # fmt: skip
    both = dataclasses.replace(stand_in, live=live)
    for table, here, there in (
        (verdicts.table2, "table2.c(1,2)", "table2.c(2,1)"),
        (verdicts.table4, "table4.learned.(1,2)", "table4.learned.(2,1)"),
    ):
        found = by_claim(table(both))
        assert found[here].note.startswith("live: ") and found[there].note.startswith("recorded: ")
        assert found[there].value is not None


def test_a_stand_in_is_a_reading_and_the_recorded_value_the_claims(stand_in, data):
    live, kept = by_claim(verdicts.table2(data)), by_claim(verdicts.table2(stand_in))
    record = kept["table2.c(1,2)"]
    assert record.value == pytest.approx(live["table2.c(1,2)"].value, abs=0.1)
    assert record.note.startswith("recorded: ") and "narrow.npz" in record.note
    assert "folder photographs, 2 images" in record.note
    assert [each.name for each in record.readings] == [verdicts.STAND_IN]
    name = verdicts.STAND_IN
    assert name in {each.name for each in by_claim(verdicts.table4(stand_in))["table4.learned.(1,1)"].readings}


def test_a_file_that_is_too_narrow_is_named_and_not_called_the_checkpoint(stand_in):
    live = dataclasses.replace(stand_in.live, tier="file", source="file x.npz, narrow")
    record = verdicts.table2(dataclasses.replace(stand_in, live=live, recorded=None))[0]
    assert record.value is None and [each.name for each in record.readings] == ["file x.npz, narrow"]


def test_without_real_weights_and_recordings_there_is_no_value(stand_in):
    bare = dataclasses.replace(stand_in, recorded=None)
    found = [*verdicts.table2(bare), *verdicts.table4(bare), *verdicts.table7(bare)]
    found += [verdicts.pairs(bare), verdicts.compressible(bare)]
    assert all(record.value is None and record.verdict == "needs weights" for record in found)
    assert {r.name for r in found[0].readings} == {verdicts.STAND_IN}


def test_random_alexnet_is_no_value_and_real_alexnet_is_live_or_recorded(data):
    assert all(record.value is None for record in verdicts.table7(data))
    assert all(record.value is None for record in verdicts.table6_learned(data))
    # As a reader's AlexNet would be: real, with its banks.
    banks = {name: data.live.banks["conv(1,2)"] for name in networks.ALEXNET.convolutions}
    real = dataclasses.replace(data.alexnet, banks=banks, tier="file", real=True)
    live = dataclasses.replace(data, alexnet=real)
    kept = dataclasses.replace(data, recorded_alexnet=(real, "a line"))
    for given, kind in ((live, "live: "), (kept, "recorded: ")):
        for record in verdicts.table7(given):
            assert record.value is not None and record.note.startswith(kind)
        for record in verdicts.table6_learned(given):
            expected = banks["conv(1,1)"].coherence("absolute")
            assert record.value == pytest.approx(expected, abs=6e-5)
            assert record.note.startswith(kind)


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
    assert recording.label == "vgg16-blocks12" and recording.results["real"]
    text = json.dumps([recording.inputs, recording.results])
    assert str(folder) not in text and "narrow.npz" in text and "photographs, 2 images" in text
    assert list(recording.results["layers"]) == [*HERE[:2], "pool(1)", *HERE[2:], "pool(2)"]
    assert "alexnet" not in recording.results


def test_the_embedded_network_is_recorded_as_itself_and_never_taken_for_a_real_one(entries):
    found = chapter.recording(chapter.Parameters(count=1, bank_draws=1, shifts=0))
    assert found.label == "vgg16-embedded" and not found.results["real"]
    assert "embedded checkpoint" in found.inputs["weights"]
    assert len(found.results["layers"]) == len(networks.VGG16.layers)
    kept = Recorded(found.label, next(iter(entries.values())).about, found.results)
    assert recordings.real_network({"a": kept}) is None
    best, _ = recordings.real_network({"a": kept, **entries})
    assert best.real and list(best.banks) == HERE


def alexnet_file(path):
    """Weights of a narrow AlexNet under torchvision's names."""
    generator, tensors, channels = torch.Generator().manual_seed(5), {}, 3
    for place, side, filters in ((0, 11, 4), (3, 5, 4), (6, 3, 5), (8, 3, 4), (10, 3, 4)):
        shape = filters, channels, side, side
        tensors[f"features.{place}.weight"] = torch.randn(shape, generator=generator)
        tensors[f"features.{place}.bias"] = torch.zeros(filters)
        channels = filters
    torch.save(tensors, path)
    return path


def test_a_readers_alexnet_is_recorded_and_read_back(parameters, entries, tmp_path):
    file = alexnet_file(tmp_path / "alexnet.pth")
    found = chapter.recording(dataclasses.replace(parameters, alexnet=str(file)))
    assert found.label == "vgg16-blocks12-alexnet" and "alexnet.pth" in found.inputs["alexnet"]
    assert str(tmp_path) not in json.dumps([found.inputs, found.results])
    kept = Recorded(
        found.label, next(iter(entries.values())).about, json.loads(json.dumps(found.results))
    )
    measured, _ = recordings.real_alexnet({"a": kept, **entries})
    assert list(measured.banks) == list(networks.ALEXNET.convolutions)
    assert len(measured.layers) == 8 and measured.real
    assert recordings.real_alexnet(entries) is None


def test_images_that_cannot_be_read_are_named_in_the_recording(parameters, tmp_path):
    for i in range(2):
        Image.fromarray(np.full((260, 260, 3), 90 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    given = dataclasses.replace(parameters, images=str(tmp_path), skip_corrupt=True)
    assert "without 1.png" in chapter.recording(given).inputs["images"]
    with pytest.raises(ValueError, match=r"1\.png"):
        chapter.recording(dataclasses.replace(given, skip_corrupt=False))


def test_random_rows_are_recorded_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(rows, "NETWORKS", SMALL_ROWS)
    found = chapter.recording(chapter.Parameters(draws=3, study="random rows"))
    assert found.label == "random-rows" and len(found.results) == 12
    assert all(0 <= each["odds"] <= 1 for each in found.results.values())
    assert found.inputs["draws"] == "3"


@pytest.mark.parametrize("name", ["weights", "alexnet", "images"])
def test_random_rows_refuse_what_they_would_not_use(parameters, name):
    given = chapter.Parameters(study="random rows", **{name: parameters.weights})
    with pytest.raises(ValueError, match=f"{name} = .*random rows use none"):
        chapter.recording(given)


def test_figures_and_explorers_of_a_partial_network(data, stand_in):
    for each in (data, stand_in):
        for figure in (chapter.draw(each), figures.draw_coherence(each)):
            assert figure.axes
    figures.draw_pooling(data.live.layers, data.random.layers, stand_in.recorded[0].layers)
    assert list(chapter.explorer(data).grid())
    maps = chapter.map_explorer(data)
    view = maps.render(layer="conv(2,2)", image=1)
    assert view.picture.shape == (48, 48) and view.picture.dtype == np.uint8


def test_maps_are_held_of_the_first_images_only(data, monkeypatch):
    monkeypatch.setattr(explorers, "PHOTOGRAPHS", 1)
    frames = list(chapter.map_explorer(data).grid())
    assert len(data.images) == 2 and len(frames) == len(data.network.layers)


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
    record = verdicts.compressible(one)
    assert record.value is None and not record.readings  # no window was measured
    figures.draw_pooling(one.live.layers, one.random.layers, {})
