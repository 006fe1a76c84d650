import io

import matplotlib
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

from invertnb.notebook import figures
from invertnb.notebook.figures import (
    PALETTE, Figure, draw_matrix, figure, photographs, png, rasterise, reduced,
)  # fmt: skip


def line_figure():
    fig, ax = figure()
    ax.plot(np.sin(np.linspace(0, 6, 100)))
    ax.set_xlabel("relative error")
    return fig


def colour_bar_figure():
    fig, axes = figure(ncols=2)
    axes[0].hist(np.random.default_rng(0).normal(size=1000), bins=40)
    image = draw_matrix(axes[1], np.random.default_rng(1).normal(size=(40, 40)))
    fig.colorbar(image)
    return fig


def test_figure_is_ours_has_its_size_and_needs_no_pyplot():
    fig, ax = figure(5, 2)
    assert type(fig) is Figure and isinstance(fig, MatplotlibFigure)
    assert rasterise(fig).size == (750, 300)
    assert figure(nrows=2, ncols=3)[1].shape == (2, 3)
    assert repr(fig) == "<Figure size 750x300 with 1 Axes>"


def test_style_reaches_lines_but_not_matplotlibs_settings():
    before = dict(matplotlib.rcParams)
    _, ax = figure()
    (first,), (second,) = ax.plot([0, 1]), ax.plot([1, 0])
    assert first.get_linewidth() == second.get_linewidth() == 2
    assert [first.get_color(), second.get_color()] == [PALETTE["blue"], PALETTE["orange"]]
    assert not ax.spines["top"].get_visible()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", [line_figure, colour_bar_figure])
def test_png_is_small_and_the_same_on_every_run(draw):
    first, second = png(rasterise(draw())), png(rasterise(draw()))
    assert first == second
    assert len(first) < 35_000
    image = Image.open(io.BytesIO(first))
    assert image.mode == "P"
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_png_carries_no_metadata():
    data, chunks, at = png(rasterise(line_figure())), [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        chunks.append(data[at + 4 : at + 8])
        at += 12 + length
    assert set(chunks) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


@pytest.mark.parametrize("draw", [line_figure, colour_bar_figure])
def test_fewer_colours_change_no_pixel_visibly(draw):
    exact = rasterise(draw())
    few = reduced(exact)
    assert len(few.getcolors()) <= 256 < len(exact.getcolors(1 << 24))
    difference = np.asarray(few.convert("RGB"), int) - np.asarray(exact, int)
    assert np.abs(difference).max() <= 20


def test_notebook_shows_the_small_png_at_its_true_width():
    data, metadata = DisplayFormatter().format(line_figure())
    assert data["image/png"] == line_figure()._repr_png_()
    assert data["text/plain"] == "<Figure size 1125x480 with 1 Axes>"
    assert metadata == {"image/png": {"width": 720}}
    assert set(data) == {"image/png", "text/plain"}


def test_transparent_figures_become_white():
    fig, ax = figure()
    fig.patch.set_alpha(0)
    ax.set_axis_off()
    assert rasterise(fig).getcolors() == [(1125 * 480, (255, 255, 255))]


def test_matrix_is_white_at_zero_and_symmetric():
    _, ax = figure()
    image = draw_matrix(ax, [[-1.0, 0.0, 3.0]])
    assert image.get_clim() == (-3.0, 3.0)
    red, green, blue, _ = image.cmap(image.norm(3.0))
    assert red > blue and min(image.cmap(image.norm(0.0))) > 0.9
    assert draw_matrix(ax, np.zeros((2, 2))).get_clim() == (-1.0, 1.0)
    assert draw_matrix(ax, [[5.0]], limit=2).get_clim() == (-2, 2)


@pytest.mark.parametrize("values", [[1.0], [[np.nan]], np.zeros((0, 3)), np.zeros((2, 2, 2))])
def test_matrix_refuses_what_is_none(values):
    with pytest.raises(ValueError, match="values must be a finite matrix, got shape"):
        draw_matrix(figure()[1], values)


def test_matrix_refuses_bad_limits():
    with pytest.raises(ValueError, match="limit must be a positive number, got -1"):
        draw_matrix(figure()[1], [[1.0]], limit=-1)


@pytest.mark.parametrize("size", [(0, 1), (1, -2), (float("inf"), 1), (1, float("nan"))])
def test_figure_refuses_bad_sizes(size):
    with pytest.raises(ValueError, match="must be a positive number of inches"):
        figure(*size)


def test_photographs_are_shown_as_a_jpeg_and_as_nothing_else():
    gray = np.full((8, 8, 3), 0.5)
    fig = photographs({"one": [gray, gray + 2], "two": [gray - 2, gray]}, ["left", "right"], width=4)
    data, metadata = DisplayFormatter().format(fig)
    assert set(data) == {"text/plain", "image/jpeg"} and metadata == {"image/jpeg": {"width": 384}}
    shown = Image.open(io.BytesIO(fig._repr_jpeg_()))
    assert shown.format == "JPEG" and shown.size == figures.css_size(fig)
    assert [ax.get_title() for ax in fig.axes] == ["left", "right", "", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == ["one", "", "two", ""]
    # What leaves [0, 1] is cut off.
    ends = [float(np.asarray(ax.images[0].get_array()).mean()) for ax in fig.axes]
    assert ends == [0.5, 1.0, 0.0, 0.5]


def test_photographs_refuse_a_row_that_does_not_fit():
    gray = np.zeros((4, 4, 3))
    with pytest.raises(ValueError, match="row 'two' must have 2 pictures, got 1"):
        photographs({"one": [gray, gray], "two": [gray]}, ["left", "right"])
    with pytest.raises(ValueError, match=r"rows must hold pictures, got \[\] x \['left'\]"):
        photographs({}, ["left"])
