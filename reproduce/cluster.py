"""The missing runs of a figure as Slurm jobs: submitted through Hydra's launcher, waited for, come back to.

    results/cluster/<figure>-<scale>/<time>/runs.json    the runs of one submission, in the order of its jobs
                                            launcher.log what Hydra, submitit and sbatch said
                                            .submitit/   a folder a job: its script, its output

Every run is a job of its own, none shares one: a figure has far fewer runs than Slurm takes in one array (1,000 unless
the cluster says otherwise), and at the report's scale a run takes minutes to hours, against seconds to start. A job
whose run starts from another one's snapshot waits for it, or trains it where nobody does.
"""

import getpass
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from experiments import data as datasets
from experiments.compose import ROOT
from experiments.console import say as console_say
from experiments.errors import UserError, unreadable
from experiments.execute import INTERRUPTED
from experiments.files import write_atomically
from experiments.overrides import in_quotes
from experiments.session import Session
from experiments.store import Job
from experiments.words import counted

WAITING = {"", "None", "Resources", "Priority", "BeginTime", "Cleaning", "JobArrayTaskLimit"}
"""Reasons of Slurm's for a job to be queued that pass by themselves."""

WHOLE_NUMBERS = {
    "minutes": (1, None, ""),
    "cpus": (1, None, ""),
    "memory_gb": (1, None, "the cluster's own choice"),
    "warning_seconds": (0, 65535, ""),
    "requeues": (0, None, ""),
    "parallel": (1, None, ""),
    "poll_seconds": (1, None, ""),
}
"""What the options in conf/cluster/slurm.yaml may be: least, most, and what null means where it is allowed.

sbatch's --signal takes 65,535 seconds at most.
"""

LAST_LOOKS = 3
"""So often a job is looked for in the queue once it is gone: the shared folder may show its end later."""


def prepare(session: Session) -> None:
    """Plan for the jobs' device, which this machine need not have. Raises UserError where Slurm cannot be used."""
    try:
        importlib.metadata.distribution("hydra-submitit-launcher")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "cluster=slurm needs hydra-submitit-launcher: pip install -e '.[cluster]' installs it."
        ) from None
    for program in ("sbatch", "squeue", "srun"):
        if shutil.which(program) is None:
            raise UserError(f"cluster=slurm needs Slurm's {program}: run this on a machine of the cluster.")
    _check(session.config.cluster)
    gpus, wish = session.config.cluster.gpus, str(session.config.device)
    on_gpus = bool(gpus) and wish != "cpu"
    if wish.startswith("cuda") and not gpus:
        raise UserError(f"device={wish} needs cluster.gpus=1.")
    session.config.cluster.gpus = 1 if on_gpus else None
    session.device = torch.device("cuda" if on_gpus else "cpu")
    session.device_name = f"Slurm, {'one GPU' if on_gpus else counted(session.config.cluster.cpus, 'CPU')} a job"


def _check(options: Mapping[str, Any]) -> None:
    """Refuse numbers that Slurm, submitit or the wait for the jobs could not use. Raises UserError."""
    if options["gpus"] not in (None, 1) or isinstance(options["gpus"], bool):
        raise UserError(f"cluster.gpus={options['gpus']}: a run trains on one GPU (1), or on CPUs (null).")
    for name, (least, most, nothing) in WHOLE_NUMBERS.items():
        value = options[name]
        if value is None and nothing:
            continue
        if type(value) is not int or value < least or (most is not None and value > most):
            allowed = f"from {least} " + ("up" if most is None else f"to {most:,}")
            allowed += f", or null ({nothing})" if nothing else ""
            raise UserError(
                f"cluster.{name}={'null' if value is None else value}: a whole number {allowed} is expected."
            )
    if options["warning_seconds"] >= 60 * options["minutes"]:
        raise UserError(
            f"cluster.warning_seconds={options['warning_seconds']} is no less than cluster.minutes="
            f"{options['minutes']}: a job would be warned at once; lengthen the job or shorten the warning."
        )


def products(missing: Sequence[tuple[str, int]]) -> list[tuple[list[str], list[int]]]:
    """(curve, replicate) pairs as products of curves and replicates, which is what a Hydra sweep can say.

    One product where every curve misses the same replicates, the usual case; each pair is in exactly one.
    """
    replicates: dict[str, list[int]] = {}
    for curve, replicate in missing:
        replicates.setdefault(curve, []).append(replicate)
    groups: dict[tuple[int, ...], list[str]] = {}
    for curve, those in replicates.items():
        groups.setdefault(tuple(those), []).append(curve)
    return [(curves, list(those)) for those, curves in groups.items()]


