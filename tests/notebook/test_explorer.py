import io

import numpy as np
import pytest
import torch
from PIL import Image

from invertnb.notebook.explorer import Choice, Explorer, Slider, View, embedded
from invertnb.notebook.faces import BAND, GAP, shown
from invertnb.notebook.figures import figure

SMALL = np.zeros((2, 2), np.uint8)
ALT = "A line of slope {k}, {way}"


def line(k, way):
    fig, ax = figure(3, 2)
    ax.plot([0, 1], [0, k if way == "up" else -k])
    return View(fig, {"slope": k / 3, "way": way})


def pixels(k, way):
    return View(np.full((4, 6), 10 * k, dtype=np.uint8), {"k": k})


def controls():
    slider = Slider("k", [1, 2, 5], "slope k", default=2, live=range(1, 8))
    return [slider, Choice("way", {"going up": "up", "going down": "down"}, "w")]


def explorer(callback=line, name="lines", **changes):
    arguments = {"controls": controls(), "callback": callback, "alt": ALT, **changes}
    return Explorer(name, **arguments)


class Counting:
    def __init__(self, callback):
        self.callback, self.calls = callback, []

    def __call__(self, k, way):
        self.calls.append((k, way))
        return self.callback(k, way)


# The definition


def test_repr_is_fixed():
    assert repr(explorer()) == "Explorer 'lines': slope k (3 values) x w (2 values), 6 frames"


def test_grid_runs_over_the_last_control_first():
    points = list(explorer(pixels).grid())
    assert points[:3] == [{"k": 1, "way": "up"}, {"k": 1, "way": "down"}, {"k": 2, "way": "up"}]
    assert len(points) == 6


def test_defaults_are_the_first_values_unless_named():
    assert Slider("k", [3, 4], "k").default == 3
    assert Choice("c", ["x", "y"], "c").default == "x"
    assert Choice("c", {"none": None, "one": 1}, "c").default is None


def test_controls_take_numpy_and_torch_scalars():
    slider = Slider("k", np.array([1, 2]), "k", default=np.int64(2), live=torch.arange(1, 4))
    assert slider.values == (1, 2) and slider.live == (1, 2, 3)
    assert all(type(value) is int for value in (*slider.values, slider.default, *slider.live))


