"""The static face of an explorer in a bare page: keyboard, labels, phone, dark mode, print."""

import numpy as np
import pytest

from invertnb.notebook.explorer import Choice, Explorer, Slider, View
from invertnb.notebook.figures import figure

PAGE = (
    '<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>page</title></head>'
    "<body><main>{body}</main></body></html>"
)


def wave(k, way):
    fig, ax = figure()
    ax.plot(np.cos(np.linspace(0, k, 50)) * (1 if way == "up" else -1))
    return View(fig, {"frequency": k / 3, "2": "numeric label", "direction": way})


def stripes(row, mode):
    picture = np.zeros((6, 10), dtype=np.uint8)
    picture[row] = 200 + len(mode)
    return View(picture, {"row": row, "mode": mode})


def pair(level, way):
    left = np.full((40, 40, 3), 90, np.uint8)
    right = np.full((20, 20, 3), 10 * level + len(way), np.uint8)
    return View({"left": left, "right": right}, {"level": level}, photograph=True)


@pytest.fixture(scope="module")
def explorers():
    ways = {"going up": "up", "going down": "down"}
    return [
        Explorer(
            "waves",
            [Slider("k", [1, 4, 9], "frequency k", default=4), Choice("way", ways, "direction")],
            wave,
            "Wave of frequency {k}, {way}",
            caption="A wave whose frequency and direction the reader chooses. " * 3,
        ),
        Explorer(
            "stripes",
            [Slider("row", range(6), "row"), Choice("mode", list("abcde"), "mode")],
            stripes,
            "Stripe in row {row}, mode {mode}",
        ),
        Explorer(
            "pair",
            [Slider("level", range(3, 6), "level"), Choice("way", ["left", "right"], "side")],
            pair,
            "Two squares, level {level}, {way}",
        ),
    ]


@pytest.fixture
def show(explorers, visit, tmp_path):
    def open_page(theme="light", **options):
        path = tmp_path / "page.html"
        body = "".join(explorer.html() for explorer in explorers)
        path.write_text(PAGE.format(theme=theme, body=body), encoding="utf-8")
        return visit(path.as_uri(), offline=True, **options)

    return open_page


def state(page, name):
    return page.locator(f"#explorer-{name}").evaluate(
        """root => ({
          src: root.querySelector("img").src,
          alt: root.querySelector("img").alt,
          values: Object.fromEntries([...root.querySelectorAll("dl > div")].map(
            row => [row.querySelector("dt").textContent, row.querySelector("dd").textContent])),
          labels: [...root.querySelectorAll("dt")].map(term => term.textContent),
          output: root.querySelector("output").textContent,
          spoken: root.querySelector("input").getAttribute("aria-valuetext"),
          shown: root.querySelector("img").naturalWidth > 0,
        })"""
    )


def test_keyboard_moves_the_slider_and_all_that_depends_on_it(show, explorers):
    seen = show()
    waves = explorers[0]
    before = state(seen.page, "waves")
    assert before["src"] == waves.frame().uri and before["output"] == before["spoken"] == "4"
    seen.page.get_by_label("frequency k").focus()
    seen.page.keyboard.press("ArrowRight")
    after, frame = state(seen.page, "waves"), waves.frame(k=9)
    assert after["src"] == frame.uri != before["src"] and after["shown"]
    assert after["alt"] == frame.alt == "Wave of frequency 9, going up"
    assert after["output"] == after["spoken"] == "9"
    assert after["values"] == {"frequency": "3", "2": "numeric label", "direction": "up"}
    assert after["labels"] == ["frequency", "2", "direction"]
    seen.page.keyboard.press("ArrowLeft")
    assert state(seen.page, "waves") == before
    assert not seen.problems and not seen.outside


def test_every_control_is_reached_by_tab_and_shows_its_focus(show):
    seen, reached = show(), []
    for _ in range(4):
        seen.page.keyboard.press("Tab")
        reached.append(
            seen.page.evaluate(
                """() => [document.activeElement.type, document.activeElement.labels[0].textContent,
                          getComputedStyle(document.activeElement).outlineStyle]"""
            )
        )
    assert reached == [
        ["range", "frequency k", "solid"],
        ["radio", "going up", "solid"],
        ["range", "row", "solid"],
        ["select-one", "mode", "solid"],
    ]