def arrays(missing: Mapping[tuple[str, int], Job]) -> list[tuple[str, list[str], list[int]]]:
    """(precision, curves, replicates) of every array of jobs: products of the runs of one precision.

    A job is told the precision that was planned: its own GPU, older or newer than this machine's, would choose anew
    and train other runs than are waited for.
    """
    found = []
    for precision in sorted({job.run.settings.precision for job in missing.values()}):
        alike = [key for key, job in missing.items() if job.run.settings.precision == precision]
        found += [(precision, curves, replicates) for curves, replicates in products(alike)]
    return found


def words_for(
    session: Session, overrides: Sequence[str], precision: str, curves: Sequence[str], replicates: Sequence[int]
) -> list[str]:
    """The settings with which `experiments.train` submits an array."""
    said_anew = ("curve", "replicate", "scale", "device", "precision", "cluster.gpus", "data.dir")
    kept = [w for w in overrides if w.split("=")[0] not in said_anew]
    if session.data_dir is not None or os.environ.get("DATA_DIR"):  # jobs start in another folder
        kept.append(f"data.dir={in_quotes(str(datasets.data_folder(session.data_dir)))}")
    gpus = session.config.cluster.gpus
    return [
        *kept,
        f"scale={session.scale}",
        f"device={session.device.type}",
        f"precision={precision}",
        f"cluster.gpus={'null' if gpus is None else gpus}",
        f"curve={','.join(curves)}",
        f"replicate={','.join(map(str, replicates))}",
    ]


