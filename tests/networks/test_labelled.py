"""Labelled images: CIFAR-10 in both of its layouts, and the digits in its place."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from invertnb.networks import Labelled, labelled, open_labelled
from invertnb.networks.train import images

NAMES = labelled.CLASSES
PER_CLASS = {"train": 3, "test": 2}


def pixels(which: str, c: int, i: int) -> np.ndarray:
    """An image (32, 32, 3) that tells its place: set and class, number, and where each pixel is."""
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[..., 0] = 10 * c + (which == "test")
    image[..., 1] = np.arange(32)[:, None] + 100 * i
    image[..., 2] = np.arange(32)
    return image


def write_tree(root, names=NAMES) -> None:
    for which, many in PER_CLASS.items():
        for c, name in enumerate(names):
            (root / which / name).mkdir(parents=True)
            for i in range(many):
                Image.fromarray(pixels(which, c, i)).save(root / which / name / f"{i:05}.png")


def write_batches(folder, monkeypatch) -> None:
    """The same images, class after class, as torchvision's pickled files with their MD5."""
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(which: str, items: list) -> dict:
        data = np.stack([pixels(which, *item).transpose(2, 0, 1).reshape(-1) for item in items])
        return {"data": data, "labels": [c for c, _ in items]}

    every = {which: [(c, i) for c in range(10) for i in range(n)] for which, n in PER_CLASS.items()}
    train = [
        [f"data_batch_{k + 1}", write(f"data_batch_{k + 1}", batch("train", every["train"][6 * k : 6 * k + 6]))]
        for k in range(5)
    ]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    test = [["test_batch", write("test_batch", batch("test", every["test"]))]]
    monkeypatch.setattr(CIFAR10, "test_list", test)
    md5 = write("batches.meta", {"label_names": list(NAMES)})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5})


@pytest.fixture
def tree(tmp_path, monkeypatch):
    write_tree(tmp_path / "data" / "cifar10")
    monkeypatch.setenv("INVERTNB_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "cifar10"


@pytest.fixture
def batches(tmp_path, monkeypatch):
    write_batches(tmp_path / "pickled" / "cifar-10-batches-py", monkeypatch)
    return tmp_path / "pickled"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """torchvision's archive of the small files, to be fetched into an empty INVERTNB_DATA."""
    write_batches(tmp_path / "made" / "cifar-10-batches-py", monkeypatch)
    packed = tmp_path / "made" / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as out:
        out.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", packed.as_uri())
    monkeypatch.setattr(labelled, "ARCHIVE", hashlib.sha256(packed.read_bytes()).hexdigest())
    monkeypatch.setenv("INVERTNB_DATA", str(tmp_path / "empty"))
    return packed


@pytest.fixture
def kept(archive, tmp_path):
    """Where a download is kept."""
    return tmp_path / "empty" / "cifar10"


def test_both_layouts_give_the_same_images(tree, batches):
    one, two = open_labelled("cifar10"), open_labelled(batches)
    assert one.classes == two.classes == NAMES and one.real and two.real
    assert one.label == "CIFAR-10 (image tree), 30 training and 20 test images"
    assert two.what == "CIFAR-10 (torchvision's files)"
    for each in (one, two):
        assert each.train_labels.tolist() == [c for c in range(10) for _ in range(3)]
        for which, many in PER_CLASS.items():
            expected = np.stack([pixels(which, c, i) for c in range(10) for i in range(many)])
            found = getattr(each, which)
            assert found.dtype == torch.uint8
            assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)
    assert one.sha256 == two.sha256
    moved = one.train.clone()
    moved[0, 0, 0, 0] += 1
    assert dataclasses.replace(one, train=moved).sha256 != one.sha256
    swapped = one.train_labels.flip(0)
    assert dataclasses.replace(one, train_labels=swapped).sha256 != one.sha256
    assert torch.equal(images(batches)["test"], one.test)


