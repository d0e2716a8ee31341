"""A page as blocks (paragraphs, tables, pictures, ...) and its two renderings: HTML and GitHub's Markdown.

Plain strings are text and are escaped; nothing here lets markup through. `Words` are a string, one of the inline
pieces, or several of these in a tuple or list.
"""

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Code:
    """Something to be typed, or a name in the project."""

    text: str


@dataclass(frozen=True)
class Link:
    """`to`: an anchor of the page ("#fig09") or an address; nothing is loaded from there."""

    text: str
    to: str


@dataclass(frozen=True)
class Badge:
    """A state as a coloured word. `state` is "held", "failed", "inconclusive", "not judged", "not run" or a scale."""

    state: str
    text: str = ""


@dataclass(frozen=True)
class Strong:
    """Words that stand out."""

    text: str


@dataclass(frozen=True)
class Below:
    """Less important words on a line of their own below the others."""

    text: str


Words = Any
"""str, Code, Link, Badge, Strong, Below, or a sequence of them."""


@dataclass(frozen=True)
class Heading:
    """A section's title; `anchor` can be linked to. In the contents: `short`, and `state` ("done", "todo") marks it."""

    text: str
    anchor: str
    level: int = 2
    short: str = ""
    state: str = ""


@dataclass(frozen=True)
class Paragraph:
    """`kind`: "" for running text, "lead", "note", "quiet", or "warning"."""

    words: Words
    kind: str = ""


@dataclass(frozen=True)
class Facts:
    """Name and value, as many as there are."""

    pairs: Sequence[tuple[str, Words]]


@dataclass(frozen=True)
class Table:
    """`numeric`: the numbers of the columns that are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Words]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG: embedded in HTML, linked to as `link` in Markdown; `narrow` is the same for a screen 640 pixels wide."""

    png: bytes
    link: str
    alt: str
    narrow: bytes = b""


