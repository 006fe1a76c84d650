"""Chapter parameters: declared once, validated before any work is done.

A chapter's ``Parameters`` is a frozen dataclass whose fields are made by :func:`parameter`. The same
declaration serves the notebook's parameters cell, the command line (``--set name=value``) and papermill.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


def parameter(
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple | None = None,
    path: bool = False,
) -> Any:
    """Declare a field of a :class:`Parameters` dataclass, with the values that it admits.

    For a tuple-valued field the bounds and choices hold for each of its entries. A field with
    path=True may be the path of a file or folder: one given on a command line is understood from
    where the command is called, not from where the notebook runs.
    """
    limits = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "path": path}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Parameters:
    """Base of every chapter's parameters.

    Raises:
        ValueError: a value of the wrong type or outside its limits, naming parameter and value;
            ``device="cuda"`` where no CUDA device is available.
    """

    seed: int = parameter(0, minimum=0, help="seed of the one generator that all draws come from")
    device: str = parameter("cpu", choices=("cpu", "cuda"), help="where tensors live")

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _checked(field, kinds[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': expected a CUDA device, but none is available here")

    def generator(self, stream: int = 0) -> torch.Generator:
        """A CPU generator for one independent stream of draws (the same draws on every device)."""
        # An odd multiplier spreads (seed, stream) over 63 bits, so that neighboring seeds share none.
        state = (self.seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + 1) % 2**63
        return torch.Generator().manual_seed(state)

    @classmethod
    def parse(cls, settings: Mapping[str, str]) -> dict[str, Any]:
        """Turn ``{"name": "text"}``, as given on a command line, into typed and validated values."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        kinds = typing.get_type_hints(cls)
        values = {}
        for name, text in settings.items():
            if name not in fields:
                near = difflib.get_close_matches(name, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(fields)}"
                raise ValueError(f"unknown parameter {name!r}: {hint}")
            if fields[name].metadata["path"] and Path(text).exists():
                text = str(Path(text).resolve())
            values[name] = _checked(fields[name], kinds[name], _from_text(name, kinds[name], text))
        cls(**values)
        return values


def _from_text(name: str, kind: type, text: str) -> Any:
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        return tuple(_from_text(name, entry, part) for part in text.split(",") if part.strip())
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.strip().lower() not in words:
            raise ValueError(f"{name}={text!r}: expected true or false")
        return words[text.strip().lower()]
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name}={text!r}: expected {_describe(kind)}") from None


def _checked(field: dataclasses.Field, kind: type, value: Any) -> Any:
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)) or not value:
            raise ValueError(f"{field.name}={value!r}: expected a non-empty list")
        entry = typing.get_args(kind)[0]
        return tuple(_checked(field, entry, part) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{field.name}={value!r}: expected {_describe(kind)}")
    low, high, choices = (field.metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if choices is not None and value not in choices:
        raise ValueError(f"{field.name}={value!r}: expected one of {', '.join(map(str, choices))}")
    if low is not None and value < low:
        raise ValueError(f"{field.name}={value!r}: expected at least {low}")
    if high is not None and value > high:
        raise ValueError(f"{field.name}={value!r}: expected at most {high}")
    return value


def _describe(kind: type) -> str:
    return {int: "an integer", float: "a finite number", bool: "true or false", str: "text"}[kind]