def test_the_digits_are_bytes_and_tested_on_the_last_of_each_class(monkeypatch):
    monkeypatch.delenv("INVERTNB_DATA", raising=False)
    digits, found = open_labelled(), load_digits()
    assert digits.name == "digits" and not digits.real and "in place of CIFAR-10" in digits.label
    assert digits.train.shape == (1442, 1, 8, 8) and digits.test.shape == (355, 1, 8, 8)
    for c in range(10):
        own = torch.from_numpy(found.images[found.target == c])
        tested = len(own) // 5
        both = torch.cat([digits.train[digits.train_labels == c], digits.test[digits.test_labels == c]])
        assert int((digits.test_labels == c).sum()) == tested
        torch.testing.assert_close(both[:, 0].double(), own * 255 / 16, atol=0.5, rtol=0)


def test_auto_is_cifar10_where_there_is_one_and_never_in_silence(tree, tmp_path, monkeypatch, refuses):
    assert open_labelled().name == "cifar10"
    (tree / "train" / "cat" / "00001.png").write_bytes(b"broken")
    refuses(open_labelled, "train/cat/00001.png", "can be read")
    monkeypatch.setenv("INVERTNB_DATA", str(tmp_path))
    assert open_labelled().name == "digits"
    refuses(lambda: open_labelled("cifar10"), "INVERTNB_DATA", "cifar-10-batches-py", "{train,test}/<class>")


def test_of_a_tree_only_so_many_files_are_read(tree, batches):
    for path in tree.glob("*/*/00002.png"):
        path.write_bytes(b"never opened")
    some = open_labelled(tree, limit=(20, 10))
    assert some.train_labels.bincount().tolist() == [2] * 10 and len(some.test) == 10
    assert some.sha256 == open_labelled(batches, limit=(20, 10)).sha256
    assert open_labelled(tree, limit=13).train_labels.bincount().tolist() == [2] * 3 + [1] * 7
    assert open_labelled("digits", limit=5000).train.shape[0] == 1442


def test_what_is_wrong_with_a_tree_is_named(tree, tmp_path, refuses):
    def wrong(*parts: str) -> None:
        refuses(lambda: open_labelled("cifar10"), *parts)

    cat = tree / "test" / "cat"
    Image.new("RGB", (40, 30)).save(cat / "00000.png")
    wrong("test/cat/00000.png", "32 x 32 pixels, but found 40 x 30")
    Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(cat / "00000.png")
    wrong("test/cat/00000.png", "8 bits a channel")
    whole = (tree / "test" / "dog" / "00000.png").read_bytes()
    (cat / "00000.png").write_bytes(whole[:-40])
    wrong("test/cat/00000.png", "can be read")
    for path in cat.iterdir():
        path.unlink()
    wrong("folder = 'test/cat'", "images (.jpg")
    cat.rename(tree / "test" / "lion")
    wrong("the same classes", "cat, lion")
    (tree / "test").rename(tree / "tests")
    wrong("cifar-10-batches-py", "test is missing")
    with pytest.raises(FileNotFoundError, match="expected auto, cifar10, torchvision, digits or"):
        open_labelled(tmp_path / "nowhere")


def test_other_classes_are_no_cifar10(tmp_path, monkeypatch, refuses):
    write_tree(tmp_path / "cifar10", ("cats", "dogs"))
    other = open_labelled(tmp_path / "cifar10")
    assert other.name == "folder" and not other.real and other.classes == ("cats", "dogs")
    monkeypatch.setenv("INVERTNB_DATA", str(tmp_path))
    refuses(lambda: open_labelled("cifar10"), "classes", "airplane, automobile")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_of_torchvisions_is_named(batches, refuses, name):
    path = batches / "cifar-10-batches-py" / name
    path.write_bytes(path.read_bytes()[:-1])
    refuses(lambda: open_labelled(batches), f"cifar-10-batches-py/{name}", "MD5")
    path.unlink()
    refuses(lambda: open_labelled(batches), f"cifar-10-batches-py/{name}", "MD5")


def test_a_download_is_unpacked_and_used_again(archive, kept):
    first = open_labelled("torchvision")
    assert first.train.shape == (30, 3, 32, 32) and first.real
    archive.unlink()
    assert open_labelled("torchvision").sha256 == open_labelled("auto").sha256 == first.sha256
    assert sorted(path.name for path in kept.iterdir()) == ["cifar-10-batches-py", archive.name]


