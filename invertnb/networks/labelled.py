"""Images with one class each: CIFAR-10, or the digits of scikit-learn in its place."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from invertnb import check
from invertnb.networks.download import fetch
from invertnb.networks.images import SUFFIXES, UNREADABLE, VARIABLE

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE = 32  # of CIFAR-10, in pixels
SETS = ("train", "test")
# torchvision itself checks MD5 only. This is the SHA-256 of cifar-10-python.tar.gz.
ARCHIVE = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
LAYOUT = f"{{train,test}}/<class>/*.png or {CIFAR10.base_folder}"

Limits = tuple[int | None, int | None]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with one class each, in a training and a test set.

    Attributes:
        name: "cifar10", "digits" or, for a tree with other classes, "folder".
        what: a few words for a reader.
        classes: their names; a label is a place in this tuple.
        train, test: uint8 (N, C, H, W).
        train_labels, test_labels: int64 (N,).

    Raises:
        ValueError: shapes, dtypes or labels that do not fit, or a class without images.
    """

    name: str
    what: str
    classes: tuple[str, ...]
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def __post_init__(self) -> None:
        for which in SETS:
            pixels, labels = getattr(self, which), getattr(self, f"{which}_labels")
            if pixels.dtype != torch.uint8 or pixels.dim() != 4:
                check.fail(which, pixels, "a uint8 tensor of shape (N, C, H, W)")
            if pixels.shape[1:] != self.train.shape[1:]:
                check.fail(which, pixels, f"images {tuple(self.train.shape[1:])} as in train")
            if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
                check.fail(f"{which}_labels", labels, f"an int64 tensor of {len(pixels)} labels")
            counts = torch.zeros(len(self.classes), dtype=torch.int64)
            if len(labels):
                if labels.min() < 0 or labels.max() >= len(self.classes):
                    span = (int(labels.min()), int(labels.max()))
                    check.fail(f"{which}_labels", span, f"labels of {len(self.classes)} classes")
                counts = labels.cpu().bincount(minlength=len(self.classes))
            if not counts.all():
                empty = self.classes[int(counts.argmin())]
                check.fail(which, f"{len(pixels)} images", f"some of every class, none is {empty}")

    @property
    def real(self) -> bool:
        """Whether these are images of CIFAR-10, the paper's data; `label` says how many."""
        return self.name == "cifar10"

    @property
    def label(self) -> str:
        """A line for a reader, with the numbers of images."""
        return f"{self.what}, {len(self.train):,} training and {len(self.test):,} test images"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shapes, pixels and labels: which images these are, and in which order."""
        whole = hashlib.sha256()
        for tensor in (self.train, self.train_labels, self.test, self.test_labels):
            whole.update(str(tuple(tensor.shape)).encode())
            whole.update(np.ascontiguousarray(tensor.cpu().numpy()))
        return whole.hexdigest()

    def first(self, train: int, test: int | None = None, *, generator: torch.Generator) -> Labelled:
        """A random subset, as even over the classes as these allow.

        Classes alternate in it, so that every beginning is as even. A generator in the same state
        gives nested subsets for growing `train`. None keeps the test set as it is.

        Raises:
            ValueError: fewer images than classes, or more than there are.
        """
        check.integer("train", train, len(self.classes), len(self.train))
        check.generator("generator", generator)
        # Both orders are drawn in any case: one set does not depend on the other's size.
        some, others = (
            evenly(labels, generator) for labels in (self.train_labels, self.test_labels)
        )
        some = some[:train]
        chosen = replace(self, train=self.train[some], train_labels=self.train_labels[some])
        if test is None:
            return chosen
        check.integer("test", test, len(self.classes), len(self.test))
        others = others[:test]
        return replace(chosen, test=self.test[others], test_labels=self.test_labels[others])

    def split(self, validation: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices of the training set for training and for validation, int64, each ascending.

        The two are disjoint and together the whole training set; validation has `validation`
        images at random, as even over the classes as these allow.

        Raises:
            ValueError: fewer images than classes in one of them.
        """
        least = len(self.classes)
        check.integer("validation", validation, least, len(self.train) - least)
        order = evenly(self.train_labels, check.generator("generator", generator))
        return order[validation:].sort().values, order[:validation].sort().values


