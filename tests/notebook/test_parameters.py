"""Parameters are declared once and refuse what their declaration excludes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from invertnb.notebook import Parameters, parameter


@dataclass(frozen=True)
class Some(Parameters):
    signals: int = parameter(10, minimum=1, maximum=99, help="signals")
    scale: float = parameter(1.0, minimum=0.0, help="scale")
    decoder: str = parameter("known", choices=("known", "fixed"), help="decoder")
    ks: tuple[int, ...] = parameter((1, 2), minimum=1, help="sparsities")
    all_shifts: bool = parameter(False, help="all shifts")


def test_text_becomes_typed_values():
    given = {"signals": "7", "scale": "2", "decoder": "fixed", "ks": "3,4", "all_shifts": "true"}
    assert Some.parse(given) == {
        "signals": 7,
        "scale": 2.0,
        "decoder": "fixed",
        "ks": (3, 4),
        "all_shifts": True,
    }
    assert Some(ks=[5, 6]).ks == (5, 6), "papermill hands over lists"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"signal": "7"}, "unknown parameter 'signal': did you mean 'signals'?"),
        ({"signals": "0"}, "signals=0: expected at least 1"),
        ({"signals": "100"}, "signals=100: expected at most 99"),
        ({"signals": "1.5"}, "signals='1.5': expected an integer"),
        ({"scale": "nan"}, "scale=nan: expected a finite number"),
        ({"decoder": "best"}, "decoder='best': expected one of known, fixed"),
        ({"ks": ""}, "ks=(): expected a non-empty list"),
        ({"ks": "1,0"}, "ks=0: expected at least 1"),
        ({"all_shifts": "maybe"}, "all_shifts='maybe': expected true or false"),
    ],
)
def test_bad_values_are_named(given, message):
    with pytest.raises(ValueError, match=None) as error:
        Some.parse(given)
    assert message in str(error.value)


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match="signals=True: expected an integer"):
        Some(signals=True)
    with pytest.raises(ValueError, match="all_shifts=1"):
        Some(all_shifts=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device='cuda'"):
        Some(device="cuda")


def test_streams_are_reproducible_and_differ():
    draw = lambda seed, stream: torch.rand(4, generator=Some(seed=seed).generator(stream))  # noqa: E731
    assert torch.equal(draw(0, 0), draw(0, 0))
    draws = [draw(seed, stream) for seed in range(3) for stream in range(3)]
    assert len({tuple(d.tolist()) for d in draws}) == 9
