"""What an explorer is without a kernel: frames, their numbers, and the HTML that shows them."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from . import figures
from .controls import Slider, plain

PIXEL_PICTURE_WIDTH = 480
PHOTOGRAPH_WIDTH, PHOTOGRAPH_QUALITY = 640, 60
RADIO_OPTIONS = 4
_STATIC = files(__package__) / "static"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Frame:
    """One picture of an explorer, encoded, with its numbers.

    `size` is (width, height) in CSS pixels; `pixelated` says that array entries are shown as
    squares; `values` are as embedded in a page (see `embedded`).
    """

    picture: bytes
    mime: str
    size: tuple[int, int]
    pixelated: bool
    alt: str
    values: dict[str, int | float | str]

    @property
    def uri(self) -> str:
        return f"data:{self.mime};base64,{base64.b64encode(self.picture).decode()}"


def embedded(values: Mapping) -> dict[str, int | float | str]:
    """`values` as a page carries them: floats to six significant digits, nan and inf as text."""
    return {label: _embedded(plain(value), label) for label, value in values.items()}


def _embedded(value, label: str) -> int | float | str:
    if isinstance(value, int | str):
        return value
    if not isinstance(value, float):
        raise ValueError(f"value {label!r} must be a number or a string, got {value!r}")
    return float(f"{value:.6g}") + 0.0 if math.isfinite(value) else str(value)


def shown(value: int | float | str) -> str:
    """A value as the reader sees it: whole numbers in full, others to four significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or 1e4 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}" if exponent else mantissa


@dataclass(frozen=True)
class Raster:
    """A picture as an image; `size` as in `Frame`, `exact` where every pixel is data, `photograph`
    where a frame may lose what an eye does not miss."""

    image: Image.Image
    size: tuple[int, int]
    exact: bool
    photograph: bool = False

    @classmethod
    def of(cls, picture: Figure | np.ndarray, photograph: bool = False) -> Raster:
        if isinstance(picture, np.ndarray):
            height, width = picture.shape[:2]
            if photograph:
                image = Image.fromarray(np.ascontiguousarray(picture))
                wide = max(width, PHOTOGRAPH_WIDTH)
                return cls(image, (wide, round(height * wide / width)), False, True)
            scale = max(1, PIXEL_PICTURE_WIDTH // width)
            image = Image.fromarray(np.ascontiguousarray(picture))
            return cls(image, (width * scale, height * scale), True)
        return cls(figures.reduced(figures.rasterise(picture)), figures.css_size(picture), False)

    @property
    def pixelated(self) -> bool:
        return self.exact and self.size != self.image.size

    def still(self) -> bytes:
        """The PNG for print, scaled up here since print knows no pixelated scaling."""
        image = self.image
        if self.pixelated:
            image = image.resize(self.size, Image.Resampling.NEAREST)
        return figures.png(image, exact=True)

    def frame(self, values: Mapping, alt: str) -> Frame:
        picture = encoded(self.image, self.photograph)
        return Frame(*picture, self.size, self.pixelated, alt, embedded(values))


def encoded(image: Image.Image, photograph: bool = False) -> tuple[bytes, str]:
    """The smaller of PNG and lossless WebP, or for a photograph lossy WebP; and its MIME type."""
    webp = io.BytesIO()
    if photograph:
        image.convert("RGB").save(webp, format="WEBP", method=4, quality=PHOTOGRAPH_QUALITY)
        return webp.getvalue(), "image/webp"
    image.convert("RGB").save(webp, format="WEBP", lossless=True, method=4, quality=50)
    choices = (webp.getvalue(), "image/webp"), (figures.png(image, exact=True), "image/png")
    return min(choices, key=lambda choice: len(choice[0]))


def style() -> str:
    return f"<style>{(_STATIC / 'explorer.css').read_text(encoding='utf-8')}</style>"


def picture_html(frame: Frame) -> str:
    width, height = frame.size
    kind = ' class="ix-pixelated"' if frame.pixelated else ""
    alt = escape(frame.alt)
    return f'<img{kind} src="{frame.uri}" alt="{alt}" width="{width}" height="{height}">'


def values_html(frame: Frame) -> str:
    items = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(shown(value))}</dd></div>"
        for label, value in frame.values.items()
    )
    return f'<dl aria-live="polite" aria-atomic="true">{"".join(items)}</dl>'


def caption_html(caption: str | None) -> str:
    return f"<figcaption>{escape(caption)}</figcaption>" if caption else ""


