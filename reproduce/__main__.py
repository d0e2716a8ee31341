"""Reproduce the report's figures: train what is missing, compare, draw.

    python -m reproduce [ACTION] figure=fig09 [scale=smoke] [device=cuda] [NAME=VALUE ...]

  run    (default) plan, train what is missing, compare with the report, judge its claims, draw
  plan   only say what would be done and how long it would take
  collect  compare and draw what is finished, without training: for a table or figure that was run in part
  draw   only draw, from results/summary
  list   every figure with its state at each scale
  report figures/report.html and .md: every figure, table and claim on one page
  readme bring the tables of README.md up to date with results/summary

figure=fig09,fig10 takes several, figure=figures, tables or all takes those; plan then prints one table of costs.
scale is paper, quick or smoke; device is auto, cpu or cuda. Any setting of a run
may be changed (solver.weight_decay=1e-3, iterations=800); the drawing then says so. Other names: curve, replicate,
threads, step, data.dir, data.mirrors, data.download, results, figures, checkpoint_seconds (conf/config.yaml explains
them).
Exit codes: 0 done, 2 something you can put right, 75 and 130 interrupted (run the same command to go on).
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.cli import run as run_command
from experiments.compose import ROOT, SCALES, names
from experiments.errors import DataMissing, UserError
from experiments.session import Session, composed
from experiments.settings import nearest
from experiments.store import Job
from reproduce import ledger, readme
from reproduce import plan as plans
from reproduce import summary as summaries

ACTIONS = ("run", "plan", "collect", "draw", "list", "report", "readme")
NO_FIGURE = ("list", "report", "readme")
SETS = {"figures": "fig", "tables": "table", "all": ""}
STATUS_STYLE = {"held": "green", "failed": "red", "inconclusive": "yellow", "not judged": "dim"}


def split_words(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """(action, figures, other overrides) of a command line. Raises UserError."""
    actions = [w for w in words if "=" not in w]
    if len(actions) > 1 or not set(actions) <= set(ACTIONS):
        odd = next((w for w in actions if w not in ACTIONS), actions[-1])
        raise UserError(f"'{odd}' is not an action: {nearest(odd, ACTIONS)}")
    action = actions[0] if actions else "run"
    figures = [
        re.sub(r"^fig(\d)(?!\d)", r"fig0\1", figure)  # fig9 is fig09
        for w in words
        if w.startswith("figure=")
        for word in w.removeprefix("figure=").split(",")
        for figure in ([n for n in names("figure") if n.startswith(SETS[word])] if word in SETS else [word])
    ]
    if not figures and action not in NO_FIGURE:
        raise UserError(f"Which figure? figure=NAME, one of {', '.join(names('figure'))}. --help shows more.")
    return action, figures, [w for w in words if "=" in w and not w.startswith("figure=")]


def list_figures(console: Console, overrides: list[str]) -> int:
    """A table: figures down, scales across."""
    table = Table("figure", "title", *SCALES)
    for figure in names("figure"):
        cells, title = [], ""
        for scale in SCALES:
            given = [*overrides, f"figure={figure}", f"scale={scale}", "data.download=false"]
            try:
                session = Session(composed(given), say=lambda _: None)
            except UserError as error:
                cells.append(f"cannot be read: {str(error)[:60]}")
                continue
            title = session.figure["title"]
            cells.append(plans.state(session))
        table.add_row(figure, title, *cells)
    console.print(table)
    return 0


def draw(console: Console, session: Session) -> int:
    """Draw from the summary and print its numbers. Needs no torch and no data."""
    from reproduce.draw import draw as draw_figure

    summary = summaries.read(session.results, session.figure["name"], session.variant)
    paths = draw_figure(session.figure, summary, session.figures)
    tell(console, session.figure, summary)
    for path in paths:
        console.print(f"  {_short(path)}", highlight=False, soft_wrap=True)
    return 0


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def tell(console: Console, figure: Mapping[str, Any], summary: summaries.Summary) -> None:
    """The finals beside the report's, and the verdicts."""
    facts = summary.facts
    report = readme.report_finals(figure, facts)

    def value(mean: float | None, std: float | None) -> str:
        if mean is None:
            return "-"
        return f"{mean:.4f}" + (f" ± {std:.4f}" if std is not None else "")

    table = Table("series", "test loss", "report", "accuracy", "report", title=None)
    for row in facts["finals"]:
        known = report.get(row["curve"], {})
        table.add_row(
            row["label"],
            value(row["test_loss"], row["test_loss_std"]),
            value(known.get("test_loss"), None),
            value(row["test_accuracy"], row["test_accuracy_std"]),
            value(known.get("test_accuracy"), None),
        )
    console.print(table)
    if facts["scale"] != "paper":
        console.print(
            f"  {facts['scale_title']}, on {', '.join(facts['data'])}: not the report's numbers.", soft_wrap=True
        )
    for panel, numbers in facts["agreement"].items():
        orders = [f"{quantity} {rho:+.2f}" for quantity, rho in numbers["order"].items() if rho is not None]
        if orders:
            console.print(
                f"  {panel}: rank correlation of our final order with the report's: {', '.join(orders)}",
                highlight=False,
            )
    for claim in facts["claims"]:
        style = STATUS_STYLE[claim["status"]]
        console.print(
            f"  {claim['claim']} [{style}]{claim['status']}[/{style}] at scale {claim['scale']}: {claim['reason']}",
            highlight=False,
            soft_wrap=True,
        )


