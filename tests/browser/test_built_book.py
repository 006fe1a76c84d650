"""Every page of the built book in Chromium with the network cut: it loads, reads and moves."""

import json

import pytest

MOVE = ("ArrowRight", "ArrowLeft")


@pytest.fixture(scope="session")
def book_pages(built_book):
    """Every page but those that only send the reader on."""
    found = {
        path: path.read_text(encoding="utf-8")
        for path in sorted(built_book.rglob("*.html"))
        if path.relative_to(built_book).parts[0] != "_static"
    }
    found = {path: text for path, text in found.items() if 'http-equiv="Refresh"' not in text}
    assert found
    return found


def test_the_front_page_leads_into_the_book(built_book, book_pages, visit):
    seen = visit((built_book / "index.html").as_uri(), offline=True)
    seen.page.wait_for_selector("article h1")
    assert seen.page.url.partition("#")[0] in {path.as_uri() for path in book_pages}


def opened(visit, path, **options):
    seen = visit(path.as_uri(), offline=True, **options)
    # What a button hides is part of the page too.
    seen.page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    return seen


TYPESET = """() => [...document.querySelectorAll("span.math, div.math")]
  .every((e) => e.querySelector("mjx-container"))"""


def test_every_page_stands_alone_on_a_phone(book_pages, visit, cut_off):
    wrong = {}
    for path in book_pages:
        seen = opened(visit, path, width=390)
        page = seen.page
        if page.locator("span.math, div.math").count():
            page.wait_for_function(TYPESET, timeout=60_000)
        nameless = "[...document.images].filter(e => !e.alt.trim()).map(e => e.outerHTML)"
        broken = "[...document.images].filter(e => e.complete && !e.naturalWidth).map(e => e.src)"
        sideways = (
            "[...document.querySelectorAll('.ledger-records, .ledger-scroll')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 80))"
        )
        found = {
            "asked of the outside": seen.outside,
            "errors": seen.problems,
            "beyond the edge": cut_off(page),
            "images without alt": page.evaluate(nameless),
            "images that do not show": page.evaluate(broken),
            "maths in error": page.locator("mjx-merror").all_inner_texts(),
            "verdicts beyond the edge": page.evaluate(sideways),
        }
        found = {what: items for what, items in found.items() if items}
        if found:
            wrong[path.name] = found
        page.context.close()
    assert not wrong, json.dumps(wrong, indent=1)


def test_photographs_of_an_explorer_stand_side_by_side_on_a_phone(built_book, visit):
    seen = visit((built_book / "book" / "inverting_vgg.html").as_uri(), offline=True, width=390)
    boxes = seen.page.evaluate(
        """() => [...document.querySelectorAll(".ix-parts img")].map((e) => {
          const own = e.getBoundingClientRect(), room = e.parentElement.getBoundingClientRect();
          return [own.left, own.top, own.width, own.height, room.width]; })"""
    )
    assert len(boxes) == 4
    for _, _, width, height, room in boxes:
        assert 100 < width <= room + 1 and abs(width - height) < 2
    (first, top, *_), (second, beside, *_), (_, below, *_), _ = boxes
    assert second > first and abs(beside - top) < 2 and below > top


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_follows_the_readers_colour_scheme(book_pages, visit, scheme):
    seen = opened(visit, next(iter(book_pages)), scheme=scheme)
    for path in book_pages:
        seen.page.goto(path.as_uri(), wait_until="load")
        ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
        level = sum(map(int, seen.page.evaluate(ground))) / 3
        assert (level < 100) == (scheme == "dark"), f"{path.name}: background {level} in {scheme}"


STATE = """root => ({
  src: [...root.querySelectorAll("img")].map((e) => e.src),
  alt: root.querySelector("img").alt,
  shown: [...root.querySelectorAll("dl > div")].map((row) => [...row.children].map(
    (e) => e.textContent)),
})"""


def state(root):
    # decode() fails unless the picture can be drawn.
    root.locator("img").evaluate_all("all => Promise.all(all.map((e) => e.decode()))")
    return root.evaluate(STATE)


def test_every_explorer_moves_with_the_keyboard(book_pages, visit):
    explorers = 0
    for path, text in book_pages.items():
        if 'class="invertnb-explorer"' not in text:
            continue
        seen = opened(visit, path)
        for root in seen.page.locator(".invertnb-explorer").all():
            explorers += 1
            move(root, f"{path.name}, {root.get_attribute('id')}")
        assert not seen.problems and not seen.outside
        seen.page.context.close()
    assert explorers, "the book has no explorer"


def move(root, where):
    """Step every control once; each step must show the frame that the page embeds for it."""
    data = json.loads(root.locator("script[type='application/json']").text_content())
    before = state(root)
    pictures = dict(enumerate(data["pictures"]))
    pictures |= zip(data["start"], before["src"], strict=True)
    seen = [before]
    for axis, control in enumerate(data["controls"]):
        if len(control["texts"]) == 1:
            continue
        key = press(root.locator("[data-control]").nth(axis))
        after = state(root)
        step = f"{where}: {control['name']} after {key}"
        assert after["alt"] not in [earlier["alt"] for earlier in seen], step
        (frame,) = (frame for frame in data["frames"] if frame["alt"] == after["alt"])
        assert after["shown"] == frame["shown"], step
        assert after["src"] == [pictures[i] for i in frame["pictures"]], step
        seen.append(after)
    moved = any(after["src"] != before["src"] for after in seen)
    assert moved, f"{where}: no control changes the picture"
    assert any(after["shown"] != before["shown"] for after in seen), f"{where}: no value changes"


def press(control) -> str:
    """Focus the control and move it one step, back where it stands at its last value."""
    tag = control.evaluate("e => e.tagName")
    if tag == "FIELDSET":
        control.locator("input:checked").focus()
        key = "ArrowDown"
    elif tag == "SELECT":
        control.focus()
        last = control.evaluate("e => e.selectedIndex === e.options.length - 1")
        key = "ArrowUp" if last else "ArrowDown"
    else:
        control.focus()
        last = control.evaluate("e => e.value === e.max")
        key = "ArrowLeft" if last else "ArrowRight"
    control.page.keyboard.press(key)
    return key
