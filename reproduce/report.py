"""One page about everything: figures/report.html (self-contained) and figures/report.md (the same, linked to pictures).

It is made from conf/ and results/summary alone, so a clone makes it without training; the same summaries give the
same page. The drawings are drawn anew, each at the best scale there is, so that a picture belongs to its numbers.
Optional: results/summary/runs.csv for the times, results/notes.yaml (figure: sentences) for what we make of it.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from string import Template

from experiments.files import write_atomically
from experiments.settings import nearest
from reproduce import ledger
from reproduce.entries import Entry, entries, read_notes
from reproduce.markup import Heading, Link, Paragraph, html, html_contents, html_words, markdown, md_contents
from reproduce.overview import around, top
from reproduce.sections import blocks, section

TEMPLATE = Path(__file__).with_name("templates") / "report.html"
TITLE = "A disciplined approach to neural network hyper-parameters, reproduced"
LEAD = (
    "Leslie N. Smith's report on learning rate, batch size, momentum and weight decay (",
    Link("arXiv 1803.09820", "https://arxiv.org/abs/1803.09820"),
    "), run again: each figure over the report's own curves, each conclusion judged by code.",
)


def write(
    results: Path,
    figures: Path,
    say: Callable[[str], None] = lambda _: None,
    through: Callable[[Sequence[Entry]], Iterable[Entry]] = iter,
) -> list[Path]:
    """Write report.html and report.md into `figures` (and the drawings they show); returns their two paths.

    A figure without results, or with a damaged summary, says so in its section (and to `say`); one whose file cannot be
    read is left out (and said). `through` hands out the figures, two seconds of drawing each, and may show how far that
    is. Raises UserError for a damaged runs.csv or notes.yaml and where `figures` cannot be written.
    """
    runs, notes = ledger.times(results), read_notes(results)
    known = entries(say)
    for name in sorted(set(notes) - {entry.name for entry in known}):
        say(f"notes.yaml has a text for '{name}': {nearest(name, [entry.name for entry in known])}")
    sections = [section(entry, results, figures, runs) for entry in through(known)]
    for s in sections:
        for problem in s.problems:
            say(f"{s.entry.label}: {problem}")
    parts = [top(sections), *(blocks(s, notes.get(s.entry.name)) for s in sections), around(sections)]
    headings = [b for part in parts for b in part if isinstance(b, Heading) and b.level == 2]
    page = Template(TEMPLATE.read_text()).substitute(
        title=html_words(TITLE),
        lead=html_words(LEAD),
        contents=html_contents(headings),
        body="\n".join("<section>\n" + "\n".join(map(html, part)) + "\n</section>" for part in parts),
    )
    text = [
        f"# {TITLE}",
        markdown(Paragraph(LEAD)),
        md_contents(headings),
        *(markdown(b) for part in parts for b in part),
    ]
    paths = [figures / "report.html", figures / "report.md"]
    for path, content in zip(paths, (page, "\n\n".join(text) + "\n"), strict=True):
        write_atomically(path, content)
    return paths