def run(console: Console, session: Session) -> int:
    """Plan, train, collect, draw. Returns the exit code."""
    plan = plans.Plan(session)
    plan.say(console)
    if plan.missing:
        from experiments.execute import execute

        title, seconds = session.figure["name"], session.config.checkpoint_seconds
        code = execute(plan.missing, session.data, session.device, console, title, seconds, session.config.step)
        if code:
            return code
    if session.config.curve is not None or session.config.replicate is not None:
        console.print("  Trained what was asked for. The figure is drawn from all curves and replicates: not now.")
        for _, _, job in plan.runs:
            console.print(f"  {_short(job.run.folder / 'metrics.csv')}", highlight=False, soft_wrap=True)
        return 0
    return collect(console, session, plan.runs)


def collect(console: Console, session: Session, runs: Sequence[tuple[str, int, Job]]) -> int:
    """Compare, judge, record and draw finished runs. Returns the exit code."""
    if not runs:
        raise UserError(f"{session.figure['name']} has no finished run at scale {session.scale}: train some first.")
    summaries.collect(session, runs)
    if session.variant == session.scale:
        ledger.record(session, runs)
    return draw(console, session)


def several(console: Console, action: str, figures: Sequence[str], overrides: Sequence[str]) -> int:
    """Plan, run or draw figure after figure. One whose data are missing is named and passed over, if there are others.

    Returns the exit code: 0, 2 if something was passed over, or that of an interruption.
    """
    passed_over = {}
    for figure in figures:
        session = Session(
            composed([f"figure={figure}", *overrides]),
            lambda t: console.print(t, highlight=False, soft_wrap=True, markup=False),
        )
        try:
            if action == "plan":
                plans.Plan(session).say(console)
                continue
            if action == "collect":
                code = collect(console, session, [job for job in session.jobs() if job[2].done()])
            else:
                code = draw(console, session) if action == "draw" else run(console, session)
        except UserError as error:
            if len(figures) == 1 or not (isinstance(error, DataMissing) or action == "draw"):
                raise
            passed_over[figure] = str(error)
            continue
        if code:
            return code
    for figure, why in passed_over.items():
        console.print(f"  {figure} was passed over: {why}", highlight=False, soft_wrap=True, markup=False)
    return 2 if passed_over else 0


def main() -> int:
    """The command line above. Returns the exit code."""
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    action, figures, overrides = split_words(words)
    console = Console()
    if action == "list":
        return list_figures(console, overrides)
    if action == "readme":
        console.print(f"  {_short(readme.write(ROOT / 'results'))}", highlight=False)
        return 0
    if action == "report":
        from reproduce import report

        config = composed([f"figure={names('figure')[0]}", *overrides])
        for path in report.write(Session(config).results, Session(config).figures):
            console.print(f"  {_short(path)}", highlight=False)
        return 0
    if action == "plan" and len(figures) > 1:
        return plans.cost_table(console, figures, overrides)
    return several(console, action, figures, overrides)


if __name__ == "__main__":
    run_command(main)
