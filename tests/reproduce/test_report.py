"""The report page, made from small made summaries: what it shows, what it counts, that it opens everywhere."""

import base64
import html as entities
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from experiments.compose import CONF, names
from experiments.session import Session, composed
from reproduce import ledger, readme, reference, report
from reproduce import summary as summaries
from reproduce.claims import CLAIMS
from reproduce.entries import entries
from reproduce.overview import claims_by_status, panels_drawn, table_rows
from reproduce.sections import changes, number, section

EVIL = "<script>alert('1 & 2')</script> | *stars* ${title}"
WITHIN_ROWS = 12
"""Rows of table 1 that are made to lie half a standard error from the report's; the others lie four away."""


def made(results: Path, figure: str, scale: str, metrics) -> None:
    """A summary through `summaries.collect`; `metrics(label, replicate, settings)` gives each run's rows."""
    words = [f"figure={figure}", f"scale={scale}", "device=cpu", f"results={results}"]
    session = Session(composed(words), say=lambda _: None)
    jobs = []
    for curve, what in session.figure["curves"].items():
        if "instead_of" in what:
            continue
        for replicate in session.replicates():
            settings = session.settings(curve, replicate)
            rows = metrics(what["label"], replicate, settings)
            run = SimpleNamespace(
                hash=f"{figure}-{scale}-{curve}-{replicate}",
                settings=settings,
                metrics=lambda rows=rows: rows,
                environment=lambda: {"data": "CIFAR-10", "data_source": EVIL, "device": "a GPU", "torch": "2.14.1"},
                summary=lambda: {"parameters": 144_554, "diverged_at": None},
            )
            jobs.append((curve, replicate, SimpleNamespace(run=run)))
    summaries.collect(session, jobs)


def rows(iteration, loss, accuracy) -> pd.DataFrame:
    """Rows as metrics.csv has them."""
    n = len(iteration)
    table = {"iteration": iteration, "lr": np.linspace(0.001, 0.01, n), "momentum": 0.9, "train_loss": loss}
    return pd.DataFrame(
        {**table, "train_accuracy": accuracy, "test_loss": loss, "test_accuracy": accuracy, "grad_norm": 1.0}
    )


def as_reported(label, replicate, settings) -> pd.DataFrame:
    """The report's own curves of figure 9, each replicate a little aside, so that both claims hold."""
    iteration = np.arange(200, settings.iterations + 1, 200)
    aside = 1 + 1e-4 * replicate
    loss, accuracy = (np.interp(iteration, *reference.load(p)[label]) * aside for p in ("fig09a", "fig09b"))
    return rows(iteration, loss, accuracy)


def all_alike(label, replicate, settings) -> pd.DataFrame:
    """Curves that no claim of figure 9 can hold on: they are all the same."""
    iteration = np.linspace(0, settings.iterations, 11).astype(int)
    return rows(iteration, np.linspace(2.3, 1, 11), np.linspace(0.1, 0.7, 11))


