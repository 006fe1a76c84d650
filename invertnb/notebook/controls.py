"""The two controls of an explorer: a slider over numbers and a choice between named options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Scalar = int | float | str | bool | None


def plain(value):
    """The Python scalar held by a NumPy or torch scalar; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def checked_name(name: str, what: str) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{what} must be a Python identifier, got {name!r}")
    return name


def _checked_label(label: str, name: str) -> str:
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label of {name!r} must be a non-empty string, got {label!r}")
    return label


def _not_among(value, values, what: str) -> ValueError:
    return ValueError(f"{what} must be one of {tuple(values)}, got {value!r}")


def _numbers(values: Iterable, name: str, what: str) -> tuple[int | float, ...]:
    numbers = tuple(plain(value) for value in values)
    for number in numbers:
        real = isinstance(number, int | float) and not isinstance(number, bool)
        if not real or not math.isfinite(number):
            raise ValueError(f"{what} of slider {name!r} must be finite numbers, got {number!r}")
    return numbers


@dataclass(frozen=True)
class Slider:
    """A slider over increasing numbers.

    Args:
        name: the callback's argument.
        values: the grid of the built page.
        label: what the reader sees, such as "sparsity k".
        default: where the slider starts, one of `values` (None: the first).
        live: further values that the slider stops at where a kernel runs.
        format: how a value is written.

    Raises:
        ValueError: values that are missing, not finite, not increasing or written alike; a default
            that is not among them.
    """

    name: str
    values: tuple[int | float, ...]
    label: str
    default: int | float | None = None
    live: tuple[int | float, ...] | None = None
    format: str = "{:g}"

    def __post_init__(self) -> None:
        checked_name(self.name, "name of a slider")
        _checked_label(self.label, self.name)
        values = _numbers(self.values, self.name, "values")
        if not values or any(a >= b for a, b in zip(values, values[1:], strict=False)):
            raise ValueError(f"values of slider {self.name!r} must increase, got {values}")
        default = values[0] if self.default is None else plain(self.default)
        if default not in values:
            raise _not_among(default, values, f"default of slider {self.name!r}")
        more = _numbers(() if self.live is None else self.live, self.name, "live values")
        live = tuple(sorted({*values, *more}))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "default", values[values.index(default)])
        object.__setattr__(self, "live", live)
        if len({self.text(value) for value in live}) < len(live):
            raise ValueError(
                f"format of slider {self.name!r} must tell its values apart, got {self.format!r}"
            )

    def text(self, value: int | float) -> str:
        """`value` as the reader sees it."""
        return self.format.format(value)


@dataclass(frozen=True)
class Choice:
    """A choice between options.

    Args:
        name: the callback's argument.
        options: label -> value, or a list of values that are their own labels. Values are strings,
            numbers, booleans or None.
        label: what the reader sees above the options.
        default: the value chosen at the start (None: the first).

    Raises:
        ValueError: no options, two alike, a value of another type, or a default not among them.
    """

    name: str
    options: Mapping[str, Scalar] | Iterable[Scalar]
    label: str
    default: Scalar = None

    def __post_init__(self) -> None:
        checked_name(self.name, "name of a choice")
        _checked_label(self.label, self.name)
        pairs = self.options
        if isinstance(pairs, Mapping):
            pairs = [(label, plain(value)) for label, value in pairs.items()]
        else:
            pairs = [(str(value), value) for value in map(plain, pairs)]
        for label, value in pairs:
            if not isinstance(value, Scalar):
                raise ValueError(f"options of choice {self.name!r} must be scalars, got {value!r}")
            _checked_label(label, self.name)
        values = [value for _, value in pairs]
        if not pairs or len(dict(pairs)) < len(pairs) or len(set(values)) < len(values):
            raise ValueError(f"options of choice {self.name!r} must be distinct, got {pairs}")
        default = plain(self.default)
        if default is None and None not in values:
            default = values[0]
        if default not in values:
            raise _not_among(default, values, f"default of choice {self.name!r}")
        object.__setattr__(self, "options", dict(pairs))
        object.__setattr__(self, "default", default)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The options' values, in order."""
        return tuple(self.options.values())

    live = values  # a choice has no further stops where a kernel runs

    def text(self, value: Scalar) -> str:
        """The label of `value`."""
        return next(label for label, option in self.options.items() if option == value)