def test_live_values_contain_the_grid():
    assert Slider("x", [0.1, 0.5], "x", live=[0.2, 0.5]).live == (0.1, 0.2, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slider("not a name", [1], "x"), "name of a slider must be .* got 'not a name'"),
        (lambda: Slider("x", [1], " "), "label of 'x' must be a non-empty string, got ' '"),
        (lambda: Slider("x", [], "x"), r"values of slider 'x' must increase, got \(\)"),
        (lambda: Slider("x", [1, 1], "x"), r"values of slider 'x' must increase, got \(1, 1\)"),
        (lambda: Slider("x", [2, 1], "x"), "must increase"),
        (lambda: Slider("x", [1, float("nan")], "x"), "must be finite numbers, got nan"),
        (lambda: Slider("x", ["a"], "x"), "must be finite numbers, got 'a'"),
        (lambda: Slider("x", [1], "x", live=[float("inf")]), "live values .* numbers, got inf"),
        (lambda: Slider("x", [1, 2], "x", default=3), r"must be one of \(1, 2\), got 3"),
        (lambda: Slider("x", [1.01, 1.02], "x", format="{:.1f}"), "must tell its values apart"),
        (lambda: Choice("1", ["a"], "x"), "name of a choice must be .* got '1'"),
        (lambda: Choice("x", [], "x"), r"options of choice 'x' must be distinct, got \[\]"),
        (lambda: Choice("x", ["a", "a"], "x"), "must be distinct"),
        (lambda: Choice("x", {"a": 1, "b": 1}, "x"), "must be distinct"),
        (lambda: Choice("x", {"a": [1]}, "x"), r"must be scalars, got \[1\]"),
        (lambda: Choice("x", {"": 1}, "x"), "label of 'x' must be a non-empty string"),
        (lambda: Choice("x", ["a"], "x", default="b"), r"must be one of \('a',\), got 'b'"),
        (lambda: View("picture", {"a": 1}), "picture must be a Figure or a uint8 array, got str"),
        (lambda: View(np.zeros((2, 2)), {"a": 1}), "or a uint8 array, got float64"),
        (lambda: View(np.zeros(4, np.uint8), {"a": 1}), r"or \(H, W, 3\), got \(4,\)"),
        (lambda: View(np.zeros((2, 2, 4), np.uint8), {"a": 1}), r"got \(2, 2, 4\)"),
        (lambda: View(np.zeros((0, 2), np.uint8), {"a": 1}), r"got \(0, 2\)"),
        (lambda: View(np.zeros((2, 2), np.uint8), {}), "values must map labels"),
        (lambda: View(np.zeros((2, 2), np.uint8), {3: 1}), "non-empty strings as labels, got 3"),
        (lambda: View(np.zeros((2, 2), np.uint8), {"a": [1]}), r"value 'a' must be .* got \[1\]"),
        (lambda: View(figure()[0], {"a": 1}, photograph=True), "photograph must be False"),
        (lambda: View({"a": SMALL, "b": SMALL}, {"a": 1}), "side by side must be two photographs"),
        (lambda: View({"a": SMALL}, {"a": 1}, True), "side by side must be two photographs"),
        (lambda: View({"a": SMALL, " ": SMALL}, {"a": 1}, True), "non-empty labels, got ' '"),
        (lambda: View({"a": SMALL, "b": SMALL / 2}, {"a": 1}, True), "array, got float64"),
        (lambda: View({"a": SMALL, "b": SMALL[0]}, {"a": 1}, True), r"got \(2,\)"),
        (lambda: explorer(name="No Name"), "name must be a lower-case identifier, got 'No Name'"),
        (lambda: explorer(controls=[]), "controls must be one or more of Slider and Choice"),
        (lambda: explorer(controls=["k"]), r"of Slider and Choice, got \('k',\)"),
        (lambda: explorer(controls=controls() * 2), "controls must have distinct names"),
        (lambda: explorer(callback=3), "callback must be callable, got 3"),
        (lambda: explorer(callback=lambda k: 0), r"must take the arguments \['k', 'way'\]"),
        (lambda: explorer(callback=lambda k, way: 5), "explorer 'lines' must return a View, got 5"),
        (lambda: explorer(alt=None), "alt must be a string, got None"),
        (lambda: explorer(alt="slope {k}"), r"alt must name every control as {k}, {way}"),
        (lambda: explorer(alt="{k} {way} {z}"), "alt must name every control"),
        (lambda: explorer(alt="{k:g} {way}"), "alt must name every control"),
        (lambda: explorer(alt="{k"), "alt must be a format string"),
        (lambda: explorer(caption=" "), "caption must be a non-empty string or None, got ' '"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_grid_of_figures_is_limited_that_of_tiny_pictures_less_so():
    many = [Slider("k", range(1, 32), "k"), Choice("way", ["up", "down"], "way")]
    with pytest.raises(ValueError, match="controls must span at most 60 frames, got 62"):
        explorer(controls=many)
    assert len(list(explorer(pixels, controls=many).grid())) == 62
    huge = [Slider("k", range(1, 502), "k"), Choice("way", ["up", "down"], "way")]
    with pytest.raises(ValueError, match="at most 1000 frames, got 1002"):
        explorer(pixels, controls=huge)

    def large(k, way):
        return View(np.zeros((65, 64), np.uint8), {"k": k})

    with pytest.raises(ValueError, match="at most 60 frames"):
        explorer(large, controls=many)


def test_a_photograph_may_lose_a_little_and_is_limited_by_bytes_alone():
    rows, columns = np.mgrid[:96, :192]
    smooth = 120 + 60 * np.sin(rows / 9) * np.cos(columns / 7)
    noise = np.random.default_rng(0).normal(0, 4, smooth.shape)
    pixels = np.repeat((smooth + noise).astype(np.uint8)[..., None], 3, 2)
    many = [Slider("k", range(1, 41), "k"), Choice("way", ["up", "down"], "way")]

    def show(photograph):
        return lambda k, way: View(pixels, {"k": k}, photograph=photograph)

    with pytest.raises(ValueError, match="at most 60 frames, got 80"):
        explorer(show(False), controls=many)
    frame = explorer(show(True), controls=many).frame()
    exact = explorer(show(False), controls=[many[0], Choice("way", ["up"], "way")]).frame()
    assert frame.mime == "image/webp" and len(frame.picture) < len(exact.picture) / 3
    assert frame.size == (640, 320) and not frame.pixelated
    shown = np.asarray(Image.open(io.BytesIO(frame.picture)).convert("RGB")).astype(float)
    assert shown.shape == pixels.shape and np.abs(shown - pixels).mean() < 6


def side_by_side(k, way):
    left = np.full((40, 60, 3), 100, np.uint8)
    right = np.full((20, 30, 3), 20 * k + len(way), np.uint8)
    return View({"left": left, "right": right}, {"k": k}, photograph=True)


def test_photographs_stand_side_by_side_each_as_large_as_the_first():
    it = explorer(side_by_side)
    frame = it.frame(k=5)
    assert frame.labels == ("left", "right") and frame.size == (60, 40) and not frame.pixelated
    left, right = (Image.open(io.BytesIO(each)).convert("RGB") for each in frame.pictures)
    assert left.size == (60, 40) and right.size == (30, 20)
    assert np.abs(np.asarray(left).astype(int) - 100).max() < 4
    assert np.abs(np.asarray(right).astype(int) - 102).max() < 4
    assert frame.pictures[0] == it.frame(k=1).pictures[0]


def test_the_still_of_photographs_side_by_side_is_a_labelled_row():
    bundle, metadata = explorer(side_by_side)._repr_mimebundle_()
    still = Image.open(io.BytesIO(bundle["image/png"]))
    assert still.size == (60 + GAP + 60, BAND + 40) and still.mode == "P"
    assert metadata["image/png"]["width"] == still.size[0]
    row = np.asarray(still.convert("L")).astype(int)
    assert (row[:BAND, :60] < 128).any() and (row[:BAND, 60 + GAP :] < 128).any()
    assert row[BAND + 20, 30] == 100 and row[BAND + 20, 60] == 255
    assert abs(row[BAND + 20, 60 + GAP + 30] - 42) < 4


def test_pictures_side_by_side_have_the_same_labels_everywhere():
    def changing(k, way):
        return View(
            {"left": np.zeros((2, 2), np.uint8), way: np.zeros((2, 2), np.uint8)}, {"k": k}, True
        )

    with pytest.raises(ValueError, match=r"same labels at every point, got \('left', 'down'\)"):
        explorer(changing).frame(way="down")


# Frames and values


def test_each_point_is_computed_once():
    counting = Counting(pixels)
    it = explorer(counting)
    assert counting.calls == [(2, "up")]
    for _ in range(2):
        for point in it.grid():
            it.frame(**point)
    assert len(counting.calls) == len(set(counting.calls)) == 6


def test_frame_has_the_callbacks_values_and_says_what_it_shows():
    it = explorer()
    frame = it.frame(k=5, way="down")
    assert frame.values == {"slope": 1.66667, "way": "down"}
    assert frame.alt == "A line of slope 5, going down"
    assert frame.size == (288, 192) and not frame.pixelated
    assert frame.picture != it.frame(k=5, way="up").picture


def test_pixel_pictures_are_stored_without_loss_and_scaled_by_the_page():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    frame = explorer(lambda k, way: View(array, {"k": k})).frame()
    stored = np.asarray(Image.open(io.BytesIO(frame.picture)).convert("RGB"))
    assert np.array_equal(stored, array)
    assert frame.pixelated and frame.size == (7 * 68, 5 * 68)


@pytest.mark.parametrize("point", [{"k": 9}, {"way": "sideways"}, {"z": 1}])
def test_points_outside_are_refused(point):
    it = explorer(pixels)
    name = next(iter(point))
    for ask in (it.render, it.frame):
        with pytest.raises(ValueError, match=name):
            ask(**point)


def test_points_between_the_grid_are_live_only():
    it = explorer(pixels)
    assert it.frame(k=3).values == {"k": 3}
    assert {"k": 3, "way": "up"} not in list(it.grid())


def test_embedded_values_have_six_digits_and_no_json_traps():
    given = {"a": 1 / 3, "b": np.float32(2.5), "c": torch.tensor(7), "d": float("nan")}
    given |= {"e": float("-inf"), "f": -0.0, "g": "text", "h": 10**9, "i": np.bool_(True)}
    got = embedded(given)
    expected = {"a": 0.333333, "b": 2.5, "c": 7, "d": "nan", "e": "-inf", "f": 0.0}
    assert got == expected | {"g": "text", "h": 10**9, "i": True}
    assert str(got["f"]) == "0.0" and type(got["c"]) is int and got["i"] is True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.308129, "0.3081"),
        (12.0, "12"),
        (1000, "1,000"),
        (123456.7, "123,457"),
        (-2.5e-7, "-2.5 × 10⁻⁷"),
        (1.23456e8, "1.235 × 10⁸"),
        (0.0, "0"),
        (True, "yes"),
        ("nan", "nan"),
    ],
)
def test_numbers_are_shown_short(value, text):
    assert shown(value) == text