def test_radio_and_menu_move_with_the_keyboard_and_explorers_stay_apart(show, explorers):
    seen = show()
    seen.page.get_by_label("going up").focus()
    seen.page.keyboard.press("ArrowDown")
    assert state(seen.page, "waves")["src"] == explorers[0].frame(way="down").uri
    assert state(seen.page, "stripes")["src"] == explorers[1].frame().uri
    seen.page.get_by_label("mode").focus()
    seen.page.keyboard.press("ArrowDown")
    seen.page.get_by_label("row").focus()
    seen.page.keyboard.press("End")
    after = state(seen.page, "stripes")
    assert after["values"] == {"row": "5", "mode": "b"}
    assert after["src"] == explorers[1].frame(row=5, mode="b").uri
    assert not seen.problems


def test_every_grid_point_shows_its_own_frame(show, explorers):
    seen = show()
    slider = seen.page.get_by_label("row")
    menu = seen.page.get_by_label("mode")
    for point in explorers[1].grid():
        menu.select_option(point["mode"])
        slider.fill(str(point["row"]))
        got, frame = state(seen.page, "stripes"), explorers[1].frame(**point)
        assert got["src"] == frame.uri and got["alt"] == frame.alt
        assert got["values"] == {"row": str(point["row"]), "mode": point["mode"]}


def test_without_a_script_the_default_frame_stands(show):
    page = show(java_script_enabled=False).page
    root = page.locator("#explorer-waves")
    assert root.locator("img").get_attribute("alt") == "Wave of frequency 4, going up"
    assert root.locator(".ix-point").inner_text() == "frequency k: 4; direction: going up"
    assert root.locator(".ix-point").is_visible()
    assert not root.locator("input").first.is_visible()


def test_print_shows_the_frame_and_what_it_is_without_controls(show):
    page = show().page
    page.get_by_label("frequency k").focus()
    page.keyboard.press("ArrowRight")
    page.emulate_media(media="print")
    root = page.locator("#explorer-waves")
    assert not root.locator("input").first.is_visible()
    assert root.locator("img").is_visible()
    assert root.locator(".ix-point").inner_text() == "frequency k: 9; direction: going up"


SIDE_BY_SIDE = """root => [...root.querySelectorAll(".ix-parts > div")].map((e) => ({
  label: e.querySelector("span").textContent,
  src: e.querySelector("img").src,
  alt: e.querySelector("img").alt,
  box: ((b) => [b.x, b.y, b.width, b.height])(e.querySelector("img").getBoundingClientRect()),
}))"""


@pytest.mark.parametrize("width", [390, 1300])
def test_pictures_side_by_side_change_together_and_are_of_one_size(show, explorers, width):
    page = show(width=width).page
    root = page.locator("#explorer-pair")
    for point in [{}, {"level": 4}]:
        if point:
            root.locator("input[type=range]").focus()
            page.keyboard.press("ArrowRight")
        left, right = root.evaluate(SIDE_BY_SIDE)
        frame = explorers[2].frame(**point)
        assert (left["src"], right["src"]) == frame.uris
        assert (left["label"], right["label"]) == ("left", "right")
        assert (left["alt"], right["alt"]) == (frame.alt, "right")
        assert left["box"][1:] == right["box"][1:] and left["box"][2] == left["box"][3]
        assert left["box"][0] + left["box"][2] < right["box"][0]


def test_phone_needs_no_sideways_scrolling(show, cut_off):
    page = show(width=390).page
    assert cut_off(page) == []
    width, height = page.locator("#explorer-waves img").evaluate("e => [e.width, e.height]")
    assert width < 390 and abs(width / height - 7.5 / 3.2) < 0.05
    smallest = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll("input[type=range], select, label")]
             .map(e => e.getBoundingClientRect().height))"""
    )
    assert smallest >= 15


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll(".invertnb-explorer *")]
    .filter((e) => own(e) && e.checkVisibility() && !["STYLE", "SCRIPT"].includes(e.tagName))
    .map((e) => {
      const [a, b] = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))];
      return [e.tagName, e.textContent, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(show, theme):
    measured = show(theme, scheme=theme).page.evaluate(CONTRAST)
    tags = {tag for tag, _, _ in measured}
    assert {"LABEL", "LEGEND", "OUTPUT", "DT", "DD", "FIGCAPTION"} <= tags
    assert [entry for entry in measured if entry[2] < 4.5] == []
    dark = show(theme).page.locator("#explorer-waves").evaluate(
        "e => getComputedStyle(e).backgroundColor"
    )
    assert (dark == "rgb(28, 33, 40)") == (theme == "dark")


def test_fields_keep_no_state_of_an_earlier_visit(show, explorers):
    seen = show()
    seen.page.get_by_label("frequency k").focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.reload()
    assert state(seen.page, "waves")["src"] == explorers[0].frame().uri
