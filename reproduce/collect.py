"""What has been trained of a figure, compared, judged, recorded and drawn, without losing what was there before."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.compose import ROOT, SCALES
from experiments.console import say
from experiments.errors import UserError
from experiments.locks import locked
from experiments.session import Session
from experiments.store import Job
from experiments.words import changes, counted, target
from reproduce import ledger, restore
from reproduce import plan as plans
from reproduce import summary as summaries
from reproduce.tell import tell


def draw(console: Console, session: Session) -> int:
    """Draw from the summary and print its numbers. Needs no torch and no data."""
    from reproduce.draw import draw as draw_figure

    name = session.figure["name"]
    summary = summaries.read(session.results, name, session.variant)
    # Of other results, too, a drawing at a smaller scale is no reason to lose the one that lies among the figures.
    places = [session.results, *([ROOT / "results"] if session.figures == ROOT / "figures" else [])]
    scales = {summaries.nearest_scale(place, name) for place in places}
    best = next((scale for scale in SCALES if scale in scales), None)
    aside = best != session.scale and not session.changed
    paths = draw_figure(session.figure, summary, session.figures, f"{name}-{session.scale}" if aside else None)
    tell(console, session.figure, summary)
    asked, ran = session.overrides.get("precision"), summary.facts["precision"]
    if asked and ran != [asked]:
        say(console, f"  precision={asked} changes nothing here: these results are of runs in {' and '.join(ran)}")
    for path in (*paths, *(summaries.place(session.results, name, session.variant, end) for end in summaries.ENDS)):
        say(console, f"  {short(path)}")
    if aside:
        line = f"  {name}.png is of scale {best}, which is nearer to the report's"
        say(console, line)
    return 0


def short(path: Path) -> str:
    """A path as seen from where the command was given."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def collect(console: Console, session: Session, runs: Sequence[tuple[str, int, Job]]) -> int:
    """Compare, judge, record and draw finished runs. Returns the exit code."""
    if not runs:
        precision = session.settings(session.curves()[0], session.replicates()[0]).precision
        elsewhere = str(session.config.results) != "results"
        raise UserError(
            f"{session.figure['name']} has no finished run here at scale {session.scale} in {precision}"
            + (f" with {', '.join(changes(session.changed))}" if session.changed else "")
            + f": make {target(session.figure['name'])} SCALE={session.scale} "
            f"{'with the same ARGS ' if session.changed or elsewhere else ''}trains them. "
            + (
                f"Begun: {begun}."
                if (begun := _begun(session))
                else "Runs of other settings are collected with the same ARGS as they had "
                f"(precision={'bf16' if precision == 'fp32' else 'fp32'})."
            )
        )
    names = session.readings()
    own = [run for run in runs if run[0] not in names]
    with contextlib.suppress(summaries.Damaged):  # before runs of other readings are brought back
        _refuse_fewer(session, [*own, *session.finished_readings()])
    restore.bring_back_readings(session)
    others = session.finished_readings()
    if not own:
        raise UserError(f"{session.figure['name']}: only other readings have been run, none of its own curves.")
    plans.check_finished([job for _, _, job in [*own, *others]])
    for _, _, job in [*own, *others]:
        job.run.keep_settings()
    ledger.check(session, [*own, *others])
    name = session.figure["name"]
    # Of two at once, one's CSV could lie beside the other's JSON, and fewer runs take the place of more.
    with locked(session.results / "cache" / f"{name}-{session.variant}.lock", f"collects {name}", session.say):
        _keep_what_is_more(session, own, others)
        summaries.collect(session, own, others)
        if session.variant == session.scale:
            ledger.record(session, [*own, *others])
    code = draw(console, session)
    ran = list(dict.fromkeys(curve for curve, _, _ in own))
    if absent := [curve for curve in session.figure["curves"] if curve not in {*names, *ran}]:
        line = f"  not run, and not in it: {', '.join(absent)}"
        say(console, line)
    there = {(curve, replicate) for curve, replicate, _ in own}
    if fewer := [curve for curve in ran for replicate in session.replicates() if (curve, replicate) not in there]:
        line = f"  not run, and not in it: {counted(len(fewer), 'replicate')} of {', '.join(dict.fromkeys(fewer))}"
        say(console, line)
    if begun := _begun(session):
        line = f"  begun, and not in it: {begun}"
        say(console, line)
    return code


