"""Figures of the book: one style, no pyplot, and a small PNG that is the same on every run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.image import AxesImage
from PIL import Image

__all__ = ["PALETTE", "Figure", "Photographs", "draw_matrix", "figure", "photographs"]

#: Okabe and Ito's colours, which readers with any common colour vision can tell apart.
PALETTE = MappingProxyType(
    {
        "blue": "#0072B2",
        "orange": "#E69F00",
        "green": "#009E73",
        "vermillion": "#D55E00",
        "purple": "#CC79A7",
        "sky": "#56B4E9",
        "yellow": "#F0E442",
        "black": "#000000",
    }
)

DPI = 150
PHOTOGRAPH_QUALITY = 80
INK, MUTED = "#1f2328", "#59636e"

# Yellow stays out of the cycle: on white it is too faint for a line.
_CYCLE = [colour for name, colour in PALETTE.items() if name != "yellow"]

# The line width sits in the cycle, so that it holds for every line drawn after the axes exist
# without a change to matplotlib's global settings.
STYLE = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.labelsize": 11.5,
        "axes.prop_cycle": cycler(color=_CYCLE) + cycler(linewidth=[2.0] * len(_CYCLE)),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": "white",
        "font.size": 11.0,
        "text.color": INK,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": 10.5,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 10.5,
    }
)


class Figure(MatplotlibFigure):
    """A matplotlib figure that displays itself as a small palette PNG."""

    def _repr_png_(self) -> bytes:
        return png(rasterise(self))

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"text/plain": repr(self), "image/png": self._repr_png_()}
        # No height: it would be kept where the width of a phone shrinks the picture.
        return data, {"image/png": {"width": css_size(self)[0]}}


class Photographs(Figure):
    """A figure of photographs, which displays itself as a JPEG: a palette would cost more bytes."""

    _repr_png_ = None  # IPython would ask for both

    def _repr_jpeg_(self) -> bytes:
        image, buffer = rasterise(self), io.BytesIO()
        size = css_size(self)
        image.resize(size, Image.Resampling.LANCZOS).save(
            buffer, format="JPEG", quality=PHOTOGRAPH_QUALITY, optimize=True
        )
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"text/plain": repr(self), "image/jpeg": self._repr_jpeg_()}
        return data, {"image/jpeg": {"width": css_size(self)[0]}}


def photographs(
    rows: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], width: float = 7.5
) -> Photographs:
    """A grid of pictures, named at the left and on top.

    Args:
        rows: by name, pictures (H, W, 3) in [0, 1], one a column, all of one shape; what leaves
            that range is cut off.
        columns: names.
        width: inches.

    Raises:
        ValueError: a row with more or fewer pictures than columns; no picture.
    """
    if not rows or not columns:
        raise ValueError(f"rows must hold pictures, got {list(rows)} x {list(columns)}")
    for name, pictures in rows.items():
        if len(pictures) != len(columns):
            raise ValueError(f"row {name!r} must have {len(columns)} pictures, got {len(pictures)}")
    tall, wide = next(iter(rows.values()))[0].shape[:2]
    height = 0.3 + (width - 0.3) / len(columns) * tall / wide * len(rows)
    with matplotlib.rc_context(dict(STYLE)):
        canvas = Photographs(figsize=(width, height), dpi=DPI, layout="constrained")
        canvas.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        axes = canvas.subplots(len(rows), len(columns), squeeze=False)
        for line, (name, pictures) in zip(axes, rows.items(), strict=True):
            line[0].set_ylabel(name, fontsize=10)
            for ax, picture in zip(line, pictures, strict=True):
                ax.imshow(np.clip(picture, 0, 1), interpolation="lanczos")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
        for ax, name in zip(axes[0], columns, strict=True):
            ax.set_title(name, fontsize=10)
    return canvas


def figure(width: float = 7.5, height: float = 3.2, **subplots) -> tuple[Figure, Axes | np.ndarray]:
    """A figure of `width` x `height` inches in the book's style, and its axes.

    `subplots` goes to `matplotlib.figure.Figure.subplots` (nrows, ncols, sharey, ...); as there,
    one pair of axes comes as `Axes`, more as an array. Lines are 2 points wide, colours are
    Okabe and Ito's (`PALETTE`). Raises ValueError unless width and height are positive.
    """
    for name, inches in (("width", width), ("height", height)):
        if not 0 < inches < float("inf"):
            raise ValueError(f"{name} must be a positive number of inches, got {inches!r}")
    with matplotlib.rc_context(dict(STYLE)):
        canvas = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        return canvas, canvas.subplots(**subplots)


def draw_matrix(ax: Axes, values, limit: float | None = None, cmap: str = "RdBu_r") -> AxesImage:
    """Draw a real matrix (rows, columns) as cells, white at zero, and return the image.

    Blue is negative and red positive; `limit` is the magnitude of full colour (default: the
    largest in `values`). Raises ValueError for anything but a finite, non-empty matrix.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"values must be a finite matrix, got shape {matrix.shape}")
    if limit is None:
        limit = float(np.abs(matrix).max()) or 1.0
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit must be a positive number, got {limit!r}")
    for side in ax.spines.values():
        side.set_visible(True)
    return ax.imshow(matrix, cmap=cmap, vmin=-limit, vmax=limit, interpolation="nearest")


def css_size(picture: MatplotlibFigure) -> tuple[int, int]:
    """Width and height in CSS pixels, of which an inch has 96."""
    width, height = picture.get_size_inches()
    return round(96 * width), round(96 * height)


def rasterise(picture: MatplotlibFigure) -> Image.Image:
    """The figure as an RGB image at its own resolution."""
    with matplotlib.rc_context(dict(STYLE)):
        canvas = FigureCanvasAgg(picture)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        canvas_colour = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas_colour, image).convert("RGB")


def reduced(image: Image.Image, tolerance: int = 20) -> Image.Image:
    """`image` with the fewest of 64, 128 or 256 colours that keep every pixel within `tolerance`.

    `tolerance` is in levels of 255, per channel; 256 colours are taken even if they fall short.
    Maximum coverage bounds the worst error, where a median cut would sacrifice the rare ends of a
    colour bar. No dithering: it costs more bytes than it saves colours.
    """
    exact = np.asarray(image, dtype=np.int16)
    for colours in (64, 128, 256):
        palette = image.quantize(
            colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        if np.abs(np.asarray(palette.convert("RGB"), dtype=np.int16) - exact).max() <= tolerance:
            break
    return palette


def png(image: Image.Image, *, exact: bool = False) -> bytes:
    """PNG of an image without any metadata; colours are reduced to a palette unless `exact`."""
    buffer = io.BytesIO()
    (image if exact else reduced(image)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