# The live face


def body(it):
    return it.children[1].value


def test_widget_follows_its_controls():
    it = explorer()
    slider, buttons = it.children[0].children
    assert slider.value == 2 and [value for _, value in slider.options] == list(range(1, 8))
    assert slider.description == "slope k" and buttons.description == "w"
    before = body(it)
    assert it.frame().uri in before and 'alt="A line of slope 2, going up"' in before
    slider.value = 7
    assert it.frame(k=7).uri in body(it) and "A line of slope 7" in body(it)
    buttons.value = "down"
    assert it.frame(k=7, way="down").uri in body(it) and "<dd>down</dd>" in body(it)
    slider.value, buttons.value = 2, "up"
    assert body(it) == before


def test_many_options_become_a_menu():
    it = explorer(pixels, controls=[controls()[0], Choice("way", list("abcde"), "way")])
    assert type(it.children[0].children[1]).__name__ == "Dropdown"
    assert "<select" in it.html() and "radio" not in it.html()


def test_an_error_at_the_start_is_raised():
    with pytest.raises(ZeroDivisionError):
        explorer(lambda k, way: 1 / 0)


def test_a_later_error_is_shown_in_place_of_the_picture_and_raised_by_render():
    def fragile(k, way):
        if k == 5:
            raise ArithmeticError("no <line> at 5")
        return pixels(k, way)

    it = explorer(fragile)
    slider = it.children[0].children[0]
    slider.value = 5
    assert 'role="alert"' in body(it) and "ArithmeticError" in body(it)
    assert "no &lt;line&gt; at 5" in body(it) and "<img" not in body(it) and "<dl" not in body(it)
    slider.value = 2
    assert "<img" in body(it) and "ArithmeticError" not in body(it)
    for ask in (it.render, it.frame):
        with pytest.raises(ArithmeticError, match="at 5"):
            ask(k=5)
    with pytest.raises(ArithmeticError, match="at 5"):
        it.html()


