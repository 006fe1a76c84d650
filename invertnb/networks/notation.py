"""The notation of Table 5: ``(2048)3c-2pmax-(2048)3c-2pmax-2pave`` and the network that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from invertnb import check

_PART = re.compile(r"(?:\((?P<filters>[0-9]+)\))?(?P<size>[0-9]+)(?P<kind>c|pmax|pave)")
LIMIT = 6  # digits of a number: a typing error, not a network


@dataclass(frozen=True)
class ConvolutionLayer:
    """Convolution with stride 1, batch norm, ReLU and max pooling.

    Attributes:
        filters: K, their number.
        size: l, the side of a filter, odd: the input is padded so that it keeps its size.
        pool: side of the max pooling windows, which do not overlap; 1 pools nothing.
    """

    filters: int
    size: int
    pool: int

    def __post_init__(self) -> None:
        check.integer("filters", self.filters, 1)
        if check.integer("size", self.size, 1) % 2 == 0:
            check.fail("size", self.size, "an odd side, which padding can keep the image's size for")
        check.integer("pool", self.pool, 1)

    @property
    def padding(self) -> int:
        """Zeros on each side of the input."""
        return self.size // 2

    def __str__(self) -> str:
        return f"({self.filters}){self.size}c" + (f"-{self.pool}pmax" if self.pool > 1 else "")


@dataclass(frozen=True)
class Architecture:
    """Layers, then average pooling; dropout and a softmax classifier follow (section 4.1, Table 5).

    ``str`` gives the notation back. Pooling over one pixel is not written.

    Attributes:
        layers: at least one.
        average: side of the average pooling windows; 1 averages nothing.
    """

    layers: tuple[ConvolutionLayer, ...]
    average: int = 1

    def __post_init__(self) -> None:
        if not self.layers:
            check.fail("layers", self.layers, "one layer at least")
        check.integer("average", self.average, 1)

    def __str__(self) -> str:
        tail = [f"{self.average}pave"] if self.average > 1 else []
        return "-".join([*map(str, self.layers), *tail])

    def shapes(self, image: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        """(channels, height, width) after each layer and, last, what the classifier sees.

        Args:
            image: (channels, height, width).

        Raises:
            ValueError: an image too small for the poolings.
        """
        _, height, width = image
        found = []
        for layer in self.layers:
            height, width = height // layer.pool, width // layer.pool
            found.append((layer.filters, height, width))
        height, width = height // self.average, width // self.average
        if not height or not width:
            check.fail("image", image, f"images that the poolings of {self} leave a pixel of")
        return [*found, (self.layers[-1].filters, height, width)]

    def features(self, image: tuple[int, int, int]) -> int:
        """How many numbers of an image the classifier sees."""
        channels, height, width = self.shapes(image)[-1]
        return channels * height * width


def parse(text: str) -> Architecture:
    """The network that a string of Table 5 names.

    ``(n)kc`` is a convolution with n filters of k x k, ``kpmax`` and ``kpave`` are max and average
    pooling over windows of k x k; ``-`` stands between them. A convolution may be followed by one
    max pooling, and average pooling may come last.

    Raises:
        ValueError: a string that is none of these; the message points at the character.
    """
    if not isinstance(text, str):
        check.fail("architecture", text, "a string as (2048)5c-2pmax-4pave")
    layers: list[ConvolutionLayer] = []
    average, at = 1, 0
    while True:
        part = _PART.match(text, at)
        if not part:
            _point(text, *_trouble(text, at))
        filters, size, kind = part["filters"], part["size"], part["kind"]
        _number(text, part.start("size"), size)
        if kind == "c":
            if filters is None:
                _point(text, at, "the number of filters in parentheses before a convolution")
            _number(text, part.start("filters"), filters)
            if average > 1:
                _point(text, at, "nothing after average pooling")
            if int(size) % 2 == 0:
                _point(text, part.start("size"), "an odd filter size")
            layers.append(ConvolutionLayer(int(filters), int(size), 1))
        else:
            if filters is not None:
                _point(text, at, "a number of filters before convolutions only")
            if not layers:
                _point(text, at, "a convolution first, as (2048)5c")
            if average > 1:
                _point(text, at, "nothing after average pooling")
            if int(size) < 2:
                _point(text, part.start("size"), "pooling over windows of 2 x 2 at least")
            if kind == "pave":
                average = int(size)
            elif layers[-1].pool > 1:
                _point(text, at, "one max pooling at most after a convolution")
            else:
                layers[-1] = ConvolutionLayer(layers[-1].filters, layers[-1].size, int(size))
        at = part.end()
        if at == len(text):
            return Architecture(tuple(layers), average)
        if text[at] != "-":
            _point(text, at, "'-' or the end")
        at += 1


def _trouble(text: str, at: int) -> tuple[int, str]:
    """Where a part that starts here goes wrong, and what was expected there."""
    end, expected = at, "a part as (2048)5c, 2pmax or 4pave"
    if text[at : at + 1] == "(":
        end = at + 1 + len(re.match(r"[0-9]*", text[at + 1 :])[0])
        if end == at + 1:
            return end, "a number of filters"
        if text[end : end + 1] != ")":
            return end, "')'"
        end += 1
        expected = "a filter size"
    digits = len(re.match(r"[0-9]*", text[end:])[0])
    if not digits:
        return end, expected
    rest = text[end + digits :]
    shared = max(_common(rest, kind) for kind in ("c", "pmax", "pave"))
    return end + digits + shared, "c, pmax or pave after the number"


def _common(text: str, word: str) -> int:
    return next((i for i, letter in enumerate(word) if text[i : i + 1] != letter), len(word))


def _number(text: str, at: int, digits: str) -> None:
    if digits.startswith("0"):
        _point(text, at, "a number that does not begin with 0")
    if len(digits) > LIMIT:
        _point(text, at, f"a number of {LIMIT} digits at most")


def _point(text: str, at: int, expected: str) -> NoReturn:
    """The error, with the character marked below the string."""
    found = f"{text[at]!r}" if at < len(text) else "the end"
    where = f"{expected} at character {at + 1}, but found {found}"
    # A line break or a tab would move the mark.
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    raise ValueError(f"architecture = {text!r}: expected {where}\n  {shown}\n  {' ' * at}^")