def _begun(session: Session) -> str:
    """The runs that have been interrupted, and how far each is, in words."""
    return ", ".join(
        f"{curve} replicate {replicate} ({done:,} of {job.run.settings.iterations:,} iterations)"
        for curve, replicate, job in session.jobs()
        if job.whole and not job.run.done() and (done := job.run.iterations_done())
    )


def _keep_what_is_more(
    session: Session, own: Sequence[tuple[str, int, Job]], others: Sequence[tuple[str, int, Job]]
) -> None:
    """Refuse to replace a summary of more runs, and say what becomes of what is replaced. Raises UserError.

    own, others: what is finished here of the figure's curves and of its other readings.
    """
    name, here = session.figure["name"], [*own, *others]
    if not summaries.begun(session.results, name, session.variant):
        return
    try:
        lost = _refuse_fewer(session, here)
        texts = restore.kept_runs(summaries.place(session.results, name, session.variant, ".csv"))
    except summaries.Damaged as error:  # what is damaged may be replaced, but its rows may be all there is
        base = summaries.place(session.results, name, session.variant)
        aside = " and ".join(short(path) for path in summaries.set_aside(session.results, name, session.variant))
        lacks = f", and of other readings only what is here ({len(others)})" if session.readings() else ""
        back = summaries.bring_back(base, session.variant)
        session.say(
            f"  {error.what}. It is kept as {aside}; what is written now has the {counted(len(own), 'run')} finished "
            f"here{lacks}." + (f" A committed one comes back with  {back}" if back else "")
        )
        return
    if unlike := {run.hash: curve for curve, _, job in here if restore.unlike(run := job.run, texts)}:
        session.say(
            f"  {counted(len(unlike), 'run')} came to other numbers than results/summary had, as on another kind of "
            f"processor or with another number of threads ({', '.join(sorted(set(unlike.values())))}): they take the "
            "place of those (git checkout brings committed ones back)."
        )
    if lost:
        session.say(f"  Other readings of before ({', '.join(sorted(set(lost)))}) had other settings and are left out")


def _refuse_fewer(session: Session, here: Sequence[tuple[str, int, Job]]) -> list[str]:
    """Refuse to replace a summary of more runs than are finished here, as one that another machine made.

    A run that is there under another curve's name is not lost. Returns the other readings that would be. Raises
    UserError, of which `summaries.Damaged` is one.
    """
    name = session.figure["name"]
    if not summaries.begun(session.results, name, session.variant):
        return []
    rows = summaries.read(session.results, name, session.variant).rows
    kept = {job.run.hash for _, _, job in here}
    there = rows[rows["curve"].isin(session.figure["curves"])].drop_duplicates(["curve", "replicate"])
    now = {(curve, replicate) for curve, replicate, _ in here}
    lost = [
        curve
        for curve, replicate, run in there[["curve", "replicate", "hash"]].to_numpy()
        if (curve, int(replicate)) not in now and run not in kept
    ]
    if own_lost := [curve for curve in lost if curve not in session.readings()]:
        base = summaries.place(session.results, name, session.variant)
        raise UserError(
            f"{base}.csv holds {counted(len(there), 'run')}, and {len(own_lost)} of them "
            f"{'is' if len(own_lost) == 1 else 'are'} not among the {counted(len(here), 'run')} finished here (for "
            f"example {min(own_lost)}): bring them back with "
            f"make restore-{target(name)} SCALE={session.scale}{same_args(session)}, train them, or delete "
            f"{base.name}.csv and .json to replace them."
        )
    return lost


def same_args(session: Session) -> str:
    """What has to follow a make command: other settings are other runs, and other folders have others."""
    settings = "the same settings" if session.changed or "precision" in session.overrides else ""
    folder = "the same results=" if str(session.config.results) != "results" else ""
    said = " and ".join(filter(None, (settings, folder)))
    return f" with {said} in ARGS" if said else ""
