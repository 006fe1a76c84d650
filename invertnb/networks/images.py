"""Images by tier: photographs that ship with packages, a folder, or the ILSVRC validation set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from invertnb import check

VARIABLE = "INVERTNB_DATA"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
ILSVRC = "ILSVRC2012_val_"
# What Pillow raises for a file that is damaged, or no image.
UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError)
# Photographs in the wheels of scikit-image and scikit-learn; three are gray.
PHOTOGRAPHS = {
    "skimage.data": (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
        "motorcycle_left.png", "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """Images that are read when they are needed: RGB, short side scaled, center cropped.

    Attributes:
        tier: "embedded", "folder" or "ilsvrc".
        what: a few words for a reader.
        paths: the files, in a fixed order.
        side: of the crop, in pixels.
        resize: of the short side before the crop, in pixels.
        skip_corrupt: leave out what cannot be read, and name it in `skipped`; else an error.
        skipped: names of files that were left out so far.
    """

    tier: str
    what: str
    paths: tuple[Path, ...]
    side: int = 224
    resize: int = 256
    skip_corrupt: bool = False
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check.integer("side", self.side, 1)
        check.integer("resize", self.resize, self.side)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def label(self) -> str:
        """A line for a reader, with the number of images."""
        return f"{self.what}, {len(self)} images"

    @property
    def names(self) -> tuple[str, ...]:
        """File names without folder and suffix."""
        return tuple(path.stem for path in self.paths)

    @property
    def sha256(self) -> str:
        """SHA-256 over the SHA-256 of each file, in order: which images these are."""
        whole = hashlib.sha256()
        for path in self.paths:
            with path.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()

    def first(self, count: int) -> Images:
        """The first so many."""
        check.integer("count", count, 1, len(self))
        return Images(
            self.tier, self.what, self.paths[:count], self.side, self.resize, self.skip_corrupt
        )

    def batches(
        self, size: int = 10, *, progress: bool = False
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Names and pixels, float32 (at most size, 3, side, side) in [0, 1], a batch at a time.

        Raises:
            ValueError: an image that cannot be read, by name, unless those are skipped; or not one
                image that can.
        """
        check.integer("size", size, 1)
        names, pixels, seen = [], [], 0
        for path in tqdm(self.paths, unit="image", disable=not progress):
            image = self._read(path)
            if image is None:
                continue
            names.append(path.stem)
            pixels.append(image)
            seen += 1
            if len(names) == size:
                yield names, torch.stack(pixels)
                names, pixels = [], []
        if names:
            yield names, torch.stack(pixels)
        if not seen:
            check.fail("images", self.label, "one image at least that can be read")

    def all(self) -> Tensor:
        """All pixels at once, float32 (images, 3, side, side) in [0, 1]."""
        return torch.cat([pixels for _, pixels in self.batches(16)])

    def _read(self, path: Path) -> Tensor | None:
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":  # 16 or 32 bits a pixel, which `convert` would clip
                    raise UnidentifiedImageError(f"mode {image.mode}, not 8 bits a channel")
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except UNREADABLE as error:
            if not self.skip_corrupt:
                reason = str(error).replace(str(path), path.name)
                check.fail("image", path.name, f"an image that can be read ({reason})")
            if path.name not in self.skipped:
                self.skipped.append(path.name)
            return None
        pixels = transforms.resize(pixels, [self.resize], antialias=True)
        return transforms.center_crop(pixels, [self.side]).float() / 255


def open_images(
    source: str | Path = "embedded", *, side: int = 224, resize: int = 256,
    skip_corrupt: bool = False,
) -> Images:
    """The images of exactly the tier that is asked for; there is no fallback.

    Args:
        source: "embedded", ten photographs from scikit-image and scikit-learn; "folder", the
            folder that the environment variable INVERTNB_DATA names; or the path of a folder.
            A folder may hold images, or a folder for each class, or be the root of ILSVRC-2012 in
            its usual layout (a folder `val` with images or with folders of them).
        side, resize, skip_corrupt: see `Images`.

    Raises:
        ValueError: INVERTNB_DATA is not set, or a folder without images.
        FileNotFoundError: no such folder.
    """
    if str(source) == "embedded":
        paths = tuple(
            _installed(package, name) for package, of in PHOTOGRAPHS.items() for name in of
        )
        what = "photographs from scikit-image and scikit-learn"
        return Images("embedded", what, paths, side, resize, skip_corrupt)
    if str(source) == "folder":
        if not os.environ.get(VARIABLE):
            check.fail(VARIABLE, os.environ.get(VARIABLE), "the path of a folder of images")
        source = os.environ[VARIABLE]
    root = Path(source)
    if not root.is_dir():
        expected = "expected embedded, folder or a folder's path"
        raise FileNotFoundError(f"images = {str(root)!r}: {expected}")
    within = root / "val" if (root / "val").is_dir() else root
    files = [path for path in within.rglob("*") if path.suffix.lower() in SUFFIXES]
    files.sort(key=lambda path: path.name)  # as numbered, whether or not in folders of classes
    if not files:
        check.fail("images", within.name, f"a folder with images ({', '.join(SUFFIXES)})")
    tier = "ilsvrc" if all(path.name.startswith(ILSVRC) for path in files) else "folder"
    what = "ILSVRC-2012 validation set" if tier == "ilsvrc" else f"folder {root.name}"
    return Images(tier, what, tuple(files), side, resize, skip_corrupt)


def _installed(package: str, name: str) -> Path:
    from importlib.resources import files

    path = Path(str(files(package) / name))
    if not path.is_file():
        raise FileNotFoundError(f"{package}/{name}: expected among the files of that package")
    return path
