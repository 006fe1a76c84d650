"""The built pages as files: size, alternative texts, references, and the values they embed."""

import importlib
import inspect
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from invertnb.notebook.explorer import Explorer, embedded, parse_frames

PAGE_BYTES = 2_000_000
ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
# What a browser fetches by itself; <a href> it follows only for the reader.
LOADED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "image": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "track": "src",
    "use": "href",
    "video": "src",
}
LINKED = {"icon", "stylesheet", "preload", "modulepreload", "prefetch", "manifest", "shortcut"}
OUTSIDE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
CSS_OUTSIDE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?(?:https?:)?//[^\"')]*", re.IGNORECASE)
JS_OUTSIDE = re.compile(r"\b(?:from|import)\s*\(?\s*[\"'](?:https?:)?//[^\"']*", re.IGNORECASE)


@pytest.fixture(scope="session")
def built_book() -> Path:
    book = Path(os.environ.get("INVERTNB_BOOK") or ROOT / "_build" / "html")
    if not (book / "index.html").is_file():
        lacking = f"no built book at {book}: run make book"
        if os.environ.get("INVERTNB_BROWSER") == "required":
            pytest.fail(lacking, pytrace=False)
        pytest.skip(lacking)
    return book.resolve()


class Page(HTMLParser):
    """Resources that a page makes a browser load, and its images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.loaded, self._tag = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes, self._tag = dict(attributes), tag
        if tag == "img":
            self.images.append(attributes)
        if tag == "link" and LINKED & set((attributes.get("rel") or "").lower().split()):
            self.loaded.append(attributes.get("href"))
        self.loaded.append(attributes.get(LOADED.get(tag)))
        for candidate in (attributes.get("srcset") or "").split(","):
            self.loaded.append(candidate.strip().partition(" ")[0])
        self.loaded += CSS_OUTSIDE.findall(attributes.get("style") or "")

    def handle_data(self, data):
        if self._tag == "style":
            self.loaded += CSS_OUTSIDE.findall(data)
        if self._tag == "script":
            self.loaded += JS_OUTSIDE.findall(data)

    @property
    def outside(self) -> list[str]:
        pattern = (OUTSIDE, CSS_OUTSIDE, JS_OUTSIDE)
        return [url for url in self.loaded if url and any(p.match(url) for p in pattern)]


@pytest.fixture(scope="session")
def texts(built_book) -> dict[str, str]:
    names = sorted(f.relative_to(built_book) for f in built_book.rglob("*.html"))
    return {
        name.as_posix(): (built_book / name).read_text(encoding="utf-8")
        for name in names
        if name.parts[0] != "_static"
    }


@pytest.fixture(scope="session")
def pages(texts) -> dict[str, Page]:
    return {name: Page(text) for name, text in texts.items()}


def test_parser_sees_what_a_browser_would_load():
    html = (
        '<script src="https://a/x.js"></script><script>import("https://b/y.js")</script>'
        '<link rel="stylesheet" href="//c/z.css"><link rel="canonical" href="https://d/">'
        '<style>@import "https://e/f.css"; p { background: url(http://g/h.png) }</style>'
        '<img src="local.png" srcset="https://i/j.png 2x"><a href="https://k/">k</a>'
        '<p style="background: url(//l/m.png)">m</p><script>const at = "https://n/o.js";</script>'
    )
    outside = " ".join(Page(html).outside)
    assert all(f"//{host}/" in outside for host in "abcegil")
    assert not any(f"//{host}/" in outside for host in "dkn")


def test_every_chapter_has_a_page(texts):
    assert CHAPTERS
    missing = {f"book/{name}.html" for name in CHAPTERS} - set(texts)
    assert not missing


def test_pages_are_small(texts):
    large = {name: len(text.encode()) for name, text in texts.items()}
    assert {name: size for name, size in large.items() if size >= PAGE_BYTES} == {}


def test_the_status_page_shows_the_seconds_of_the_whole_book(texts):
    row = r'<th scope="row">%s</th><td>([\d.]+)(?: \(over\))?</td>'
    page = texts["book/status.html"]
    chapters, html, both = (
        float(re.search(row % part, page)[1]) for part in ("chapters", "HTML", "all")
    )
    assert min(chapters, html) > 0 and math.isclose(chapters + html, both, abs_tol=0.11)


def test_every_image_has_an_alternative_text(pages):
    images = [(name, image) for name, page in pages.items() for image in page.images]
    assert images
    nameless = [(n, i.get("src", "")[:80]) for n, i in images if not (i.get("alt") or "").strip()]
    assert nameless == []


def test_pages_load_nothing_from_outside(pages):
    assert {name: page.outside for name, page in pages.items() if page.outside} == {}


def test_style_sheets_load_nothing_from_outside(built_book):
    sheets = {f.name: f.read_text(encoding="utf-8") for f in built_book.rglob("*.css")}
    assert sheets
    assert {name for name, text in sheets.items() if CSS_OUTSIDE.search(text)} == set()


def test_local_resources_exist(built_book, pages):
    missing = [
        (name, url)
        for name, page in pages.items()
        for url in page.loaded
        if url and not re.match(r"(?:[a-z]+:|//|#)", url)
        and not (built_book / name).parent.joinpath(re.sub(r"[?#].*", "", url)).exists()
    ]
    assert missing == []


def explorers(chapter: str) -> dict[str, Explorer]:
    """The chapter's explorers by name: what its module calls `explorer` or `..._explorer`."""
    module = importlib.import_module(f"invertnb.chapters.{chapter}")
    makers = [
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name == "explorer" or name.endswith("_explorer")
    ]
    # Some draw on the chapter's data; made once, it serves them all.
    takes_data = [maker for maker in makers if "data" in inspect.signature(maker).parameters]
    data = module.compute(module.Parameters()) if takes_data else None
    made = [maker(data) if maker in takes_data else maker() for maker in makers]
    return {explorer.name: explorer for explorer in made}


def same(a, b) -> bool:
    # Embedded to six digits: a last bit may tip the rounding on another number of threads.
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=2e-6, abs_tol=1e-12)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_page_embeds_what_the_callbacks_return(chapter, texts, monkeypatch):
    monkeypatch.delenv("INVERTNB_FRAMES", raising=False)
    frames = parse_frames(texts[f"book/{chapter}.html"])
    assert frames, "a chapter has an explorer"
    ours = explorers(chapter)
    assert set(frames) == set(ours)
    for name in frames:
        explorer = ours[name]
        points = list(explorer.grid())
        assert [point for point, _ in frames[name]] == points
        for point, values in frames[name]:
            expected = embedded(explorer.render(**point).values)
            assert list(values) == list(expected), (name, point)
            wrong = [label for label in values if not same(values[label], expected[label])]
            assert not wrong, (name, point, wrong, values, expected)
