"""What an explorer is without a kernel: frames, their numbers, and the HTML that shows them."""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from . import figures
from .controls import Slider, plain

PIXEL_PICTURE_WIDTH = 480
PHOTOGRAPH_WIDTH, PHOTOGRAPH_QUALITY = 640, 50
#: Of photographs side by side in print, in pixels: between them, above them, and of the letters.
GAP, BAND, LABEL = 6, 24, 13
RADIO_OPTIONS = 4
_STATIC = files(__package__) / "static"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Frame:
    """One picture of an explorer, or several side by side, encoded, with its numbers.

    `size` is (width, height) of one in CSS pixels; `pixelated` says that array entries are shown
    as squares; `values` are as embedded in a page (see `embedded`); `labels` stand over pictures
    that are side by side.
    """

    pictures: tuple[bytes, ...]
    mime: str
    size: tuple[int, int]
    pixelated: bool
    alt: str
    values: dict[str, int | float | str]
    labels: tuple[str, ...] = ()

    @property
    def picture(self) -> bytes:
        return self.pictures[0]

    @property
    def uris(self) -> tuple[str, ...]:
        start = f"data:{self.mime};base64,"
        return tuple(start + base64.b64encode(each).decode() for each in self.pictures)

    @property
    def uri(self) -> str:
        return self.uris[0]


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
    where a frame may lose what an eye does not miss, `parts` what stands side by side in it."""

    image: Image.Image
    size: tuple[int, int]
    exact: bool
    photograph: bool = False
    parts: Mapping[str, Image.Image] = field(default_factory=dict)

    @classmethod
    def of(
        cls, picture: Figure | np.ndarray | Mapping[str, np.ndarray], photograph: bool = False
    ) -> Raster:
        if isinstance(picture, Mapping):
            parts = {label: Image.fromarray(each) for label, each in picture.items()}
            image = side_by_side(parts)
            return cls(image, image.size, False, True, parts)
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
        if self.parts:
            # Every notebook and the page around it carry this one: 256 colours for photographs.
            image = image.quantize(256, dither=Image.Dither.NONE)
        return figures.png(image, exact=True)

    def frame(self, values: Mapping, alt: str) -> Frame:
        if self.parts:
            pictures = tuple(
                _encoded_part(each.mode, each.size, each.tobytes()) for each in self.parts.values()
            )
            size = next(iter(self.parts.values())).size
            labels = tuple(self.parts)
            return Frame(pictures, "image/webp", size, False, alt, embedded(values), labels)
        picture, mime = encoded(self.image, self.photograph)
        return Frame((picture,), mime, self.size, self.pixelated, alt, embedded(values))


def side_by_side(parts: Mapping[str, Image.Image]) -> Image.Image:
    """The parts in a row, each as large as the first, their labels above them."""
    width, height = next(iter(parts.values())).size
    row = Image.new("RGB", ((width + GAP) * len(parts) - GAP, height + BAND), "white")
    pen = ImageDraw.Draw(row)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), LABEL)
    for i, (label, part) in enumerate(parts.items()):
        left = i * (width + GAP)
        pen.text((left + width / 2, BAND / 2), label, figures.INK, font, anchor="mm")
        row.paste(part.resize((width, height), Image.Resampling.BICUBIC), (left, BAND))
    return row


def encoded(image: Image.Image, photograph: bool = False) -> tuple[bytes, str]:
    """The smaller of PNG and lossless WebP, or for a photograph lossy WebP; and its MIME type."""
    webp = io.BytesIO()
    if photograph:
        image.convert("RGB").save(webp, format="WEBP", method=4, quality=PHOTOGRAPH_QUALITY)
        return webp.getvalue(), "image/webp"
    image.convert("RGB").save(webp, format="WEBP", lossless=True, method=4, quality=50)
    choices = (webp.getvalue(), "image/webp"), (figures.png(image, exact=True), "image/png")
    return min(choices, key=lambda choice: len(choice[0]))


@functools.lru_cache(64)
def _encoded_part(mode: str, size: tuple[int, int], pixels: bytes) -> bytes:
    """A photograph as WebP, once: beside others it comes back in frame after frame."""
    return encoded(Image.frombytes(mode, size, pixels), photograph=True)[0]


def style() -> str:
    return f"<style>{(_STATIC / 'explorer.css').read_text(encoding='utf-8')}</style>"


def picture_html(frame: Frame) -> str:
    width, height = frame.size
    kind = ' class="ix-pixelated"' if frame.pixelated else ""
    # The first picture's text says what all of them show.
    alts = (frame.alt, *frame.labels[1:])
    images = [
        f'<img{kind} src="{uri}" alt="{escape(alt)}" width="{width}" height="{height}">'
        for uri, alt in zip(frame.uris, alts, strict=True)
    ]
    if not frame.labels:
        return images[0]
    parts = (
        f"<div><span>{escape(label)}</span>{image}</div>"
        for label, image in zip(frame.labels, images, strict=True)
    )
    return f'<div class="ix-parts" style="--ix-parts: {len(images)}">{"".join(parts)}</div>'


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
    """What the script needs; equal pictures are stored once, the default ones only in <img>."""
    pictures: dict[str, int] = {}
    start = [pictures.setdefault(uri, len(pictures)) for uri in explorer.frame().uris]
    shown_first = len(pictures)
    frames = []
    for point in explorer.grid():
        frame = explorer.frame(**point)
        frames.append(
            {
                "pictures": [pictures.setdefault(uri, len(pictures)) for uri in frame.uris],
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
    uris = [None] * shown_first + list(pictures)[shown_first:]
    return {
        "name": explorer.name, "controls": controls, "frames": frames, "pictures": uris,
        "start": start,
    }  # fmt: skip


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