def row_of_table(label, replicate, settings) -> pd.DataFrame:
    """A row of table 1 with the report's spread: replicates at -s, -s, +s, +s about a chosen distance from its mean."""
    printed = reference.table("table1").set_index("row").loc[int(label.removeprefix("row "))]
    spread = np.sqrt(3 / 4) * printed["accuracy_std"]  # of four values, two at each side: the sample's is the printed
    distance = 0.5 if printed.name <= WITHIN_ROWS else 4.0
    error = printed["accuracy_std"] * np.sqrt(2 / 4)
    accuracy = printed["accuracy_percent"] + distance * error + spread * (1 if replicate > 1 else -1)
    return rows(np.array([100, 200, 300]), np.ones(3), np.full(3, accuracy / 100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Figure 9 at two scales, figure 6 damaged, table 1; times, and notes with markup in them."""
    folder = tmp_path_factory.mktemp("report")
    results = folder / "results"
    made(results, "fig09", "paper", as_reported)
    made(results, "fig09", "quick", all_alike)
    made(results, "table1", "paper", row_of_table)
    (results / "summary" / "fig06-quick.json").write_text('{"figure": "fig06"')
    (results / "summary" / "fig06-quick.csv").write_text("curve,replicate\n")
    hashes = pd.read_csv(results / "summary" / "fig09-paper.csv")["hash"].unique()
    times = pd.DataFrame({"hash": hashes, "scale": "paper", "wall_seconds": 150.0, "images_per_second": 41_000.0})
    times.reindex(columns=list(ledger.COLUMNS), fill_value=0).to_csv(results / "summary" / "runs.csv", index=False)
    (results / "notes.yaml").write_text(yaml.safe_dump({"fig09": EVIL}))
    report.write(results, folder / "figures")
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "figures" / "report.html").read_text()


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "figures" / "report.md").read_text()


class Checker(HTMLParser):
    """Collects tags; complains where they are not balanced."""

    VOID = frozenset({"meta", "source", "img", "br", "hr", "link", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_tags_balance_ids_are_unique_and_links_lead_somewhere(page):
    found = Checker(page)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for link in (a["href"] for a in found.all("a")):
        assert (link.startswith("#") and link[1:] in ids) or link == "https://arxiv.org/abs/1803.09820"


def test_nothing_is_loaded_from_elsewhere(page):
    found = Checker(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert all(a["src"].startswith("data:image/png;base64,") for a in found.all("img"))
    assert not re.search(r"url\(|@import", page)
    assert all(a["srcset"].startswith("data:image/png;base64,") for a in found.all("source"))
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert {tag for tag, attributes in found.tags if "srcset" in attributes} == {"source"}


def test_every_figure_and_table_has_a_section_in_order(page, text):
    ids = [a["id"] for a in Checker(page).all("h2")]
    named = [i for i in ids if i.startswith(("fig", "table"))]
    assert named == sorted(named)
    assert ids[-1] not in named, "what is no figure of the report comes last"
    panels = [p for e in entries() for p in e.panels]
    assert panels[: len(reference.panels())] == reference.panels()
    assert panels[len(reference.panels()) :] == ["table1", "table2"]
    assert set(ids) >= set(names("figure"))
    assert re.findall(r'^<a id="([^"]+)"></a>\n\n## ', text, re.MULTILINE) == ids
    assert len(re.findall("^## ", text, re.MULTILINE)) == len(ids)


def test_pictures_are_those_of_the_best_scale(folder, page, text):
    drawn = (folder / "figures" / "fig09.png").read_bytes()
    images = Checker(page).all("img")
    assert len(images) == 1, "one figure has results; a table is written, not drawn"
    assert base64.b64decode(images[0]["src"].split(",")[1]) == drawn
    assert "at scale paper" in images[0]["alt"]
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert linked == ["fig09.png"]
    assert all((folder / "figures" / name).is_file() for name in linked)


def test_figures_that_were_not_run_say_how_to(page, text):
    for target in ("make fig16", "make fig3b", "make fig1", "make table2"):
        assert f"Not run yet: <code>{target}</code>" in page
        assert f"Not run yet: `{target}`" in text
    assert "Not run yet: <code>make fig9<" not in page


def test_the_score_counts_the_best_scale_only(folder, page, text):
    stored = json.loads((folder / "results" / "summary" / "table1-paper.json").read_text())
    held = 2 + sum(c["status"] == "held" for c in stored["claims"])
    assert "".join(Checker(page).text).count("2 of 35") == 1
    panels = "**2 of 35** panels at the report's scale, at least in part"
    assert f"{panels} | 0 more shortened (quick), 0 on made images only" in text
    assert f"**{held} of 51** claims held at the report's scale" in text
    assert f"**{WITHIN_ROWS} of 46** table rows within 2 standard errors | of 20 run at scale paper" in text
    run = [section(e, folder / "results", folder / "again", ledger.times(folder)) for e in entries()]
    counts = claims_by_status(run)
    assert sum(counts.values()) == len(CLAIMS) == 51
    assert counts["not run"] == 51 - 5
    assert panels_drawn(run) == {"paper": 2, "quick": 0, "smoke": 0}
    assert table_rows(run) == (WITHIN_ROWS, 20, 46)
    shortened = [replace(s, results=[replace(best, scale="quick") for best in s.results[:1]]) for s in run]
    again = claims_by_status(shortened)
    for word in ("held", "failed", "inconclusive"):  # shortened runs are counted apart
        assert (again[word], again[f"{word} at quick"]) == (0, counts[word])


def test_a_section_says_what_was_run_and_what_came_out(page):
    part = page[page.index('id="fig09"') : page.index('id="fig10"')]
    words = entities.unescape(re.sub(r"<[^>]+>", " ", part))
    for expected in (
        *("report's schedule", "CIFAR-10", "4 replicates a curve", "16,000", "2.14.1", "a GPU", "fp32"),
        *("40 min in 16 runs, 41,000 images/s (median)", "WD=3.2e-3", "solver.weight_decay=0.0032", "lr.base=0.005"),
        *(CLAIMS["F09.1"].says, CLAIMS["F09.2"].says, "The same at scale quick", "4 epochs instead of 164"),
        *("total batch size 512 (128 x 4 GPUs)", "rank correlation of the final values: test loss +1.00"),
        *("report's samples moved by +200", "(the report's / 10)"),
    ):
        assert expected in words, expected
    assert part.count('class="badge held"') == 2
    assert f"{reference.load('fig09a')['WD=1e-3'][1][-4:].mean():.4f}" in words


def test_a_table_is_written_out(page, text):
    part = page[page.index('id="table1"') : page.index('id="table2"')]
    printed = reference.table("table1")
    for mean, std in printed[["accuracy_percent", "accuracy_std"]].to_numpy():
        assert f"{mean:.1f} ± {std:.1f}" in part
    assert part.count(">+0.5<") == WITHIN_ROWS
    assert part.count(">+4.0<") == 20 - WITHIN_ROWS
    assert text.count("| +4.0 |") == 20 - WITHIN_ROWS


def test_missing_numbers_are_dashes(page, text):
    assert number(None) == number(float("nan")) == "–"
    assert number(0.25) == "0.2500"
    assert not re.search(r">\s*(nan|None|inf|NaN)\s*<", page)
    assert not re.search(r"\| (nan|None|inf|NaN) \|", text)
    assert '<td class="n">–</td>' in page, "single runs have no standard deviations"


def test_remarks_assumptions_and_contradictions_are_there(page):
    words = re.sub(r"\s+", " ", "".join(Checker(page).text))
    remarks = yaml.safe_load((CONF / "remarks.yaml").read_text())
    assert len(remarks["remarks"]) == 6
    assert len(remarks["checklist"]) == 4
    assert {claim for r in remarks["remarks"] for claim in r["claims"]} <= set(CLAIMS)
    sentences = [*(r["says"] for r in remarks["remarks"]), *remarks["checklist"], *readme.assumptions(names("figure"))]
    for sentence in [*sentences, *yaml.safe_load((CONF / "contradictions.yaml").read_text())]:
        assert re.sub(r"\s+", " ", sentence) in words, sentence


def test_text_from_outside_stays_text(page, text):
    assert EVIL in "".join(Checker(page).text)
    assert "<script" not in page
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in rendered
    assert entities.escape(EVIL, quote=False) in rendered


def test_markdown_has_the_same_tables_and_claims(page, text):
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert rendered.count("<table>") == page.count("<table") + 1, "the tiles are a table in Markdown"
    assert rendered.count("<details>") == page.count("<details")
    for claim in CLAIMS.values():
        assert f"<strong>{claim.id}</strong>" in rendered


def test_the_same_results_give_the_same_bytes(tmp_path):
    made(tmp_path, "fig09", "quick", all_alike)
    first = [p.read_bytes() for p in report.write(tmp_path, tmp_path / "figures")]
    assert [p.read_bytes() for p in report.write(tmp_path, tmp_path / "figures")] == first


def facts_with(**changed):
    """Damage that keeps the file's form: facts of other shapes than ours, as older versions might have written."""

    def damage(base: Path) -> None:
        path = base.with_suffix(".json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"facts_sha256": None} | changed))

    return damage


def relabelled(path: Path) -> None:
    """Someone calls the data otherwise."""
    path.write_text(path.read_text().replace('"CIFAR-10"', '"CIFAR-100"'))


FIG09 = next(e for e in entries() if e.name == "fig09")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda base: base.with_suffix(".json").unlink(), "fig09-quick"),
        (lambda base: base.with_suffix(".csv").unlink(), "fig09-quick.csv is missing"),
        (lambda base: base.with_suffix(".csv").write_text("curve,replicate,hash\n"), "lacks"),
        (lambda base: base.with_suffix(".json").write_text("[1, 2"), "cannot be read"),
        (lambda base: base.with_suffix(".json").write_text("{}"), "lacks"),
        (lambda base: relabelled(base.with_suffix(".json")), "fig09-quick.json is not what was written"),
        (facts_with(claims=[{"claim": "F09.1"}]), "KeyError: 'status'"),
        (facts_with(agreement={"fig09a": None}), "TypeError"),
    ],
    ids=["no json", "no csv", "empty csv", "cut json", "no facts", "other data", "odd claims", "odd agreement"],
)
def test_a_bad_summary_is_named_and_nothing_else_suffers(tmp_path, damage, says):
    made(tmp_path, "fig09", "quick", all_alike)
    damage(summaries.place(tmp_path, "fig09", "quick"))
    broken = section(FIG09, tmp_path, tmp_path / "figures", ledger.times(tmp_path))
    assert not broken.results
    assert len(broken.problems) == 1
    assert says in broken.problems[0]
    assert "run make fig9 SCALE=quick" in broken.problems[0] or "Run make fig9 SCALE=quick" in broken.problems[0]
    assert str(tmp_path) not in broken.problems[0], "the page says nothing of the machine's folders"
    assert broken.status("F09.1") == "not run"


