"""Reproduce the report's figures: train what is missing, compare, draw.

    python -m reproduce [ACTION] figure=fig09 [scale=smoke] [device=cuda] [NAME=VALUE ...]

  run      (default) plan, train what is missing, compare with the report, judge its claims, draw
  plan     only say what would be done and how long it would take
  collect  compare and draw what is finished, without training: for a figure or table that was run in part
  draw     only draw, from results/summary: at the scale nearest to the report's, unless scale= says another
  restore  bring the runs of results/summary back into results/runs, so that what is missing is trained without them
  list     every figure with its state at each scale
  report   figures/report.html and .md: every figure, table and claim on one page
  readme   bring the generated parts of README.md up to date with results/summary

figure= takes one name, several (fig09,fig10), or figures, tables or all; for several, plan prints one table of costs.
figure=fig03 includes fig03b, its panel on ImageNet, whose runs have other lengths and replicates.
scale is paper, quick or smoke; device is auto, cpu or cuda; jobs=2 trains two runs at a time, gpus=2 spreads the
virtual GPUs of each run over two processes, each with a CUDA device of its own; cluster=slurm submits the runs as jobs.
Any setting of a run may be changed (solver.weight_decay=1e-3, iterations=800); the drawing then says so. Other names:
curve, replicate, replicates, seed, readings, threads, step, data.dir, data.mirrors, data.download, data.workers,
results, figures and checkpoint_seconds (conf/config.yaml explains them).
Exit codes: 0 done, 1 a run's process failed, 2 something you can put right, 75 and 130 interrupted (run the same
command to go on).
"""

import re
import sys
from collections.abc import Sequence
from functools import partial

from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from experiments.compose import ROOT, SCALES, file_names, load, names
from experiments.console import console as console_of
from experiments.console import say
from experiments.data import data_folder
from experiments.errors import DataMissing, UserError
from experiments.execute import carry_out
from experiments.files import check_writable
from experiments.overrides import DATA, GROUPS, HOW, check_no_sweep, check_overrides, check_said_once
from experiments.session import Session, composed
from experiments.settings import nearest, paths
from experiments.words import changes, target
from reproduce import plan as plans
from reproduce import readme, restore
from reproduce import summary as summaries
from reproduce.collect import collect, draw, same_args, short

ACTIONS = ("run", "plan", "collect", "draw", "restore", "list", "report", "readme")
FROM_SUMMARY = ("draw", "restore")
NO_FIGURE = ("list", "report", "readme")
SETS = {"figures": "fig", "tables": "table", "all": ""}


