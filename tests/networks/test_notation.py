"""The notation of Table 5: what parses prints back, and an error points at the character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invertnb.networks.notation import LIMIT, Architecture, ConvolutionLayer, parse
from invertnb.networks.search import TABLE5

NUMBERS = st.integers(1, 10**LIMIT - 1)
LAYERS = st.builds(ConvolutionLayer, NUMBERS, st.integers(0, 20).map(lambda half: 2 * half + 1), NUMBERS)
ARCHITECTURES = st.builds(
    Architecture, st.lists(LAYERS, min_size=1, max_size=5).map(tuple), NUMBERS
)


@pytest.mark.parametrize("text", [text for row in TABLE5.values() for text in row])
def test_table_5_parses_and_prints_back(text):
    assert str(parse(text)) == text


def test_each_part_lands_in_its_place():
    found = parse("(2048)5c-(16)1c-3pmax-(7)3c-2pmax-4pave")
    assert found.layers == (ConvolutionLayer(2048, 5, 1), ConvolutionLayer(16, 1, 3), ConvolutionLayer(7, 3, 2))
    assert found.average == 4
    assert parse("(1)1c") == Architecture((ConvolutionLayer(1, 1, 1),), 1)


@given(ARCHITECTURES)
def test_what_prints_parses_back(architecture):
    assert parse(str(architecture)) == architecture


@given(st.text("(0129)35cpmaxve- \n", max_size=12))
def test_any_string_parses_or_is_refused_with_a_mark_inside_it(text):
    try:
        found = parse(text)
    except ValueError as error:
        line, shown, mark = str(error).split("\n")
        at = len(mark) - len("  ^")
        assert mark == "  " + " " * at + "^"
        assert 0 <= at <= len(text)
        assert shown == "  " + text.replace("\n", " ")
        named = repr(text[at]) if at < len(text) else "the end"
        assert line.endswith(f"at character {at + 1}, but found {named}")
    else:
        assert str(found) == text


@pytest.mark.parametrize(
    ("text", "mark", "expected"),
    [
        ("", "^", "a part as (2048)5c, 2pmax or 4pave"),
        (" (8)3c", "^", "a part as"),
        ("(8)3c-", "      ^", "a part as"),
        ("(8)3c--2pmax", "      ^", "a part as"),
        ("(8)3c-x", "      ^", "a part as"),
        ("(8)3c-c", "      ^", "a part as"),
        ("()3c", " ^", "a number of filters"),
        ("(-8)3c", " ^", "a number of filters"),
        ("(x)3c", " ^", "a number of filters"),
        ("(8", "  ^", "')'"),
        ("(8x)3c", "  ^", "')'"),
        ("(8)c", "   ^", "a filter size"),
        ("(8)", "   ^", "a filter size"),
        ("(8) 3c", "   ^", "a filter size"),
        ("(8)3", "    ^", "c, pmax or pave after the number"),
        ("(8)3x", "    ^", "c, pmax or pave"),
        ("(8)3C", "    ^", "c, pmax or pave"),
        ("(8)3c-2p", "        ^", "c, pmax or pave"),
        ("(8)3c-2pmin", "         ^", "c, pmax or pave"),
        ("(8)3c-2pmaX", "          ^", "c, pmax or pave"),
        ("(8)3c-2pav-", "          ^", "c, pmax or pave"),
        ("(8)3c2pmax", "     ^", "'-' or the end"),
        ("(8)3conv", "     ^", "'-' or the end"),
        ("(8)3c\n", "     ^", "'-' or the end"),
        ("(8)3c\t-2pmax", "     ^", "'-' or the end"),
        ("(8)4c", "   ^", "an odd filter size"),
        ("(8)3c-(16)12c", "          ^", "an odd filter size"),
        ("(08)3c", " ^", "a number that does not begin with 0"),
        ("(0)3c", " ^", "a number that does not begin with 0"),
        ("(8)03c", "   ^", "a number that does not begin with 0"),
        ("(8)3c-0pmax", "      ^", "a number that does not begin with 0"),
        ("(1234567)3c", " ^", "a number of 6 digits at most"),
        ("(8)1234567c", "   ^", "a number of 6 digits at most"),
        ("3c", "^", "the number of filters in parentheses"),
        ("(8)3c-2pmax-3c", "            ^", "the number of filters in parentheses"),
        ("2pmax-(8)3c", "^", "a convolution first"),
        ("4pave", "^", "a convolution first"),
        ("(8)3c-(2)2pmax", "      ^", "a number of filters before convolutions only"),
        ("(8)3c-1pmax", "      ^", "pooling over windows of 2 x 2 at least"),
        ("(8)3c-1pave", "      ^", "pooling over windows of 2 x 2 at least"),
        ("(8)3c-2pmax-2pmax", "            ^", "one max pooling at most after a convolution"),
        ("(8)3c-2pave-(8)3c", "            ^", "nothing after average pooling"),
        ("(8)3c-2pave-2pmax", "            ^", "nothing after average pooling"),
        ("(8)3c-2pave-2pave", "            ^", "nothing after average pooling"),
    ],
)  # fmt: skip
def test_the_mark_stands_under_the_character(text, mark, expected):
    with pytest.raises(ValueError, match="^architecture = ") as caught:
        parse(text)
    line, shown, below = str(caught.value).split("\n")
    assert below == "  " + mark
    assert len(shown) == len(text) + 2
    assert f": expected {expected}" in line
    assert f"at character {len(mark)}, but found " in line


def test_shapes_by_hand():
    # 32 -> 16 -> 8 -> 4, and the fifth pixel of a row of five is dropped.
    deep = parse("(2048)3c-2pmax-(2048)3c-2pmax-(1024)3c-2pmax")
    assert deep.shapes((3, 32, 32)) == [(2048, 16, 16), (2048, 8, 8), (1024, 4, 4), (1024, 4, 4)]
    assert deep.features((3, 32, 32)) == 16384
    wide = parse("(2048)5c-2pmax-4pave")
    assert wide.shapes((3, 32, 32)) == [(2048, 16, 16), (2048, 4, 4)]
    assert wide.features((3, 32, 32)) == 32768
    odd = parse("(7)3c-(5)5c-3pmax-2pave")
    assert odd.shapes((1, 15, 20)) == [(7, 15, 20), (5, 5, 6), (5, 2, 3)]


def test_what_no_network_can_be_is_refused(refuses):
    refuses(lambda: parse(b"(8)3c"), "architecture", "a string")
    refuses(lambda: ConvolutionLayer(0, 3, 1), "filters = 0")
    refuses(lambda: ConvolutionLayer(8, 4, 1), "size = 4", "an odd side")
    refuses(lambda: ConvolutionLayer(8, 3, 0), "pool = 0")
    refuses(lambda: Architecture(()), "layers", "one layer at least")
    refuses(lambda: Architecture((ConvolutionLayer(8, 3, 1),), 0), "average = 0")
    deep = parse("(8)3c-4pmax-(8)3c-4pmax")
    refuses(lambda: deep.shapes((3, 16, 15)), "image = (3, 16, 15)", str(deep))
    refuses(lambda: parse("(8)3c-5pave").features((3, 4, 4)), "image = (3, 4, 4)")
    assert deep.shapes((3, 16, 16))[-1] == (8, 1, 1)
