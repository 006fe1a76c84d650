"""Explorers of the chapter: the filters of a layer, and where channels are active."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from invertnb.chapters.sparsity import activity, banks
from invertnb.notebook import PALETTE, Choice, Explorer, Slider, View, figure
from invertnb.notebook.figures import Figure, draw_matrix

if TYPE_CHECKING:
    from invertnb.chapters.sparsity import Data

SHOWN = (0, 7, 20)  # filters of each layer on the built page; a kernel shows all
CHANNELS = 12  # of a filter's matrix
PHOTOGRAPHS = 10  # images with maps, at most


def explorer(data: Data) -> Explorer:
    """Cosines of one filter with all others of its layer, and its two nearest partners."""
    network = data.network
    layers = network.convolutions
    fewest = min(len(network.filters(name)[0]) for name in layers)
    shown = tuple(i for i in SHOWN if i < fewest)

    def show(layer: str, filter: int) -> View:
        weight = network.filters(layer)[0].cpu()
        products = banks.cosines(weight)[filter]
        row = products.nan_to_num(nan=0.0)
        minus, plus = int(row.argmin()), int(row.argmax())
        bank = data.live.banks[layer]
        values = {
            "nearest - partner": f"filter {minus}, cosine {row[minus]:.2f}",
            "nearest + partner": f"filter {plus}, cosine {row[plus]:.2f}",
            "coherence, absolute": f"{bank.coherence('absolute'):.2f}",
            "coherence, signed": f"{bank.coherence('signed'):.2f}",
            "random filters of this size": f"median - partner {np.mean(bank.random):.2f}",
        }
        others = products[~products.isnan()]
        trio = {"filter": filter, "$-$ partner": minus, "$+$ partner": plus}
        filters = {name: weight[i] for name, i in trio.items()}
        return View(draw_filter(others, filters, weight.shape[1] == 3), values)

    return Explorer(
        "filters",
        [
            Choice("layer", list(layers), "layer"),
            Slider("filter", shown, "filter", live=range(fewest)),
        ],
        show,
        alt="Cosines of filter {filter} of {layer} with all other filters of the layer as a "
        "histogram, and the filter beside its nearest partner of either sign",
        caption=f"{network.source.label}. Left: cosines with all other filters. Right: the filter "
        "and its nearest partners; in color for conv(1,1), elsewhere the weights (columns: the "
        "places of the window, row by row) in the "
        f"{CHANNELS} channels where the filter is largest.",
    )


def draw_filter(others: Tensor, filters: dict[str, Tensor], colours: bool) -> Figure:
    """Cosines as a histogram; filters as colour pictures or as matrices channels x places."""
    fig, axes = figure(
        height=2.6, ncols=1 + len(filters), gridspec_kw={"width_ratios": [2.6, 1, 1, 1]}
    )
    reach = max(float(others.abs().max()), 0.05)
    axes[0].hist(others.numpy(), bins=41, range=(-reach, reach), color="#c9d1d9")
    axes[0].axvline(float(others.min()), color=PALETTE["vermillion"], ls="--")
    axes[0].axvline(float(others.max()), color=PALETTE["blue"])
    axes[0].set(xlabel="cosine with another filter", ylabel="filters", xlim=(-1.02, 1.02))
    strongest = next(iter(filters.values())).flatten(1).norm(dim=1).argsort(descending=True)
    for ax, (name, w) in zip(axes[1:], filters.items(), strict=True):
        w = w / w.norm()
        if colours:
            limit = float(w.abs().max())
            ax.imshow((w / (2 * limit) + 0.5).permute(1, 2, 0).numpy(), interpolation="nearest")
        else:
            draw_matrix(ax, w.flatten(1)[strongest[:CHANNELS]].numpy()).axes.set_aspect("auto")
        ax.set(xticks=[], yticks=[], xlabel=name)
    # Fixed margins: quicker than a computed layout, and no frame is displaced.
    fig.set_layout_engine(None)
    fig.subplots_adjust(left=0.08, right=0.99, bottom=0.2, top=0.97, wspace=0.25)
    return fig


def map_explorer(data: Data) -> Explorer:
    """Share of active channels at each place, by layer and photograph."""
    layers = data.network.layers
    names, pixels = [], []
    some = data.images.first(min(PHOTOGRAPHS, len(data.images)))  # all of them are held in memory
    for found, batch in some.batches(activity.BATCH):
        names += found
        pixels.append(batch)
    maps = activity.active_maps(data.network, torch.cat(pixels), layers)

    def show(layer: str, image: int) -> View:
        each = maps[layer][image]
        values = {
            "percent of nonzeros": f"{100 * float(each.double().mean()):.1f}",
            "least and most active place": f"{100 * each.min():.0f} and {100 * each.max():.0f} %",
        }
        return View((255 * each.clamp(0, 1)).round().to(torch.uint8).numpy(), values)

    return Explorer(
        "activity",
        [
            Choice("layer", list(layers), "layer", default=layers[-2]),
            Choice("image", {name: i for i, name in enumerate(names)}, "image"),
        ],
        show,
        alt="Share of the channels of {layer} that are active at each place of the image {image}: "
        "white where all are, black where none is",
        caption=f"{data.network.source.label}. White: every channel is active; black: none. Layers "
        f"of more than {activity.MAP} pixels a side are averaged.",
    )