def test_without_a_data_folder_the_download_goes_to_torchs_cache(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("INVERTNB_DATA")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    assert open_labelled("torchvision").real
    assert (tmp_path / "cache" / "cifar10" / "cifar-10-batches-py").is_dir()


def test_a_download_of_another_sha256_leaves_nothing_and_is_tried_again(archive, kept):
    whole = archive.read_bytes()
    # As long, and the same to gzip, which does not look at the time in bytes 4 to 7.
    archive.write_bytes(whole[:4] + bytes(255 - byte for byte in whole[4:8]) + whole[8:])
    with pytest.raises(OSError, match=r"cifar-10-python.tar.gz: expected SHA-256 \w{64}"):
        open_labelled("torchvision")
    assert list(kept.iterdir()) == []
    archive.unlink()
    with pytest.raises(OSError, match=r"cifar-10-python.tar.gz: expected a file"):
        open_labelled("torchvision")
    archive.write_bytes(whole)
    assert len(open_labelled("torchvision").train) == 30


def test_an_interrupted_unpacking_leaves_no_half_a_folder(archive, kept, monkeypatch):
    def interrupted(self, path, **_):
        (labelled.Path(path) / "cifar-10-batches-py").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_labelled("torchvision")
    assert [path.name for path in kept.iterdir()] == [archive.name]
    assert len(open_labelled("torchvision").train) == 30


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(labels=(0, 0, 0, 1, 1, 1, 1, 2, 2)) -> Labelled:
    """Images of one pixel that hold their own place."""
    ids = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Labelled("toy", "toys", ("a", "b", "c"), ids, torch.tensor(labels), ids, torch.tensor(labels))


def test_a_subset_is_even_nested_and_drawn_with_the_generator():
    whole = toy()
    # Of 3, 4 and 2 images seven are, as even as can be, 3, 2 and 2 or 2, 3 and 2.
    some = whole.first(7, generator=seeded(0))
    assert some.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert len(some.test) == 9 and some.classes == whole.classes
    places = some.train.flatten().tolist()
    assert [whole.train_labels[place].item() for place in places] == some.train_labels.tolist()
    assert len(set(places)) == 7
    assert whole.first(4, generator=seeded(0)).train.flatten().tolist() == places[:4]
    draws = {tuple(whole.first(3, generator=seeded(s)).train.flatten().tolist()) for s in range(40)}
    assert {place for draw in draws for place in draw} == set(range(9))
    both = whole.first(4, 3, generator=seeded(0))
    assert both.test_labels.tolist() == [0, 1, 2]
    assert torch.equal(both.test, whole.first(8, 3, generator=seeded(0)).test)


def test_training_and_validation_share_no_image():
    data = open_labelled("digits")
    train, validation = data.split(200, seeded(1))
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(1442))
    assert data.train_labels[validation].bincount().tolist() == [20] * 10
    again = data.split(200, seeded(1))[1]
    assert torch.equal(validation, again) and not torch.equal(validation, data.split(200, seeded(2))[1])


def test_bad_requests_are_refused(refuses):
    refuses(lambda: toy().first(2, generator=seeded(0)), "train = 2", "from 3 to 9")
    refuses(lambda: toy().first(3, 10, generator=seeded(0)), "test = 10", "from 3 to 9")
    refuses(lambda: toy().first(3, generator=0), "generator")
    refuses(lambda: toy().split(7, seeded(0)), "validation = 7", "from 3 to 6")
    refuses(lambda: open_labelled("digits", limit=0), "limit = 0")
    refuses(lambda: open_labelled("digits", limit=(1, 2, 3)), "limit", "a pair")
    refuses(lambda: open_labelled("digits", limit=9), "train = '9 images'", "none is 9")
    refuses(lambda: toy((0, 1, 1)), "none is c")
    refuses(lambda: toy((0, 1, 2, 3)), "train_labels = (0, 3)", "3 classes")
    whole = toy()
    refuses(lambda: dataclasses.replace(whole, train=whole.train.float()), "train", "uint8")
    refuses(lambda: dataclasses.replace(whole, test=whole.test.expand(-1, 3, 1, 1)), "test", "as in train")
    refuses(lambda: dataclasses.replace(whole, test_labels=whole.test_labels[:-1]), "test_labels", "9 labels")
