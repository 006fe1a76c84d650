"""The paper's claims, as ``book/claims.toml`` states them, and the rules that judge them.

A claim's rule was fixed before its number was computed:

=====================  ============================================================================
``"holds"``            a statement: the record says whether it held (True: reproduced, else refuted)
``{interval = [a, b]}``  our value lies in [a, b]
``{below = b}``        our value lies below b
``{within = t}``       our value differs from the paper's by at most t
``{within_sd = s}``    our mean differs from the paper's number by at most s standard deviations over
                       seeds, plus half a unit of the paper's last printed digit
=====================  ============================================================================
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .project import root

REPRODUCED, SHAPE_ONLY, NOT_REPRODUCED, REFUTED, OPEN = (
    "reproduced",
    "shape only",
    "not reproduced",
    "refuted",
    "open",
)
# What a claim without a record waits for, by the tier that it needs.
NEEDS = {"embedded": OPEN, "weights": "needs weights", "data": "needs data", "gpu": "needs GPU"}
RULES = ("interval", "below", "within", "within_sd")

Spread = float | tuple[float, float] | None


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: where it stands, what it says and how it is judged."""

    id: str
    place: str
    statement: str
    paper: float | str
    rule: str | Mapping[str, Any]
    tier: str
    chapter: str
    reading: str = "as stated"

    def judge(
        self, value: float | bool | None, spread: Spread = None, shape: bool | None = None
    ) -> str:
        """The verdict on our ``value`` (with its spread over seeds) under this claim's rule.

        None stands for no value of the claim's tier: the verdict is what the claim waits for.
        ``shape`` says whether the trend that the claim is about held where the value itself does not.

        Raises:
            ValueError: a truth value for a numeric rule or the reverse; no spread for ``within_sd``.
        """
        if value is None:
            return NEEDS[self.tier]
        if (self.rule == "holds") != isinstance(value, bool):
            wanted = "True or False" if self.rule == "holds" else "a number"
            raise ValueError(f"value={value!r} of claim {self.id!r}: expected {wanted}")
        if self.rule == "holds":
            return REPRODUCED if value else REFUTED
        if self._satisfied(value, spread):
            return REPRODUCED
        return SHAPE_ONLY if shape else NOT_REPRODUCED

    def _satisfied(self, value: float, spread: Spread) -> bool:
        ((kind, limit),) = self.rule.items()
        if kind == "interval":
            return limit[0] <= value <= limit[1]
        if kind == "below":
            return value < limit
        if kind == "within":
            return abs(value - self.paper) <= limit
        if not isinstance(spread, float):
            raise ValueError(f"spread={spread!r} of claim {self.id!r}: expected a standard deviation")
        return abs(value - self.paper) <= limit * spread + half_unit(self.paper)


def half_unit(number: float) -> float:
    """Half a unit of the last digit that ``number`` is printed with: 0.6701 gives 0.00005."""
    decimals = len(repr(number).partition(".")[2])
    return 0.5 * 10.0**-decimals


def load(path: Path | None = None) -> dict[str, Claim]:
    """All claims by id, in the order of the paper; tables are expanded to one claim a cell.

    Raises:
        ValueError: a claim given twice, with a missing or unknown key, an unknown rule or tier.
    """
    source = tomllib.loads((path or root() / "book" / "claims.toml").read_text(encoding="utf-8"))
    claims: dict[str, Claim] = {}
    for entry in source["entry"]:
        for claim in _expand(entry) if "cells" in entry else [entry]:
            try:
                claim = Claim(**claim)
            except TypeError as error:
                raise ValueError(f"claim {claim.get('id')!r}: {error}") from None
            if claim.id in claims:
                raise ValueError(f"claim {claim.id!r} is given twice")
            if claim.tier not in NEEDS:
                raise ValueError(f"tier={claim.tier!r} of claim {claim.id!r}: expected {', '.join(NEEDS)}")
            kind = claim.rule if isinstance(claim.rule, str) else next(iter(claim.rule), None)
            if kind not in ("holds", *RULES):
                raise ValueError(f"rule={claim.rule!r} of claim {claim.id!r}: expected holds or {', '.join(RULES)}")
            claims[claim.id] = claim
    return claims


def _expand(table: dict) -> list[dict]:
    """One row of a table of the paper, to one claim a cell."""
    shared = {key: value for key, value in table.items() if key not in ("id", "statement", "cells")}
    return [
        {
            "id": f"{table['id']}.{cell}",
            "statement": table["statement"].format(cell=cell),
            "paper": value,
            **shared,
        }
        for cell, value in table["cells"].items()
    ]


def find(claims: Mapping[str, Claim], identity: str) -> Claim:
    """The claim of this id; a ``ValueError`` with the nearest ids where there is none."""
    if identity not in claims:
        near = difflib.get_close_matches(identity, claims, 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see book/claims.toml"
        raise ValueError(f"unknown claim {identity!r}: {hint}")
    return claims[identity]


def show(value: float | bool | str | None) -> str:
    """A number as the ledger prints it: four significant digits; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "holds" if value else "does not hold"
    return value if isinstance(value, str) else f"{value:.4g}"


def show_spread(spread: Spread) -> str:
    """A spread as the ledger prints it: one standard deviation, or a range."""
    if spread is None:
        return ""
    if isinstance(spread, tuple):
        return f"{show(spread[0])} to {show(spread[1])}"
    return f"± {spread:.2g}"


def show_ours(value: float | bool | None, spread: Spread = None) -> str:
    """Our value with its spread: "1.43 ± 0.012", "0.98, 0.87 to 1.12", "does not hold (0.84 to 1.1)"."""
    width = show_spread(spread)
    if isinstance(value, bool):
        return f"{show(value)} ({width})" if width else show(value)
    return f"{show(value)}{',' if isinstance(spread, tuple) else ''} {width}".strip()
