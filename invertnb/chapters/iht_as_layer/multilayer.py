"""Several random layers, each one iteration of Algorithm 1 (footnote 3 of the paper)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from invertnb import FilterBank, ModelSparse, iht
from invertnb.chapters.iht_as_layer.recovery import relative
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure
from invertnb.notebook.figures import Figure, draw_matrix

# Three layers: the length of the first input, filter length, and channels and filters of each.
# Filters are twice as many as channels and pooling halves the length, as in VGG.
D, LENGTH, SHAPES = 68, 5, ((16, 32), (32, 64), (64, 128))
WINDOW = 2
#: How many pooled values a layer keeps: one per window, or one per ten windows.
KEEP = {"all windows": 1, "a tenth of the windows": 10}
#: Iterations of the search for the nearest member of a layer's model.
SEARCH = 25


class Layer(NamedTuple):
    """Filters and the length D of what they take."""

    bank: FilterBank
    length: int

    @property
    def windows(self) -> int:
        """Pooling windows, which is how many numbers the pooled map has."""
        return self.bank.K * self.bank.code_size(self.length) // WINDOW

    def model(self, per: int) -> ModelSparse:
        """At most one nonzero per window, and one per `per` windows in all."""
        return ModelSparse(WINDOW, self.windows // per)


class Depth(NamedTuple):
    """Random networks on the way up and down again, (networks, layers)."""

    error: Tensor  # of x, up so many layers and down again, at equal norms
    distance: Tensor  # of each layer's input from W^T M_k: the smallest residual found, relative
    noise: Tensor  # the same for Gaussian noise in place of that input


def network(generator: torch.Generator, device: str = "cpu") -> tuple[Layer, ...]:
    """Random layers with unit rows."""
    layers, length = [], D
    for channels, filters in SHAPES:
        bank = FilterBank.gaussian(filters, channels, LENGTH, generator=generator, device=device)
        layers.append(Layer(bank.normalized(), length))
        length = bank.code_size(length) // WINDOW
    return tuple(layers)


def first_input(layers: Sequence[Layer], signals: int, generator: torch.Generator) -> Tensor:
    """x = W^T z for the first layer, z with nonzeros in a tenth of its windows."""
    bank, length = layers[0]
    n, device = bank.code_size(length), bank.weight.device
    z = layers[0].model(10).sample(signals, bank.K, n, generator=generator, device=device)
    return bank.synthesis(z, length)


def pooled_map(code: Tensor) -> Tensor:
    """The pooled values of a code with at most one nonzero per window: the sum over the window."""
    return code.unflatten(-1, (-1, WINDOW)).sum(-1)


def ascend(x: Tensor, layers: Sequence[Layer], per: int) -> list[Tensor]:
    """Footnote 3: one iteration of Algorithm 1 per layer, on the pooled map of the layer below."""
    codes = []
    for layer in layers:
        codes.append(iht(x, layer.bank, layer.model(per), iterations=1).code)
        x = pooled_map(codes[-1])
    return codes


def descend(codes: Sequence[Tensor], layers: Sequence[Layer], switches: str = "known") -> Tensor:
    """From the top pooled map back to an input: unpool, W^T, and again in each layer below.

    switches="known" places each value where its window's maximum was on the way up, and none where
    none was kept; "fixed" uses the second position of every window.
    """
    values = pooled_map(codes[-1])
    for code, layer in zip(reversed(codes), reversed(layers), strict=True):
        place = torch.arange(code.shape[-1], device=code.device) % WINDOW == WINDOW // 2
        if switches == "known":
            place = code != 0
        unpooled = torch.where(place, values.repeat_interleave(WINDOW, -1), 0.0)
        values = layer.bank.synthesis(unpooled, layer.length)
    return values


def equal_norm(estimate: Tensor, truth: Tensor) -> Tensor:
    """The estimate at the norm of the truth, sample by sample, as in section 4.5 of the paper."""
    ratio = truth.flatten(1).norm(dim=1) / estimate.flatten(1).norm(dim=1)
    return estimate * ratio.view(-1, 1, 1)


def depth(
    networks: int, generator: torch.Generator, signals: int = 4, device: str = "cpu"
) -> dict[str, Depth]:
    """Errors down from each layer, and how far each layer's input is from the theorem's model."""
    rows = {name: [] for name in KEEP}
    for _ in range(networks):
        layers = network(generator, device)
        x = first_input(layers, signals, generator)
        for name, per in KEEP.items():
            codes = ascend(x, layers, per)
            inputs = [x, *map(pooled_map, codes[:-1])]
            ends = [equal_norm(descend(codes[:i], layers[:i]), x) for i in (1, 2, 3)]
            noises = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in inputs]
            distances = [
                [_distance(v.to(x.device), layer, per) for v, layer in zip(group, layers)]
                for group in (inputs, noises)
            ]
            rows[name].append([[relative(end, x).mean() for end in ends], *distances])
    tables = {name: torch.tensor(table, dtype=torch.float64) for name, table in rows.items()}
    return {name: Depth(*table.unbind(1)) for name, table in tables.items()}


def _distance(signal: Tensor, layer: Layer, per: int) -> Tensor:
    # A search from zero: it bounds the distance from above.
    result = iht(signal, layer.bank, layer.model(per), step="normalized", iterations=SEARCH)
    return result.residuals.amin(0).mean()


def draw_depth(found: dict[str, Depth]) -> Figure:
    """Left: error against depth. Right: distance of each layer's input from the model."""
    fig, (left, right) = figure(7.5, 3.0, ncols=2, sharey=True)
    layers = range(1, len(SHAPES) + 1)
    for (name, one), colour in zip(found.items(), ("blue", "vermillion"), strict=True):
        style = {"color": PALETTE[colour], "marker": "o", "ms": 4, "capsize": 3}
        left.errorbar(layers, one.error.mean(0), one.error.std(0), **style, label=name)
        right.errorbar(layers, one.distance.mean(0), one.distance.std(0), **style)
        right.plot(layers, one.noise.mean(0), color=PALETTE[colour], ls=":", marker="s", ms=4)
    left.set(xlabel="layers up and down", xticks=layers, ylim=(-0.03, 1), ylabel="relative error")
    right.set(xlabel="layer", xticks=layers)
    left.legend(frameon=False, loc="lower right")
    return fig


