"""Does a published row of coherences stand one layer out of place? A matching, with its odds.

Four printed digits are a fingerprint. Each reading of the definition and each displacement of the
row is tried, and agreements in all four digits are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DIGIT = 1e-4  # the last printed digit


@dataclass(frozen=True)
class Matching:
    """The row under one reading and displacement.

    Attributes:
        reading: of the coherence.
        displacement: entry i of the row is compared with layer i + displacement.
        compared: how many entries have a layer to be compared with.
        matched: layers whose value is the printed one, to all digits, with the entry's name.
    """

    reading: str
    displacement: int
    compared: int
    matched: tuple[tuple[str, str], ...]


def match(
    row: Mapping[str, float], layers: Sequence[str], values: Mapping[str, Mapping[str, float]]
) -> list[Matching]:
    """Every reading at every displacement, most matches first.

    Args:
        row: the published entries, by layer.
        layers: all layers in order, measured or not.
        values: by reading, what was measured in some of the layers.
    """
    found = []
    for reading, measured in values.items():
        for displacement in range(1 - len(layers), len(layers)):
            pairs = [
                (entry, layers[i + displacement])
                for i, entry in enumerate(layers)
                if 0 <= i + displacement < len(layers) and layers[i + displacement] in measured
            ]
            if pairs:
                matched = tuple(
                    (layer, entry) for entry, layer in pairs
                    if abs(round(measured[layer], 4) - row[entry]) < DIGIT / 2
                )  # fmt: skip
                found.append(Matching(reading, displacement, len(pairs), matched))
    return sorted(found, key=lambda m: (-len(m.matched), abs(m.displacement), m.reading))


def odds(best: Matching, tried: Sequence[Matching], row: Mapping[str, float]) -> float:
    """Bound on the chance of as many matches as the best has, in any matching that was tried.

    A match by chance: the printed digits spread over the range of the row, so one given value hits
    with probability DIGIT / range, each time independently. Then a union bound over what was tried.
    """
    p = DIGIT / (max(row.values()) - min(row.values()))
    wanted = len(best.matched)
    total = sum(_tail(each.compared, wanted, p) for each in tried if each.compared >= wanted)
    return min(1.0, total)


def _tail(n: int, least: int, p: float) -> float:
    return sum(math.comb(n, m) * p**m * (1 - p) ** (n - m) for m in range(least, n + 1))


def repeated(row: Mapping[str, float]) -> list[tuple[str, str]]:
    """Neighbors in the row with the same printed value."""
    names = list(row)
    return [(a, b) for a, b in zip(names, names[1:], strict=False) if row[a] == row[b]]
