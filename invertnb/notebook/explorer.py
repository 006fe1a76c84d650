"""One definition of an interactive figure, three faces: live widget, built page, still picture."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from . import faces
from .controls import Choice, Scalar, Slider
from .faces import Frame, embedded, parse_frames

__all__ = ["Choice", "Explorer", "Frame", "Slider", "View", "embedded", "parse_frames"]

FIGURE_FRAMES = 60
PIXEL_FRAMES = 1000
TINY_PIXELS = 64 * 64
PAGE_BYTES = 1_900_000


@dataclass(frozen=True)
class View:
    """What a callback returns.

    Args:
        picture: a matplotlib figure, or a uint8 array (height, width) or (height, width, 3); or
            several photographs by label, shown side by side, each as large as the first.
        values: label -> number or text, shown under the picture.
        photograph: an array of photographs, not of data: its frames lose a little in a built page
            and are smoothed where they are enlarged.

    Raises:
        ValueError: a picture or a value of any other kind; a figure as a photograph.
    """

    picture: Figure | np.ndarray | Mapping[str, np.ndarray]
    values: Mapping[str, int | float | str]
    photograph: bool = False

    def __post_init__(self) -> None:
        picture = self.picture
        if isinstance(picture, Mapping):
            if not self.photograph or len(picture) < 2:
                raise ValueError("pictures side by side must be two photographs or more")
            for label, each in picture.items():
                if not isinstance(label, str) or not label.strip():
                    raise ValueError(f"pictures must have non-empty labels, got {label!r}")
                _check_array(each)
        elif not isinstance(picture, Figure):
            _check_array(picture)
        elif self.photograph:
            raise ValueError("photograph must be False for a Figure, got True")
        if not isinstance(self.values, Mapping) or not self.values:
            raise ValueError(f"values must map labels to numbers or text, got {self.values!r}")
        for label in self.values:
            if not isinstance(label, str) or not label.strip():
                raise ValueError(f"values must have non-empty strings as labels, got {label!r}")
        embedded(self.values)


def _check_array(picture) -> None:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = getattr(picture, "dtype", type(picture).__name__)
        raise ValueError(f"picture must be a Figure or a uint8 array, got {kind}")
    if picture.ndim < 2 or picture.size == 0 or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"picture must have shape (H, W) or (H, W, 3), got {picture.shape}")


class Explorer(ipywidgets.VBox):
    """A figure with controls.

    Where a kernel runs it is a widget; in the built book it is HTML that carries a frame for every
    point of the grid (only if INVERTNB_FRAMES=1 is set, so that notebooks stay small); in print it
    is the default frame.

    Args:
        name: identifier, unique on a page.
        controls: sliders and choices; the grid is the product of their values.
        callback: called with one argument per control, returns a `View`. It must be deterministic.
        alt: text alternative of the picture, with every control's name in braces.
        caption: text under the figure.

    Raises:
        ValueError: an argument out of line, a grid too large for a page, or a callback that
            returns anything but a `View`. What the callback raises at its default point (at any
            point, if frames are wanted) is passed on, so that a chapter cannot fail in silence.
    """

    def __init__(
        self,
        name: str,
        controls: Sequence[Slider | Choice],
        callback: Callable[..., View],
        alt: str,
        caption: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            raise ValueError(f"name must be a lower-case identifier, got {name!r}")
        self.name = name
        self.controls = _checked_controls(controls)
        self.callback = _checked_callback(callback, self.controls)
        self.alt = _checked_alt(alt, self.controls)
        if caption is not None and not (isinstance(caption, str) and caption.strip()):
            raise ValueError(f"caption must be a non-empty string or None, got {caption!r}")
        self.caption = caption
        self._frames: dict[tuple, Frame] = {}
        view = self.render()
        self._check_grid(view)
        raster = faces.Raster.of(view.picture, view.photograph)
        self._still, self._width = raster.still(), raster.size[0]
        self._frames[self._key({})] = raster.frame(view.values, self._alt_text({}))
        super().__init__(self._build_live())
        if _frames_wanted():
            self._html = self.html()

    def __repr__(self) -> str:
        axes = " x ".join(f"{c.label} ({len(c.values)} values)" for c in self.controls)
        return f"Explorer {self.name!r}: {axes}, {self._grid_size()} frames"

    def grid(self) -> Iterator[dict[str, Scalar]]:
        """The points of the grid, the last control running fastest."""
        names = [control.name for control in self.controls]
        for values in itertools.product(*(control.values for control in self.controls)):
            yield dict(zip(names, values, strict=True))

    def render(self, **point: Scalar) -> View:
        """Call the callback at a point (missing controls: their defaults), check its answer.

        Raises:
            ValueError: an unknown control, a value that its control does not have, or a callback
                that does not return a `View`; besides, whatever the callback raises.
        """
        view = self.callback(**self._complete(point))
        if not isinstance(view, View):
            raise ValueError(f"callback of explorer {self.name!r} must return a View, got {view!r}")
        return view

    def frame(self, **point: Scalar) -> Frame:
        """The encoded picture, its alternative text and its values; each point is computed once.

        Raises:
            ValueError: as `render`; pictures side by side under other labels than at the start.
        """
        key = self._key(point)
        if key not in self._frames:
            view = self.render(**point)
            raster = faces.Raster.of(view.picture, view.photograph)
            frame = raster.frame(view.values, self._alt_text(point))
            if frame.labels != self.frame().labels:
                raise ValueError(
                    f"pictures must have the same labels at every point, got {frame.labels}"
                )
            self._frames[key] = frame
        return self._frames[key]

    def html(self) -> str:
        """The face of a built page: one element that needs nothing from outside.

        Raises:
            ValueError: the frames weigh more than a page may.
        """
        html = faces.page_html(self)
        if len(html) > PAGE_BYTES:
            raise ValueError(
                f"frames of explorer {self.name!r} must stay under {PAGE_BYTES:,} bytes, "
                f"got {len(html):,}: use fewer or smaller frames"
            )
        return html

    def _key(self, point: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
        return tuple(self._complete(point).values())

    def _alt_text(self, point: Mapping[str, Scalar]) -> str:
        full = self._complete(point)
        return self.alt.format(**{c.name: c.text(full[c.name]) for c in self.controls})

    def _complete(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        unknown = set(point) - {control.name for control in self.controls}
        if unknown:
            raise ValueError(f"explorer {self.name!r} has no control {sorted(unknown)[0]!r}")
        full = {c.name: point.get(c.name, c.default) for c in self.controls}
        for control in self.controls:
            value = full[control.name]
            if value not in control.live:
                raise ValueError(f"{control.name} must be one of {control.live}, got {value!r}")
        return full

    def _grid_size(self) -> int:
        return math.prod(len(control.values) for control in self.controls)

    def _check_grid(self, view: View) -> None:
        picture = view.picture
        tiny = isinstance(picture, np.ndarray) and math.prod(picture.shape[:2]) <= TINY_PIXELS
        # Photographs are small for what they show; the page's bytes are their limit.
        limit = PIXEL_FRAMES if tiny or view.photograph else FIGURE_FRAMES
        if self._grid_size() > limit:
            raise ValueError(f"controls must span at most {limit} frames, got {self._grid_size()}")

    def _build_live(self) -> list[ipywidgets.Widget]:
        self._inputs = {control.name: _live_control(control) for control in self.controls}
        self._face = ipywidgets.HTML()
        for widget in self._inputs.values():
            widget.observe(self._update, names="value")
        self._update()
        row = ipywidgets.Layout(flex_flow="row wrap", grid_gap="0 2em")
        return [ipywidgets.Box(list(self._inputs.values()), layout=row), self._face]

    def _update(self, change=None) -> None:
        try:
            frame = self.frame(**{name: widget.value for name, widget in self._inputs.items()})
            body = faces.picture_html(frame) + faces.values_html(frame)
        except Exception as error:  # whatever a callback raises, the reader has to see it
            body = f'<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'
        body += faces.caption_html(self.caption)
        self._face.value = f'<figure class="invertnb-explorer">{faces.style()}{body}</figure>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {**super()._repr_mimebundle_(), "text/plain": repr(self), "image/png": self._still}
        if _frames_wanted():
            data["text/html"] = getattr(self, "_html", None) or self.html()
        return data, {"image/png": {"width": self._width}}


def _frames_wanted() -> bool:
    return os.environ.get("INVERTNB_FRAMES") == "1"


def _live_control(control: Slider | Choice) -> ipywidgets.Widget:
    options = [(control.text(value), value) for value in control.live]
    kwargs = {"options": options, "value": control.default, "description": control.label}
    style = {"description_width": "initial"}
    if isinstance(control, Slider):
        return ipywidgets.SelectionSlider(continuous_update=False, style=style, **kwargs)
    if len(options) > faces.RADIO_OPTIONS:
        return ipywidgets.Dropdown(style=style, **kwargs)
    return ipywidgets.ToggleButtons(style=style | {"button_width": "auto"}, **kwargs)


def _checked_controls(controls: Sequence[Slider | Choice]) -> tuple[Slider | Choice, ...]:
    controls = tuple(controls)
    names = [getattr(control, "name", None) for control in controls]
    if not controls or not all(isinstance(control, Slider | Choice) for control in controls):
        raise ValueError(f"controls must be one or more of Slider and Choice, got {controls!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"controls must have distinct names, got {names}")
    return controls


def _checked_callback(callback: Callable[..., View], controls: Sequence) -> Callable[..., View]:
    if not callable(callback):
        raise ValueError(f"callback must be callable, got {callback!r}")
    names = [control.name for control in controls]
    try:
        inspect.signature(callback).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(f"callback must take the arguments {names}, but: {error}") from None
    return callback


def _checked_alt(alt: str, controls: Sequence) -> str:
    names = {control.name for control in controls}
    if not isinstance(alt, str):
        raise ValueError(f"alt must be a string, got {alt!r}")
    try:
        parts = list(string.Formatter().parse(alt))
    except ValueError as error:
        raise ValueError(f"alt must be a format string, got {alt!r}: {error}") from None
    fields = {field for _, field, _, _ in parts if field is not None}
    if fields != names or any(spec or conversion for _, _, spec, conversion in parts):
        wanted = ", ".join(f"{{{name}}}" for name in sorted(names))
        raise ValueError(f"alt must name every control as {wanted}, got {alt!r}")
    return alt