# What a notebook stores


def test_bundle_without_frames_is_small(monkeypatch):
    monkeypatch.delenv("INVERTNB_FRAMES", raising=False)
    counting = Counting(line)
    data, metadata = explorer(counting)._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert set(data) == {"text/plain", "image/png", view}
    assert data["text/plain"] == repr(explorer())
    assert data["image/png"].startswith(b"\x89PNG") and len(data["image/png"]) < 35_000
    assert metadata == {"image/png": {"width": 288}}
    assert counting.calls == [(2, "up")]


def test_bundle_of_a_build_has_the_frames(monkeypatch):
    monkeypatch.setenv("INVERTNB_FRAMES", "1")
    it = explorer()
    data, _ = it._repr_mimebundle_()
    assert data["text/html"] == it.html()


def test_a_build_fails_where_any_frame_does(monkeypatch):
    def fragile(k, way):
        return pixels(k, way) if k < 5 else 1 / 0

    explorer(fragile)
    monkeypatch.setenv("INVERTNB_FRAMES", "1")
    with pytest.raises(ZeroDivisionError):
        explorer(fragile)


def test_still_of_a_pixel_picture_is_scaled_up():
    still = Image.open(io.BytesIO(explorer(pixels)._repr_mimebundle_()[0]["image/png"]))
    assert still.size == (480, 320) and still.getpixel((479, 319)) == 20