def submit(session: Session, words: Sequence[str], hashes: Sequence[str]) -> None:
    """One array of jobs. words: see `words_for`; hashes: those of its runs, the replicates of a curve side by side.

    Returns when the jobs are in the queue. Raises UserError with what sbatch said where it refuses them.
    """
    name = f"{session.figure['name']}-{session.variant}"
    folder = session.results / "cluster" / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    write_atomically(folder / "runs.json", json.dumps(list(hashes)) + "\n")
    words = ["hydra/launcher=slurm", f"hydra.sweep.dir={in_quotes(str(folder))}", *words]
    log = folder / "launcher.log"
    with open(log, "w") as said:
        # in a session of its own: Ctrl-C here is not for it
        launcher = subprocess.Popen(
            [sys.executable, "-m", "experiments.train", "-m", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    interrupted = False
    while True:
        try:
            # it would wait for the jobs; they need it no longer once they are in the queue with what they are to do
            if len(submitted(folder)) == len(hashes) or launcher.poll() is not None:
                launcher.kill()
                launcher.wait()
                break
            time.sleep(0.2)
        except KeyboardInterrupt:
            interrupted = True  # not in the middle of a submission
    if len(submitted(folder)) < len(hashes):
        lines = [line.strip() for line in log.read_text().splitlines() if line.strip()] or ["the launcher said nothing"]
        errors = [line.partition("error: ")[2] for line in lines if "sbatch: error:" in line]
        raise UserError(
            f"The jobs could not be submitted: {'; '.join(errors or lines[-1:])} ({log} has the rest; "
            "conf/cluster/slurm.yaml has the options.)"
        )
    if interrupted:
        raise KeyboardInterrupt


def submitted(folder: Path) -> dict[int, str]:
    """Slurm's job ids of one submission by their place in it, "17_0" or "17" where it is a single job."""
    ids = [path.parent.name for path in folder.glob(".submitit/*/*_submitted.pkl")]
    return {int(one.partition("_")[2] or 0): one for one in ids}


def known(results: Path) -> dict[str, tuple[str, Path]]:
    """The newest job of every run that was ever submitted: (Slurm's id, its folder) by the run's hash.

    Raises UserError for a damaged runs.json: without it, jobs in the queue would be submitted a second time.
    """
    found = {}
    for runs in sorted((results / "cluster").glob("*/*/runs.json"), key=lambda p: p.parent.name):
        ids = submitted(runs.parent)
        for place, run in enumerate(_runs(runs)):
            if place in ids:
                found[run] = ids[place], runs.parent / ".submitit" / ids[place]
    return found


def _runs(path: Path) -> list[str]:
    """The hashes in a submission's runs.json. Raises UserError where it is damaged or cannot be read."""
    try:
        runs = json.loads(path.read_text())
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        runs = None
    if not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise UserError(
            f"{path} is damaged, so that it cannot be told whose jobs were submitted with it: once squeue shows none "
            f"of them any more, delete the folder {path.parent}; finished runs are kept."
        )
    return runs


def queue(attempts: int = 1, *, ended: bool = False) -> dict[str, str]:
    """The user's jobs in Slurm's queue: "STATE reason" by id. Raises UserError where it never answers.

    ended: also those that Slurm still remembers, for some minutes after their end.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i %T %r", f"--user={getpass.getuser()}"]
    command += ["--states=all"] if ended else []
    while (asked := subprocess.run(command, capture_output=True, text=True)).returncode:
        attempts -= 1
        if not attempts:
            said = next((line.strip() for line in asked.stderr.splitlines() if line.strip()), "it says nothing")
            raise UserError(
                f"squeue does not answer: {said.rstrip('.')}. Is the Slurm controller up (scontrol ping)? Jobs stay in "
                "the queue, and the same command comes back to them."
            )
        time.sleep(15)
    return dict(line.split(maxsplit=1) for line in asked.stdout.splitlines() if line.strip())


def watch(session: Session, jobs: Sequence[Job]) -> Iterator[tuple[int, int, int, list[Job], set[str]]]:
    """(done, running, queued, ended without a result, why Slurm holds jobs back), at every look at the queue."""
    gone = dict.fromkeys((job.run.hash for job in jobs), 0)
    while True:
        states, ids = queue(attempts=20), known(session.results)
        running, queued, ended, reasons = 0, 0, [], set[str]()
        waiting = [job for job in jobs if not job.done()]  # after the look at the queue: what left it is done
        for job in waiting:
            state, _, reason = states.get(ids[job.run.hash][0], "").partition(" ")
            gone[job.run.hash] = 0 if state else gone[job.run.hash] + 1
            if gone[job.run.hash] >= LAST_LOOKS:
                ended.append(job)
            elif state in ("RUNNING", "COMPLETING", ""):
                running += 1
            else:
                queued += 1
                reasons |= {reason} - WAITING
        yield len(jobs) - len(waiting), running, queued, ended, reasons
        if not running + queued:
            return
        time.sleep(session.config.cluster.poll_seconds)


def execute(console: Console, session: Session, overrides: Sequence[str], runs: Sequence[tuple[str, int, Job]]) -> int:
    """Submit the missing runs that are not in the queue, and wait for all. Returns 0 or, after Ctrl-C, its code.

    Raises UserError for jobs that ended without finishing their run.
    """
    asked = [(c, r, job) for c, r, job in runs if job.whole]  # a job trains itself what its run starts from
    first = {job.run.hash: (curve, replicate) for curve, replicate, job in reversed(asked)}  # table 1's rows share runs
    missing = {(c, r): job for c, r, job in asked if first[job.run.hash] == (c, r) and not job.done()}
    states, ids = queue(), known(session.results)
    absent = [key for key, job in missing.items() if ids.get(job.run.hash, ("", None))[0] not in states]
    say = partial(console_say, console)
    try:
        if len(absent) < len(missing):
            say(f"  {counted(len(missing) - len(absent), 'job')} in the queue since before")
        for precision, curves, replicates in arrays({key: missing[key] for key in absent}):
            words = words_for(session, overrides, precision, curves, replicates)
            submit(session, words, [missing[c, r].run.hash for c in curves for r in replicates])
            say(f"  {counted(len(curves) * len(replicates), 'job')} submitted to Slurm")
        before, ended = "", list[Job]()
        with console.status("") as status:
            for done, running, queued, ended, reasons in watch(session, list(missing.values())):
                line = f"  {session.figure['name']}: {done} done, {running} running or ending, {queued} queued"
                line += f" ({', '.join(sorted(reasons))})" if reasons else ""
                line += f", {len(ended)} ended too early" if ended else ""
                status.update(Text(line))
                if line != before and not console.is_terminal:
                    say(line)
                before = line
    except KeyboardInterrupt:
        say(
            "The jobs stay in Slurm's queue. The same command comes back to them; squeue lists them, scancel ends them."
        )
        return INTERRUPTED
    if ended:
        raise UserError(_why(session, ended))
    return 0


def _why(session: Session, ended: Sequence[Job]) -> str:
    """What became of jobs that left the queue without a result: how Slurm says they ended, the last words of each."""
    ids, lines, states = known(session.results), [], queue(attempts=2, ended=True)
    for job in ended:
        number, folder = ids[job.run.hash]
        words = [w for path in sorted(folder.glob("*_log.err")) for w in path.read_text().splitlines() if w.strip()]
        state = states.get(number, "").partition(" ")[0].lower() or "gone from the queue"
        said = f"last words: {words[-1].strip()}" if words else "it wrote nothing"
        lines.append(f"  {job.name}: job {number}, {state}, {said} ({folder})")
    return (
        f"{counted(len(ended), 'job')} ended before the run was finished. The same command submits them again; they go "
        "on from their checkpoints where they had come to write one.\n" + "\n".join(lines)
    )
