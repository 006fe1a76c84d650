"""Images by tier, streamed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from invertnb import networks


def picture(path, size=(40, 30), seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["cats/b.png", "cats/d.png", "dogs/a.png", "dogs/c.png"]):
        picture(tmp_path / "data" / name, seed=i)
    (tmp_path / "data" / "notes.txt").write_text("not an image")
    return tmp_path / "data"


def test_the_embedded_photographs_are_there():
    images = networks.open_images()
    assert len(images) == 10 and images.tier == "embedded"
    pixels = images.all()
    assert pixels.shape == (10, 3, 224, 224) and pixels.dtype == torch.float32
    assert pixels.min() >= 0 and pixels.max() <= 1
    gray = [(image[0] == image[1]).all() and (image[1] == image[2]).all() for image in pixels]
    assert [name for name, flat in zip(images.names, gray, strict=True) if flat] == ["camera", "grass", "gravel"]


def test_a_folder_is_read_in_the_order_of_its_file_names_in_batches(folder):
    images = networks.open_images(folder, side=16, resize=20)
    assert images.names == ("a", "b", "c", "d") and images.tier == "folder"
    batches = list(images.batches(3))
    assert [names for names, _ in batches] == [["a", "b", "c"], ["d"]]
    assert [tuple(pixels.shape) for _, pixels in batches] == [(3, 3, 16, 16), (1, 3, 16, 16)]
    assert len(images.first(2)) == 2 and images.first(2).label == "folder data, 2 images"


def test_an_image_is_scaled_and_cropped_in_the_middle(tmp_path):
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = (255, 0, 51)
    tmp_path.joinpath("flat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "flat" / "x.png")
    (image,) = networks.open_images(tmp_path / "flat", side=16, resize=20).all()
    expected = torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1).expand(3, 16, 16)
    torch.testing.assert_close(image, expected)


def test_the_layout_of_ilsvrc_is_recognized(tmp_path):
    for i in (2, 1):
        picture(tmp_path / "val" / f"n0{i}" / f"ILSVRC2012_val_0000000{3 - i}.png", seed=i)
    picture(tmp_path / "train" / "n01" / "n01_1.png")
    images = networks.open_images(tmp_path, side=16, resize=16)
    assert images.tier == "ilsvrc" and images.names == ("ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002")


def test_the_variable_names_a_folder(folder, monkeypatch, refuses):
    monkeypatch.setenv("INVERTNB_DATA", str(folder))
    assert len(networks.open_images("folder")) == 4
    monkeypatch.delenv("INVERTNB_DATA")
    refuses(lambda: networks.open_images("folder"), "INVERTNB_DATA")


def test_a_corrupt_image_is_named_and_skipped_only_on_request(folder, refuses):
    (folder / "cats" / "b.png").write_bytes((folder / "cats" / "b.png").read_bytes()[:200])
    refuses(lambda: list(networks.open_images(folder, side=16, resize=20).batches(2)), "b.png", "can be read")
    images = networks.open_images(folder, side=16, resize=20, skip_corrupt=True)
    assert [names for names, _ in images.batches(2)] == [["a", "c"], ["d"]]
    assert len(images.all()) == 3  # a second time
    assert images.skipped == ["b.png"]
    for path in folder.rglob("*.png"):
        path.write_bytes(b"broken")
    refuses(
        lambda: list(networks.open_images(folder, skip_corrupt=True).batches(2)), "one image at least"
    )


def test_an_image_of_16_bits_is_refused(tmp_path, refuses):
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16)).save(tmp_path / "deep" / "x.png")
    images = networks.open_images(tmp_path / "deep", side=16, resize=20)
    refuses(images.all, "x.png", "8 bits a channel")


def test_which_images_they_are_shows_in_the_digest(folder):
    before = networks.open_images(folder).sha256
    assert before == networks.open_images(folder).sha256
    picture(folder / "cats" / "b.png", seed=9)
    assert before != networks.open_images(folder).sha256


def test_bad_requests_are_refused(tmp_path, refuses):
    refuses(lambda: networks.open_images(tmp_path), "images", "a folder with images")
    with pytest.raises(FileNotFoundError, match="expected embedded, folder or a folder's path"):
        networks.open_images(tmp_path / "nowhere")
    refuses(lambda: networks.open_images(side=0), "side")
    refuses(lambda: networks.open_images(side=300), "resize")
    refuses(lambda: networks.open_images().first(11), "count")
    refuses(lambda: list(networks.open_images().batches(0)), "size")