def explorer() -> Explorer:
    """One input of a three-layer network, and what comes back down from each depth."""

    @functools.cache
    def climb(per: int) -> tuple[Sequence[Layer], Tensor, list[Tensor]]:
        generator = torch.Generator().manual_seed(11)
        layers = network(generator)
        x = first_input(layers, 1, generator)
        return layers, x, ascend(x, layers, per)

    def show(layers: int, per: int, switches: str) -> View:
        stack, x, codes = climb(per)
        back = equal_norm(descend(codes[:layers], stack[:layers], switches), x)
        fig, axes = figure(6.5, 2.9, nrows=2, sharex=True)
        for ax, name, signal in zip(axes, ("$x$", r"$\hat x$"), (x, back), strict=True):
            draw_matrix(ax, signal[0], limit=float(x.abs().max()))
            ax.set(aspect="auto", yticks=[])
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
        axes[1].set_xlabel("position; channels one below the other")
        numbers = {
            "relative error": f"{float(relative(back, x)):.3f}",
            "cosine of the two": f"{float((x * back).sum() / x.square().sum()):.3f}",
            "values kept at the top": int((codes[layers - 1] != 0).sum()),
        }
        return View(fig, numbers)

    return Explorer(
        "depth",
        [
            Slider("layers", (1, 2, 3), "layers up and down", format="{:d}"),
            Choice("per", KEEP, label="pooled values kept"),
            Choice("switches", {"known": "known", "fixed": "fixed"}, label="switches"),
        ],
        show,
        alt="An input and its reconstruction from {layers} layers, {per} kept, {switches} switches",
        caption="Above: the input of a random network, 16 channels of 68 samples. Below: what "
        "comes back when its pooled map is taken down again, scaled to the input's norm.",
    )
