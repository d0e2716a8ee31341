"""Work done by several processes together, as the ranks of a run."""

import contextlib
import multiprocessing
import traceback
from pathlib import Path

import torch
from small_runs import CPU

from experiments.distributed import Agreement, Share, join, leave
from experiments.progress import Stopped
from experiments.settings import Settings
from experiments.store import Run
from experiments.training import train

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["experiments.training", "experiments.data"])


def rank_main(rank: int, ranks: int, meeting: Path, said, work, *args) -> None:
    torch.set_num_threads(1)
    try:
        share = join(rank, ranks, CPU, meeting)
        said.put((rank, work(share, *args), ""))
        leave(share)
    except BaseException:
        said.put((rank, None, traceback.format_exc()))
        raise


def spread(ranks: int, folder: Path, work, *args) -> list:
    """What work(share, *args) returns on each rank."""
    said = FORKSERVER.Queue()
    meeting = folder / f"meeting #{len(list(folder.glob('meeting *')))}"  # of blanks and signs
    processes = [
        FORKSERVER.Process(target=rank_main, args=(rank, ranks, meeting, said, work, *args)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        found = []
        for _ in processes:
            found.append(said.get(timeout=120))
            assert not found[-1][2], found[-1][2]
        for process in processes:
            process.join(timeout=60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return [value for _, value, _ in sorted(found, key=lambda one: one[0])]


def train_share(share: Share, results: Path, settings: Settings, data, stop_at: int | None = None) -> int:
    """The iteration at which a run ended on this rank."""
    run, at = Run(results, settings), [-1]

    def wish() -> bool:  # only rank 0's counts
        return not share.leads or (stop_at is not None and at[0] >= stop_at)

    with run.claim() if share.leads else contextlib.nullcontext(), contextlib.suppress(Stopped):
        train(
            run,
            data,
            CPU,
            share=share,
            progress=lambda p: at.__setitem__(0, p.iteration),
            stop=Agreement(share, wish),
        )
    return at[0]