@dataclass(frozen=True)
class Bullets:
    """A list; `kind`: "" or "claims"."""

    items: Sequence[Words]
    ordered: bool = False
    kind: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them."""

    title: str
    blocks: Sequence[Any]
    anchor: str = ""


@dataclass(frozen=True)
class Tiles:
    """The scoreboard: (a number, out of how many, what it counts, details in words)."""

    tiles: Sequence[tuple[str, str, str, Words]]


@dataclass(frozen=True)
class Bar:
    """How many of each state, as one stacked bar."""

    counts: Mapping[str, int]


@dataclass(frozen=True)
class Chips:
    """Small coloured links: (text, state, anchor, what it is). states: the order in which Markdown lists them."""

    chips: Sequence[tuple[str, str, str, str]]
    states: Sequence[str] = ()


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    text: str


def _pieces(words: Words) -> Iterable[Any]:
    return words if isinstance(words, list | tuple) else (words,)


def _class(state: str) -> str:
    return escape(state.replace(" ", "-"))


def html_words(words: Words) -> str:
    """Words as HTML."""
    found = []
    for piece in _pieces(words):
        match piece:
            case str():
                found.append(escape(piece))
            case Code(text):
                found.append(f"<code>{escape(text)}</code>")
            case Link(text, to):
                found.append(f'<a href="{escape(to)}">{escape(text)}</a>')
            case Badge(state, text):
                found.append(f'<span class="badge {_class(state)}">{escape(text or state)}</span>')
            case Strong(text):
                found.append(f"<strong>{escape(text)}</strong>")
            case Below(text):
                found.append(f'<span class="below">{escape(text)}</span>')
            case _:
                raise TypeError(f"{piece!r} is not words")
    return "".join(found)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[Words]], numeric: frozenset[int]) -> str:
    def line(tag: str, cells: Sequence[Words]) -> str:
        marks = ((' class="n"' if i in numeric else "") for i in range(len(cells)))
        return "".join(f"<{tag}{mark}>{html_words(c)}</{tag}>" for mark, c in zip(marks, cells, strict=True))

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    many = ' class="many"' if len(head) > 10 else ""
    return (
        f'<div class="wide" tabindex="0"><table{many}>\n<thead><tr>{line("th", head)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _html_picture(picture: Picture) -> str:
    image = f'<img {_html_png(picture.png, "src")} alt="{escape(picture.alt)}">'
    if picture.narrow:
        source = f'<source media="(max-width: 640px)" {_html_png(picture.narrow, "srcset")}>'
        image = f"<picture>{source}{image}</picture>"
    return f"<figure>{image}</figure>"


def _html_png(png: bytes, attribute: str) -> str:
    width, height = struct.unpack(">II", png[16:24])  # where a PNG says its size: the page does not jump as it loads
    data = base64.b64encode(png).decode()
    return f'width="{width}" height="{height}" {attribute}="data:image/png;base64,{data}"'


def _html_tiles(tiles: Sequence[tuple[str, str, str, Words]]) -> str:
    return '<div class="tiles">' + "\n".join(
        f'<div class="tile"><p class="count"><b>{escape(value)}</b> of {escape(of)}</p>'
        f'<p class="label">{escape(label)}</p><p class="quiet">{html_words(details)}</p></div>'
        for value, of, label, details in tiles
    ) + "</div>"  # fmt: skip


def html(block: Any) -> str:
    """One block as HTML."""
    match block:
        case Heading(text, anchor, level):
            return f'<h{level} id="{escape(anchor)}">{escape(text)}</h{level}>'
        case Paragraph(words, kind):
            return f'<p class="{kind}">{html_words(words)}</p>' if kind else f"<p>{html_words(words)}</p>"
        case Facts(pairs):
            inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{html_words(w)}</dd></div>" for name, w in pairs)
            return f'<dl class="facts">{inner}</dl>'
        case Table(head, rows, numeric):
            return _html_table(head, rows, numeric)
        case Picture():
            return _html_picture(block)
        case Bullets(items, ordered, kind):
            tag = "ol" if ordered else "ul"
            inner = "\n".join(f"<li>{html_words(words)}</li>" for words in items)
            return f'<{tag} class="{kind or "plain"}">\n{inner}\n</{tag}>'
        case Fold(title, blocks, anchor):
            mark = f' id="{escape(anchor)}"' if anchor else ""
            inner = "\n".join(map(html, blocks))
            return f"<details{mark}><summary>{escape(title)}</summary>\n{inner}\n</details>"
        case Tiles(tiles):
            return _html_tiles(tiles)
        case Bar(counts):
            parts = "".join(
                f'<span class="{_class(state)}" style="flex-grow: {n}" title="{n} {escape(state)}">{n}</span>'
                for state, n in counts.items()
                if n
            )
            legend = " ".join(html_words((Badge(state), f" {n}")) for state, n in counts.items())
            return f'<div class="bar">{parts}</div>\n<p class="legend">{legend}</p>'
        case Chips(chips, _):
            inner = "\n".join(
                f'<a class="chip {_class(state)}" href="{escape(to)}" title="{escape(f"{state}: {what}")}">'
                f"{escape(text)}</a>"
                for text, state, to, what in chips
            )
            return f'<p class="chips">{inner}</p>'
        case Commands(text):
            return f"<pre><code>{escape(text)}</code></pre>"
    raise TypeError(f"{block!r} is not a block")


def html_contents(headings: Sequence[Heading]) -> str:
    """The table of contents: a list of links, short titles followed by what the long ones add to them."""
    items = []
    for h in headings:
        text = escape(h.short or h.text)
        if h.short and h.text.startswith(h.short):
            text += f" <span>{escape(h.text.removeprefix(h.short).lstrip('. '))}</span>"
        items.append(
            f'<li class="{h.state or "other"}"><a href="#{escape(h.anchor)}" title="{escape(h.text)}">{text}</a></li>'
        )
    return "<ul>\n" + "\n".join(items) + "\n</ul>"


def md_contents(headings: Sequence[Heading]) -> str:
    """The table of contents as Markdown: a line of links, a dot before each that has a state."""
    dots = {"done": "● ", "todo": "○ "}
    return " · ".join(dots.get(h.state, "") + md_words(Link(h.short or h.text, f"#{h.anchor}")) for h in headings)


def md_text(text: str) -> str:
    """Text as Markdown: what would be markup is escaped, line breaks become spaces."""
    text = re.sub(r"([\\`*_\[\]<>|~$#&])", r"\\\1", re.sub(r"\s+", " ", text))
    begins = re.compile(r"^( ?)([-+](?= |$)|[-=]+ ?$)|^( ?\d+)([.)])(?= |$)")  # a list, or the line under a heading
    return begins.sub(lambda m: f"{m[1] or m[3] or ''}\\{m[2] or m[4]}", text)


def md_words(words: Words) -> str:
    """Words as Markdown."""
    found = []
    for piece in _pieces(words):
        match piece:
            case str():
                found.append(md_text(piece))
            case Code(text):
                found.append("`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`")
            case Link(text, to):
                found.append(f"[{md_text(text)}]({to})")
            case Badge(state, text):
                found.append(f"**{md_text(text or state)}**")
            case Strong(text):
                found.append(f"**{md_text(text)}**")
            case Below(text):
                found.append(f"<br>{md_text(text)}")
            case _:
                raise TypeError(f"{piece!r} is not words")
    return "".join(found)


def _md_table(head: Sequence[str], rows: Sequence[Sequence[Words]], numeric: frozenset[int]) -> str:
    lines = [[md_text(h) for h in head], ["---:" if i in numeric else "---" for i in range(len(head))]]
    lines += [[md_words(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(block: Any) -> str:
    """One block as Markdown. Headings carry their anchors; folds are GitHub's <details>."""
    match block:
        case Heading(text, anchor, level):
            return f'<a id="{anchor}"></a>\n\n{"#" * level} {md_text(text)}'
        case Paragraph(words, kind):
            return ("> " if kind in ("note", "warning") else "") + md_words(words)
        case Facts(pairs):
            return " · ".join(f"{md_text(name)}: {md_words(words)}" for name, words in pairs)
        case Table(head, rows, numeric):
            return _md_table(head, rows, numeric)
        case Picture(_, link, alt, _):
            return f"![{md_text(alt)}]({link})"
        case Bullets(items, ordered, _):
            marks = (f"{i}." if ordered else "-" for i in range(1, len(items) + 1))
            return "\n".join(f"{mark} {md_words(words)}" for mark, words in zip(marks, items, strict=True))
        case Fold(title, blocks, anchor):
            mark = f'<a id="{anchor}"></a>\n\n' if anchor else ""
            inner = "\n\n".join(map(markdown, blocks))
            return f"{mark}<details><summary>{escape(title)}</summary>\n\n{inner}\n\n</details>"
        case Tiles(tiles):
            rows = [((Strong(f"{value} of {of}"), f" {label}"), details) for value, of, label, details in tiles]
            return _md_table(("", ""), rows, frozenset())
        case Bar(counts):
            return " · ".join(md_words((Badge(state), f" {n}")) for state, n in counts.items())
        case Chips(chips, states):
            by_state: dict[str, list[str]] = {state: [] for state in states}
            for text, state, to, _ in chips:
                by_state.setdefault(state, []).append(md_words(Link(text, to)))
            return "\n".join(f"- **{state}**: {', '.join(links)}" for state, links in by_state.items() if links)
        case Commands(text):
            return f"```sh\n{text}\n```"
    raise TypeError(f"{block!r} is not a block")
