"""The face of a built page, without a browser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from invertnb.notebook.explorer import Choice, Explorer, Slider, View, embedded, parse_frames
from invertnb.notebook.figures import figure


def curve(k, way):
    fig, ax = figure(3, 2)
    ax.plot([0, 1], [0, k if way == "up" else -k])
    return View(fig, {"slope": k / 3, "a < b & c": way, "limit": float("inf")})


def explorer(name="curves", callback=curve, caption="Slopes < 6 & more."):
    controls = [
        Slider("k", [1, 2, 5], "slope k", default=2, live=range(1, 8)),
        Choice("way", {"going up": "up", "going down": "down"}, 'the "way"'),
    ]
    return Explorer(name, controls, callback, 'Slope {k}, "{way}"', caption)


class Elements(HTMLParser):
    VOID = {"img", "input", "br", "meta"}

    def __init__(self, html):
        super().__init__()
        self.all, self.open, self.text = [], [], {}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1], []).append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.all if name == tag]


def test_html_is_the_same_on_every_run():
    assert explorer().html() == explorer().html()


def test_html_is_well_formed_and_names_everything():
    elements = Elements(explorer().html())
    assert not elements.open
    (picture,) = elements.named("img")
    assert picture["alt"] == 'Slope 2, "going up"'
    assert picture["src"].startswith("data:image/")
    labels = {attributes["for"] for attributes in elements.named("label") if "for" in attributes}
    slider, first, second = elements.named("input")
    assert slider["type"] == "range" and slider["id"] in labels
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert slider["aria-valuetext"] == "2" and elements.text["output"] == ["2"]
    assert first["type"] == second["type"] == "radio" and first["name"] == second["name"]
    assert "checked" in first and "checked" not in second
    assert elements.text["legend"] == ['the "way"']
    assert elements.text["figcaption"] == ["Slopes < 6 & more."]
    assert elements.text["dt"] == ["slope", "a < b & c", "limit"]
    assert elements.text["dd"] == ["0.6667", "up", "inf"]
    assert elements.text["p"] == ['slope k: 2; the "way": going up']
    assert elements.named("dl")[0]["aria-live"] == "polite"


def test_html_loads_nothing():
    html = explorer().html()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:[^\"]*", "", html))


def test_ids_come_from_the_name_and_differ_between_explorers():
    ids = re.findall(r'\bid="([^"]*)"', explorer("one").html() + explorer("two").html())
    assert len(ids) == len(set(ids)) == 4
    assert all(re.match("explorer-(one|two)", identifier) for identifier in ids)


def test_page_gives_back_every_value():
    picture = np.zeros((2, 2), np.uint8)
    one, two = explorer("one"), explorer("two", lambda k, way: View(picture, {"k": k}))
    frames = parse_frames(f"<html><body><p>a &lt; b</p>{one.html()}<p>{two.html()}</body></html>")
    assert list(frames) == ["one", "two"]
    for it in (one, two):
        expected = [(point, embedded(it.render(**point).values)) for point in it.grid()]
        assert frames[it.name] == expected
    assert frames["one"][0][1] == {"slope": 0.333333, "a < b & c": "up", "limit": "inf"}


def test_same_explorer_twice_on_a_page_is_refused():
    with pytest.raises(ValueError, match="explorer 'curves' must stand on a page once"):
        parse_frames(explorer().html() * 2)


def test_pages_without_explorers_have_no_frames():
    assert parse_frames('<script type="application/json">{"a": 1}</script>') == {}


def test_equal_pictures_are_stored_once():
    html = explorer(callback=lambda k, way: View(np.zeros((9, 9), np.uint8), {"k": k})).html()
    assert html.count("data:image/") == 1
    assert explorer().html().count("data:image/") == 6


def test_of_pictures_side_by_side_those_that_stay_are_stored_once():
    left, label = np.zeros((9, 9, 3), np.uint8), "left <b>"

    def show(k, way):
        right = np.full((9, 9, 3), 30 * k + len(way), np.uint8)
        return View({label: left, "right": right}, {"k": k}, photograph=True)

    it = explorer(callback=show)
    html = it.html()
    assert html.count("data:image/") == 1 + 6 and "<b>" not in html
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    data = json.loads(text)
    start = it.frame().uris
    assert data["pictures"][:2] == [None, None] and data["start"] == [0, 1]
    for point, frame in zip(it.grid(), data["frames"], strict=True):
        uris = [data["pictures"][i] or start[i] for i in frame["pictures"]]
        assert tuple(uris) == it.frame(**point).uris
    alts = [attributes["alt"] for attributes in Elements(html).named("img")]
    assert alts == [it.frame().alt, "right"]


def test_values_cannot_break_out_of_the_script():
    def hostile(k, way):
        return View(np.zeros((2, 2), np.uint8), {"text": "</script><b>", "<i>": k})

    html = explorer(callback=hostile).html()
    assert html.count("</script>") == 2 and "<b>" not in html and "<i>" not in html
    assert parse_frames(html)["curves"][0][1] == {"text": "</script><b>", "<i>": 1}


def test_embedded_json_is_strict():
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', explorer().html())
    assert json.loads(data, parse_constant=lambda name: pytest.fail(name))


def test_sixty_frames_of_a_line_figure_fit_a_page():
    def wave(k):
        fig, ax = figure()
        x = np.linspace(0, 1, 200)
        for i in range(3):
            ax.plot(x, np.sin(6 * x + i + k / 9), label=f"line {i}")
        ax.legend()
        return View(fig, {"k": k})

    html = Explorer("waves", [Slider("k", range(12), "k")], wave, "Waves, k = {k}").html()
    assert 5 * len(html) < 1_900_000


def test_frames_too_heavy_for_a_page_are_refused():
    def noise(k, way):
        draw = np.random.default_rng(k + 10 * (way == "up"))
        return View(draw.integers(0, 256, (500, 500, 3), dtype=np.uint8), {"k": k})

    with pytest.raises(ValueError, match="frames of explorer 'curves' must stay under 1,900,000"):
        explorer(callback=noise).html()