def split_words(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """(action, figures, other overrides) of a command line. Raises UserError."""
    actions = [w for w in words if "=" not in w]
    if len(actions) > 1 and set(actions) <= set(ACTIONS):
        raise UserError(f"One action at a time: {' or '.join(actions)}.")
    if not set(actions) <= set(ACTIONS):
        odd = next(w for w in actions if w not in ACTIONS)
        if odd in (*HOW, *DATA, *GROUPS, *paths()):
            raise UserError(f"'{odd}' is a setting: {odd}=VALUE, without blanks.")
        raise UserError(
            f"'{odd}' is neither a setting, NAME=VALUE without blanks, nor an action: {nearest(odd, ACTIONS)}"
        )
    settings = [w for w in words if "=" in w and not w.startswith("figure=")]
    check_no_sweep(settings)
    check_said_once(settings)
    action = actions[0] if actions else "run"
    if action in NO_FIGURE and (part := [w for w in words if re.match(r"\+*(curve|replicate|scale)=", w)]):
        raise UserError(f"{action} shows all that there is of every figure at every scale: leave {part[0]} out.")
    said = [file_names(w).removeprefix("figure=") for w in words if w.startswith("figure=")]
    asked = [one for word in said for one in word.split(",")]
    figures = list(dict.fromkeys(figure for word in asked for figure in _figures(word)))
    if not figures and action not in NO_FIGURE:
        check_overrides(settings)  # figur=fig09
        raise UserError(f"Which figure? figure=NAME, one of {', '.join(names('figure'))}. --help shows more.")
    return action, figures, settings


def _figures(word: str) -> list[str]:
    """The files that a word after `figure=` means: "tables" is both of them, fig03 is it and its ImageNet part fig03b.

    Raises UserError for a word without a file, before anything is measured or trained for the words beside it.
    """
    there = names("figure")
    if word in SETS:
        return [name for name in there if name.startswith(SETS[word])]
    if word not in there:
        raise UserError(f"There is no figure '{word}': {nearest(word, there)}")
    parts = rf"{word}[b-z]" if re.fullmatch(r"fig\d\d", word) else "(?!)"
    return [word, *(name for name in there if re.fullmatch(parts, name))]


def list_figures(console: Console, overrides: list[str]) -> int:
    """A table: figures down, scales across."""
    # 56 columns of the rest: on a narrow terminal titles are cut
    title = Column("title", no_wrap=True, max_width=max(24, console.width - 56))
    table = Table("figure", title, *SCALES, box=SIMPLE_HEAD)
    broken: dict[str, list[str]] = {}
    config: DictConfig | None = None
    for figure in names("figure"):
        try:
            if config is None:
                config = composed([*overrides, f"figure={figure}", "data.download=false"])
            else:  # another figure of the same words; composing takes far longer
                config.figure = load("figure", figure) | {"name": figure}
            cells = []
            for scale in SCALES:
                config.scale.name = scale  # all that a session asks of the group
                cells.append(plans.state(Session(config, say=lambda _: None)))
            table.add_row(figure, escape(config.figure.title), *cells)
        except UserError as error:
            broken.setdefault(str(error), []).append(figure)
    if list(broken.values()) == [names("figure")]:  # what is said to all of them: a setting is wrong, no figure
        raise UserError(next(iter(broken)))
    console.print(table)
    say(console, "  runs a curve, verdicts; -: nothing yet; no data: the data set is not here (DATA_DIR=, or a run)")
    for why, figures in broken.items():
        line = f"{', '.join(figures)} cannot be read: {why}"
        say(console, line)
    return 2 if broken else 0


def whole(session: Session) -> bool:
    """Whether all curves and replicates are asked for."""
    return session.config.curve is None and session.config.replicate is None


def run(console: Console, session: Session, overrides: Sequence[str] = ()) -> int:
    """Plan, train (here or on a cluster), collect, draw. Returns the exit code."""
    part = not whole(session)
    plan = plans.Plan(session)
    runs = plan.runs  # impossible settings are refused before a folder is made
    check_writable(session.results / "summary", "results")
    if not part:
        check_writable(session.figures, "figures")
    plan.say(console)
    if plan.missing and session.config.cluster.name == "slurm":
        from reproduce import cluster

        words = [f"figure={session.figure['name']}", *overrides]
        if code := cluster.execute(console, session, words, runs):
            return code
    elif plan.missing and (code := carry_out(session, plan.missing, console, plan.costs())):
        return code
    if part:
        say(
            console,
            "  Trained what was asked for. The figure is not drawn now: it is drawn from all curves and replicates, or "
            f"from what there is of them by  make collect-{target(session.figure['name'])} SCALE={session.scale}"
            f"{same_args(session)}",
        )
        for job in (job for _, _, job in runs if job.run.done()):  # not what was trained up to a state only
            say(console, f"  {short(job.run.folder / 'metrics.csv')}")
        return 0
    return collect(console, session, runs)


def plan(console: Console, session: Session, figure: str, overrides: Sequence[str]) -> None:
    """Say what a run would do: without the data, as if nothing had been run yet."""
    try:
        plans.Plan(session).say(console)
    except DataMissing:
        from reproduce import costs

        costs.cost_table(console, [figure], overrides)
        wanted = {session.settings(curve, session.replicates()[0]).dataset.name for curve in session.curves()}
        if session.changed:
            say(console, f"  changed by hand: {', '.join(changes(session.changed))}")
        then = (
            "ImageNet is never fetched, and these are not run without it"
            if "imagenet" in wanted
            else "a run fetches them first"
        )
        where = data_folder(session.data_dir)
        say(console, f"  The data are not in {where}, so nothing counts as done; {then}.")


def _session(console: Console, action: str, figure: str, overrides: Sequence[str]) -> Session:
    """A figure's session for an action, its settings checked where they are to be trained. Raises UserError."""
    session = Session(composed([f"figure={figure}", *overrides]), partial(say, console))
    free = action in FROM_SUMMARY and session.config.scale.name == "auto" and not session.changed
    if free and (best := summaries.nearest_scale(session.results, figure)):
        session = Session(composed([f"figure={figure}", *overrides, f"scale={best}"]), session.say)
    if session.config.cluster.name == "slurm" and action in ("run", "plan", "restore"):
        from reproduce import cluster

        cluster.prepare(session)
    if action == "run":
        for curve in session.curves():
            for replicate in session.replicates():
                session.settings(curve, replicate)
    return session


def _act(console: Console, action: str, session: Session, overrides: Sequence[str], own: Sequence[str]) -> int:
    """One action for one figure. own: the words that composed the session. Returns the exit code. Raises UserError."""
    figure = session.figure["name"]
    if action == "plan":
        plan(console, session, figure, own)
        return 0
    if action == "run":
        return run(console, session, overrides)
    if action == "restore":
        return restore.restore(console, session)
    if not whole(session):
        raise UserError(f"{action} takes all that is finished: leave curve= and replicate= out.")
    if action == "draw":
        return draw(console, session)
    try:
        runs = session.jobs()
    except DataMissing:
        raise DataMissing(
            f"{figure}: its data are not here, without which it cannot be told what has been run of it: "
            "DATA_DIR=/folder/that/holds/them."
        ) from None
    return collect(console, session, [job for job in runs if job[2].run.done()])


def several(console: Console, action: str, figures: Sequence[str], overrides: Sequence[str]) -> int:
    """One action for figure after figure. One whose data are missing is named and passed over, if there are others.

    Returns the exit code: 0, 2 if something was passed over, or that of an interruption.
    """
    passed_over = dict[str, str]()
    sessions = dict[str, Session]()
    own = [w for w in overrides if not w.lstrip("+").startswith("hydra.")]  # the rest is for a cluster's jobs
    if action in ("plan", "collect"):
        own.append("data.download=false")  # the one only says, the other needs runs, which were trained on what is here
    for figure in figures:  # what the last one cannot be is said before the first is trained
        try:
            sessions[figure] = _session(console, action, figure, own)
        except UserError as error:
            if len(figures) == 1 or action not in FROM_SUMMARY:
                raise
            passed_over[figure] = str(error)
    for figure in list(sessions):
        try:
            code = _act(console, action, sessions.pop(figure), overrides, own)  # popped, for it holds its data
        except UserError as error:
            if len(figures) == 1 or not (isinstance(error, DataMissing) or action in FROM_SUMMARY):
                raise
            passed_over[figure] = str(error)
            continue
        if code:
            return code
    for figure, why in passed_over.items():
        say(console, f"  {figure} was passed over: {why}")
    return 2 if passed_over else 0


def main() -> int:
    """The command line above. Returns the exit code."""
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    action, figures, overrides = split_words(words)
    console = console_of()
    if action == "list":
        return list_figures(console, overrides)
    if action == "readme":
        say(console, f"  {short(readme.write(ROOT / 'results'))}")
        return 0
    if action == "report":
        from reproduce import report

        session = Session(composed(["figure=fig09", *overrides]))
        if not (session.results / "summary").is_dir():
            raise UserError(f"{session.results} has no results, as its folder summary is missing: correct results=.")
        check_writable(session.figures, "figures")
        if session.changed:
            changed = ", ".join(changes(session.changed))
            say(console, f"  The page shows figures with their own settings: {changed} plays no part in it")
        problems = list[str]()
        say(console, "  Drawing every figure anew, which takes a minute or two")
        bar = partial(track, description="", console=console, transient=True, disable=not console.is_terminal)
        for path in report.write(session.results, session.figures, problems.append, bar):
            say(console, f"  {short(path)}")
        for problem in problems:
            say(console, f"  not shown: {problem}")
        if problems:
            say(console, "  The page is written without that: make report again once it is mended.")
        return 2 if problems else 0
    if action == "plan" and len({re.sub(r"^(fig\d\d)[b-z]$", r"\1", name) for name in figures}) > 1:
        from reproduce import costs

        return costs.cost_table(console, figures, [*overrides, "data.download=false"])
    return several(console, action, figures, overrides)
