"""A real Chromium with the network cut, and the book that the build left.

Where Chromium or the book is missing, tests are skipped and say so; with INVERTNB_BROWSER=required
(as in continuous integration) they fail instead.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# The theme declares this name twice on every page; nothing depends on the second declaration.
HARMLESS = "Identifier 'THEBE_JS_URL' has already been declared"


def lacking(what: str):
    if os.environ.get("INVERTNB_BROWSER") == "required":
        pytest.fail(f"{what} (INVERTNB_BROWSER=required)", pytrace=False)
    pytest.skip(what)


def is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname == "127.0.0.1"


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        lacking("no Chromium found: install it or name it in CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("no playwright: install the extra named test")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page, what it asked of the outside (in vain) and what went wrong on it."""

    page: object
    outside: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser):
    """Opens addresses in fresh contexts; only this machine can be reached from them."""
    contexts = []

    def open_page(url, width=1280, scheme="light", **options) -> Visit:
        screen = {"width": width, "height": 900}
        context = browser.new_context(viewport=screen, color_scheme=scheme, **options)
        contexts.append(context)
        context.route(lambda address: not is_local(address), lambda route: route.abort())
        seen = Visit(context.new_page())
        seen.page.on("request", lambda r: is_local(r.url) or seen.outside.append(r.url))
        seen.page.on("pageerror", lambda e: HARMLESS in str(e) or seen.problems.append(str(e)))
        seen.page.on("console", lambda m: m.type != "error" or seen.problems.append(m.text))
        seen.page.goto(url, wait_until="load")
        return seen

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def built_book() -> Path:
    default = Path(__file__).parents[2] / "_build" / "html"
    book = Path(os.environ.get("INVERTNB_BOOK") or default)
    if not (book / "index.html").is_file():
        lacking(f"no built book at {book}: run make book")
    return book.resolve()


CUT_OFF = """() => {
  const scrolls = (e) => e && e !== document.body
    && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  return [...document.body.querySelectorAll("*")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && box.left < innerWidth && box.right > innerWidth + 1
      && getComputedStyle(e).visibility === "visible" && !scrolls(e.parentElement)
      && !e.closest("mjx-assistive-mml");
  }).map((e) => `${e.tagName}.${e.className}`);
}"""


def cut_off(page) -> list[str]:
    """Elements that reach over the right edge of the window without a scroll bar of their own."""
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return page.evaluate(CUT_OFF) + (["the page itself"] if wide else [])


@pytest.fixture(name="cut_off")
def _cut_off():
    return cut_off