def test_no_lesser_scale_stands_in_for_a_bad_summary(tmp_path):
    """Its drawing would be written over the better one, under notes that speak of that."""
    made(tmp_path, "fig09", "quick", all_alike)
    for suffix in (".csv", ".json"):
        summaries.place(tmp_path, "fig09", "paper").with_suffix(suffix).write_text("{}")
    drawn = tmp_path / "figures" / "fig09.png"
    drawn.parent.mkdir()
    drawn.write_text("at the report's scale")
    found = section(FIG09, tmp_path, tmp_path / "figures", ledger.times(tmp_path))
    assert found.problems and not found.results and found.status("F09.1") == "not run"
    assert drawn.read_text() == "at the report's scale"


def test_the_page_tells_of_the_damaged_one(page):
    part = page[page.index('id="fig06"') : page.index('id="fig07"')]
    assert 'class="warning"' in part
    assert "fig06-quick" in part
    assert "Not run yet" not in part


def test_settings_are_written_as_the_command_line_takes_them():
    nested = {"lr": {"policy": "range", "peak": 0.01, "drops": None}, "model": "cifar3", "dataset": {"mirror": True}}
    assert changes(nested) == [
        "lr.policy=range",
        "lr.peak=0.01",
        "lr.drops=null",
        "model=cifar3",
        "dataset.mirror=true",
    ]
    assert changes({"model": {"width": 1}}) == ["model.width=1"]


CHROMIUM = shutil.which("chromium")
MEASURE = """<script>addEventListener("load", () => {
  const root = document.documentElement;
  const images = [...document.images].map(i => i.complete && i.naturalWidth);
  parent.postMessage(JSON.stringify({images, width: innerWidth, needs: root.scrollWidth, has: root.clientWidth}), "*");
})</script></body>"""
FRAME = """<!DOCTYPE html><body><script>
addEventListener("message", e => document.documentElement.dataset.seen = e.data);
</script><iframe src="copy.html" width="WIDTH" height="900" style="border: 0"></iframe></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_every_picture_and_no_sideways_scrolling(tmp_path, page, width):
    """A copy of the page from disk, with a script that measures, in a frame as wide as a screen or a telephone."""
    (tmp_path / "copy.html").write_text(page.replace("</body>", MEASURE))
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet.split(), "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    answer = re.search(r'data-seen="([^"]*)"', shown)
    assert answer is not None, "the page did not load"
    seen = json.loads(entities.unescape(answer[1]))
    assert seen["width"] == width
    assert len(seen["images"]) == page.count("<img ") > 0
    assert all(seen["images"]), "a picture that cannot be shown has no width"
    assert seen["needs"] <= seen["has"], "something sticks out at the right"
