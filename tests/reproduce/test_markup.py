"""Blocks and their two renderings: whatever text goes in comes out as text."""

import base64
import re
import struct
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reproduce.markup import (
    Badge,
    Bar,
    Below,
    Bullets,
    Chips,
    Code,
    Commands,
    Facts,
    Fold,
    Heading,
    Link,
    Paragraph,
    Picture,
    Strong,
    Table,
    Tiles,
    html,
    html_contents,
    markdown,
    md_contents,
    md_text,
)

LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]) | st.sampled_from(" -+=#1.)|<&*_`"),
    min_size=1,
)
GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1200).to_bytes(4, "big") + (500).to_bytes(4, "big")


FIGURE_16 = Heading("Figure 16", "fig16", state="todo")


def shown(markup: str) -> str:
    """What a reader sees of some HTML."""
    return unescape(re.sub("<[^>]*>", "", markup))


@settings(deadline=None)
@given(LINES)
def test_any_text_comes_through_html(words):
    for piece in (words, Code(words), Strong(words), Below(words), Link(words, words), Badge(words)):
        assert shown(html(Paragraph(piece))) == words
    for block in (Bullets([words]), Commands(words), Fold(words, []), Heading(words, words)):
        assert shown(html(block)).strip() == words.strip()
    cells = shown(html(Table([words], [[words]]))), shown(html(Tiles([(words, words, words, words)])))
    assert all(words in text for text in cells)
    found = html(Chips([("F09.1", "held", "#a", words)]))
    assert unescape(re.search('title="([^"]*)"', found)[1]) == f"held: {words}"


@settings(deadline=None)
@given(LINES.filter(str.strip))
def test_any_text_comes_through_markdown(words):
    rendered = GITHUB.render(md_text(words))
    assert re.fullmatch("<p>.*</p>\n", rendered), rendered
    assert "<" not in rendered[3:-5], "no emphasis, no code, no HTML"
    assert unescape(rendered[3:-5]) == re.sub(" +", " ", words).strip()
    table = GITHUB.render(markdown(Table([words, "b"], [[words, Link("a", "#a")], [Strong("s"), Code(words)]])))
    assert (table.count("<th>"), table.count("<td>")) == (2, 4)
    items = GITHUB.render(markdown(Bullets([words, words], ordered=True)))
    assert items.count("<li>") == 2
    assert shown(items).split("\n")[1] == re.sub(" +", " ", words).strip()


def test_states_become_classes_and_words():
    for state in ("held", "not judged"):
        assert html(Paragraph(Badge(state))) == f'<p><span class="badge {state.replace(" ", "-")}">{state}</span></p>'
        assert markdown(Paragraph(Badge(state))) == f"**{state}**"


def test_a_bar_leaves_out_what_there_is_none_of_and_keeps_it_in_the_legend():
    found = html(Bar({"held": 3, "failed": 0, "not run": 1}))
    assert re.findall("flex-grow: ([0-9]+)", found) == ["3", "1"]
    assert shown(found).split() == ["31", "held", "3", "failed", "0", "not", "run", "1"]
    assert markdown(Bar({"held": 3, "failed": 0})) == "**held** 3 · **failed** 0"


def test_a_narrow_screen_gets_the_picture_made_for_it():
    narrow = PNG.replace(PNG[16:24], struct.pack(">II", 400, 900))
    page = html(Picture(PNG, "fig09.png", "a curve", narrow))
    wide, small = (base64.b64encode(png).decode() for png in (PNG, narrow))
    assert (
        f'<source media="(max-width: 640px)" width="400" height="900" srcset="data:image/png;base64,{small}">' in page
    )
    assert f'src="data:image/png;base64,{wide}" alt="a curve"></picture>' in page


def test_a_picture_knows_its_size_and_is_linked_in_markdown():
    picture = Picture(PNG, "fig09.png", 'the "best" [one]')
    assert 'width="1200" height="500"' in html(picture)
    assert "<source" not in html(picture)
    assert "&quot;best&quot;" in html(picture)
    image = GITHUB.parseInline(markdown(picture))[0].children[0]
    assert (image.tag, image.attrs["src"], image.content) == ("img", "fig09.png", 'the "best" \\[one\\]')


def test_contents_are_short():
    found = html_contents(
        [Heading("Figure 9. Weight decay", "fig09", short="Figure 9", state="done"), Heading("A", "a")]
    )
    assert found.count("<li") == 2
    assert (
        '<li class="done"><a href="#fig09" title="Figure 9. Weight decay">Figure 9 <span>Weight decay</span></a>'
        in found
    )
    assert '<li class="other"><a href="#a" title="A">A</a></li>' in found


def test_the_markdown_page_has_contents_with_the_dots_that_it_speaks_of():
    headings = [Heading("Figure 9. Decay", "fig09", short="Figure 9", state="done"), Heading("[A]", "a"), FIGURE_16]
    assert md_contents(headings) == r"● [Figure 9](#fig09) · [\[A\]](#a) · ○ [Figure 16](#fig16)"


def test_chips_and_facts_in_markdown():
    chips = Chips([("F1", "held", "#a", ""), ("F2", "failed", "#b", ""), ("F3", "held", "#c", "")])
    assert markdown(chips) == "- **held**: [F1](#a), [F3](#c)\n- **failed**: [F2](#b)"
    assert markdown(Chips(chips.chips, ("not run", "failed", "held"))).startswith("- **failed**: [F2](#b)\n- **held**")
    assert markdown(Facts([("Scale", Badge("paper")), ("Time", "–")])) == "Scale: **paper** · Time: –"


@pytest.mark.parametrize("wrong", ["a string", 3, None, b"bytes"])
def test_what_is_no_block_is_refused(wrong):
    for render in (html, markdown):
        with pytest.raises(TypeError, match="is not a block"):
            render(wrong)
        if not isinstance(wrong, str):
            with pytest.raises(TypeError, match="is not words"):
                render(Paragraph([wrong]))