def page_html(explorer) -> str:
    """The face of a built page: controls, every frame with its values, and the script."""
    start = explorer.frame()
    here = "; ".join(f"{c.label}: {c.text(c.default)}" for c in explorer.controls)
    controls = "".join(_control_html(explorer.name, control) for control in explorer.controls)
    data = json.dumps(_payload(explorer), separators=(",", ":"), allow_nan=False)
    script = (_STATIC / "explorer.js").read_text(encoding="utf-8")
    return (
        f'<figure class="invertnb-explorer" id="explorer-{explorer.name}">{style()}'
        f'<div class="ix-controls" role="group" aria-label="controls">{controls}</div>'
        f'<p class="ix-point">{escape(here)}</p>'
        f"{picture_html(start)}{values_html(start)}{caption_html(explorer.caption)}"
        f'<script type="application/json">{data.replace("<", chr(92) + "u003c")}</script>'
        f"<script>{script}</script></figure>"
    )


def _control_html(explorer: str, control) -> str:
    key, label = f"explorer-{explorer}-{control.name}", escape(control.label)
    texts = [escape(control.text(value)) for value in control.values]
    start = control.values.index(control.default)
    if isinstance(control, Slider):
        return (
            f'<div class="ix-control ix-slider"><label for="{key}">{label}</label>'
            f'<input id="{key}" type="range" min="0" max="{len(texts) - 1}" value="{start}"'
            f' aria-valuetext="{texts[start]}" autocomplete="off" data-control>'
            f'<output for="{key}" aria-live="off">{texts[start]}</output></div>'
        )
    if len(texts) > RADIO_OPTIONS:
        options = "".join(
            f"<option{_when(i == start, 'selected')}>{text}</option>"
            for i, text in enumerate(texts)
        )
        return (
            f'<div class="ix-control"><label for="{key}">{label}</label>'
            f'<select id="{key}" autocomplete="off" data-control>{options}</select></div>'
        )
    options = "".join(
        f'<label><input type="radio" name="{key}" value="{i}" autocomplete="off"'
        f"{_when(i == start, 'checked')}>{text}</label>"
        for i, text in enumerate(texts)
    )
    return f'<fieldset class="ix-control" data-control><legend>{label}</legend>{options}</fieldset>'


def _when(condition: bool, attribute: str) -> str:
    return f" {attribute}" if condition else ""


def _payload(explorer) -> dict:
    """What the script needs; equal pictures are stored once, the default one only in <img>."""
    pictures: dict[str, int] = {explorer.frame().uri: 0}
    frames = []
    for point in explorer.grid():
        frame = explorer.frame(**point)
        frames.append(
            {
                "picture": pictures.setdefault(frame.uri, len(pictures)),
                "size": frame.size,
                "alt": frame.alt,
                "values": frame.values,
                # Pairs, since a script would move labels like "2" to the front of a mapping.
                "shown": [(label, shown(value)) for label, value in frame.values.items()],
            }
        )
    controls = [
        {
            "name": control.name,
            "label": control.label,
            "values": control.values,
            "texts": [control.text(value) for value in control.values],
        }
        for control in explorer.controls
    ]
    uris = [None, *list(pictures)[1:]]
    return {"name": explorer.name, "controls": controls, "frames": frames, "pictures": uris}


class _Payloads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found, self._inside, self._id = {}, False, None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "figure" and attributes.get("class") == "invertnb-explorer":
            self._id = attributes["id"].removeprefix("explorer-")
        self._inside = tag == "script" and attributes.get("type") == "application/json" and self._id

    def handle_data(self, data):
        if self._inside:
            if self._id in self.found:
                raise ValueError(f"explorer {self._id!r} must stand on a page once, found twice")
            self.found[self._id], self._inside, self._id = json.loads(data), False, None


def parse_frames(html: str) -> dict[str, list[tuple[dict, dict]]]:
    """The frames a page embeds: {explorer: [(point, values), ...]}, in the order of its grid."""
    payloads = _Payloads()
    payloads.feed(html)
    result = {}
    for name, payload in payloads.found.items():
        controls = payload["controls"]
        names = [control["name"] for control in controls]
        points = itertools.product(*(control["values"] for control in controls))
        frames = zip(points, payload["frames"], strict=True)
        result[name] = [(dict(zip(names, p, strict=True)), frame["values"]) for p, frame in frames]
    return result