def evenly(labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """An order (N,) of the images in which the classes alternate for as long as they last.

    Within its class an image has a random place, or its own without a generator.
    """
    labels = labels.cpu()
    place = torch.arange(len(labels))
    if generator is not None:
        place = torch.randperm(len(labels), generator=generator)
    grouped = place[labels[place].argsort(stable=True)]  # class after class
    counts = labels.bincount()
    begin = counts.cumsum(0) - counts
    rank = torch.arange(len(labels)) - begin[labels[grouped]]
    return grouped[rank.argsort(stable=True)]


def cifar10_folder() -> Path | None:
    """The folder `cifar10` under INVERTNB_DATA, if there is one."""
    given = os.environ.get(VARIABLE)
    folder = Path(given) / "cifar10" if given else None
    return folder if folder and folder.is_dir() else None


def open_labelled(
    source: str | Path = "auto", *, limit: int | tuple[int, int] | None = None,
    progress: bool = False,
) -> Labelled:  # fmt: skip
    """The images of this source.

    Args:
        source: "cifar10", the folder `cifar10` under the folder that INVERTNB_DATA names, with
            torchvision's files or an image tree `{train,test}/<class>/*.png` (classes in the order
            of the alphabet, which is CIFAR-10's own); "torchvision", which downloads CIFAR-10 to
            there, or into torch.hub's folder if INVERTNB_DATA is not set; "digits", the 1,797
            handwritten digits of scikit-learn; "auto", "cifar10" if INVERTNB_DATA has that folder
            and otherwise "digits", which `what` and `real` say; or the path of a folder.
        limit: so many images of each set, or a pair for training and test set, or all there are if
            they are fewer: the first of each class, as even over the classes as these allow. Of a
            tree only those are read.
        progress: show a bar.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: INVERTNB_DATA is not set or has no `cifar10`; what is missing in a folder; a
            damaged file, an image of another size, a class without images, by name.
        OSError: a download that failed, see `download.fetch`.
    """
    limits = _limits(limit)
    if source == "auto":
        source = "cifar10" if cifar10_folder() else "digits"
    if source == "digits":
        return _digits(limits)
    if source == "torchvision":
        root = Path(os.environ.get(VARIABLE) or torch.hub.get_dir()) / "cifar10"
        _download(root, progress)
        return _torchvision(root, limits)
    if source == "cifar10":
        root = cifar10_folder()
        if root is None:
            expected = f"a folder that holds cifar10/{LAYOUT} (or open torchvision to download it)"
            check.fail(VARIABLE, os.environ.get(VARIABLE), expected)
    else:
        root = Path(source)
        if not root.is_dir():
            expected = "expected auto, cifar10, torchvision, digits or a folder's path"
            raise FileNotFoundError(f"source = {str(root)!r}: {expected}")
    if (root / CIFAR10.base_folder).is_dir():
        return _torchvision(root, limits)
    read = _tree(root, limits, progress)
    if source == "cifar10" and not read.real:
        check.fail("classes", read.classes, "CIFAR-10's: " + ", ".join(CLASSES))
    return read


def _limits(limit: int | tuple[int, int] | None) -> Limits:
    limits = limit if isinstance(limit, tuple) else (limit, limit)
    if len(limits) != 2:
        check.fail("limit", limit, "a number of images, or a pair for training and test set")
    for each in limits:
        if each is not None:
            check.integer("limit", each, 1)
    return limits


def _limited(labels: Tensor, limit: int | None) -> Tensor:
    """Indices of the first of each class, ascending."""
    return evenly(labels)[:limit].sort().values


def _labelled(
    name: str, what: str, classes: tuple[str, ...], sets: list[tuple[Tensor, Tensor]]
) -> Labelled:
    (train, train_labels), (test, test_labels) = sets
    return Labelled(name, what, classes, train, train_labels, test, test_labels)


def _digits(limits: Limits) -> Labelled:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target).long()
    # They are in the order of their writers: the last fifth of each class is, by and large, the
    # hand of people who wrote nothing of the rest. A random fifth would be an easier test.
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for c in range(10):
        of = (labels == c).nonzero()[:, 0]
        tested[of[len(of) - len(of) // 5 :]] = True
    sets = []
    for chosen, limit in zip((~tested, tested), limits, strict=True):
        some = chosen.nonzero()[:, 0]
        some = some[_limited(labels[some], limit)]
        sets.append((pixels[some], labels[some]))
    what = "handwritten digits of scikit-learn, 8 x 8, in place of CIFAR-10"
    return _labelled("digits", what, tuple("0123456789"), sets)


def _torchvision(root: Path, limits: Limits) -> Labelled:
    sets = []
    for which, limit in zip(SETS, limits, strict=True):
        try:
            source = CIFAR10(str(root), train=which == "train")
        except RuntimeError:  # "not found or corrupted", without the file's name
            meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
            for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, meta):
                if not check_integrity(str(root / CIFAR10.base_folder / name), md5):
                    where = f"{CIFAR10.base_folder}/{name}"
                    check.fail("cifar10", where, f"torchvision's file, whole, with MD5 {md5}")
            raise
        labels = torch.tensor(source.targets)
        some = _limited(labels, limit)
        pixels = torch.from_numpy(source.data[some.numpy()]).permute(0, 3, 1, 2).contiguous()
        sets.append((pixels, labels[some]))
    return _labelled("cifar10", "CIFAR-10 (torchvision's files)", tuple(source.classes), sets)


def _download(root: Path, progress: bool) -> None:
    """torchvision's folder in `root`, whole or not there; the archive stays beside it."""
    target = root / CIFAR10.base_folder
    if target.is_dir():
        return
    archive = fetch(CIFAR10.url, ARCHIVE, root, progress=progress)
    with tempfile.TemporaryDirectory(dir=root) as part:
        with tarfile.open(archive) as packed:
            packed.extractall(part, filter="data")
        try:
            (Path(part) / CIFAR10.base_folder).replace(target)
        except OSError:
            if not target.is_dir():  # another process was first
                raise


def _tree(root: Path, limits: Limits, progress: bool) -> Labelled:
    classes = None
    chosen = []
    for which, limit in zip(SETS, limits, strict=True):
        if not (root / which).is_dir():
            check.fail("images", root.name, f"a folder that holds {LAYOUT}; {which} is missing")
        folders = sorted(
            path for path in (root / which).iterdir() if path.is_dir() and path.name[0] != "."
        )
        names = tuple(path.name for path in folders)
        if not names:
            check.fail("images", f"{root.name}/{which}", "a folder for each class")
        if classes not in (None, names):
            lone = ", ".join(sorted(set(classes) ^ set(names)))
            check.fail("images", root.name, f"the same classes in train and test, but not {lone}")
        classes = names
        paths, labels = [], []
        for c, folder in enumerate(folders):
            with os.scandir(folder) as entries:
                found = sorted(e.path for e in entries if e.name.lower().endswith(SUFFIXES))
            if not found:
                expected = f"images ({', '.join(SUFFIXES)})"
                check.fail("folder", f"{which}/{folder.name}", expected)
            paths += found
            labels += [c] * len(found)
        labels = torch.tensor(labels)
        some = _limited(labels, limit)
        chosen.append(([paths[i] for i in some.tolist()], labels[some]))
    # One thread: files of 2 kB take longer to hand from thread to thread than to decode.
    sets = []
    with tqdm(total=sum(len(p) for p, _ in chosen), unit="image", disable=not progress) as bar:
        for paths, labels in chosen:
            pixels = np.empty((len(paths), 3, SIDE, SIDE), dtype=np.uint8)
            for i, path in enumerate(paths):
                pixels[i] = _read(path).transpose(2, 0, 1)
                bar.update()
            sets.append((torch.from_numpy(pixels), labels))
    if classes == CLASSES:
        return _labelled("cifar10", "CIFAR-10 (image tree)", classes, sets)
    return _labelled("folder", f"folder {root.name}", classes, sets)


def _read(path: str) -> np.ndarray:
    name = "/".join(Path(path).parts[-3:])
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # 16 or 32 bits a pixel, which `convert` would clip
                raise UNREADABLE[0](f"mode {image.mode}, not 8 bits a channel")
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except UNREADABLE as error:
        reason = str(error).replace(path, name)
        check.fail("image", name, f"an image that can be read ({reason})")
    if pixels.shape[:2] != (SIDE, SIDE):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        check.fail("image", name, f"{SIDE} x {SIDE} pixels, but found {found}")
    return pixels
