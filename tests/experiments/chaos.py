"""Kill a figure's processes at random moments and see whether it still ends as if nothing had happened.

    python tests/experiments/chaos.py [--kills 50] [--seed 0] [--together 2] [--in FOLDER] [NAME=VALUE ...]

So many processes train figure 9 together, in a small smoke version, on one store. At random moments a random one of
them (or of their children) gets SIGKILL and is started again. Each time the figure is finished, its summary, its runs'
metrics and the names of its files must be those of an undisturbed run, byte by byte; then it begins anew, until all the
kills are done.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from small_runs import FIGURE_9  # noqa: E402

SMALL = [*FIGURE_9, "iterations=1000", "test_interval=50"]


def start(results: Path, words: Sequence[str]) -> subprocess.Popen:
    with open(results.parent / "log", "a") as log:
        command = [sys.executable, "-m", "reproduce", *SMALL, *words]
        return subprocess.Popen(
            [*command, f"results={results}", f"figures={results / 'figures'}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def family(pid: int) -> list[int]:
    """A process and its descendants, from Linux's /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def end_of(results: Path) -> dict[str, bytes]:
    """What a finished figure leaves: contents where they are a function of the settings, names elsewhere."""
    files: dict[str, bytes] = {}
    for path in sorted(p for p in results.rglob("*") if p.is_file() and not p.name.endswith(".lock")):
        inside = str(path.relative_to(results))
        exact = inside.startswith("summary/") or path.name in ("metrics.csv", "settings.yaml")
        if inside.startswith("runs/") and path.name.startswith("claim."):
            continue  # one for each start
        if not inside.startswith("runs/") and path.name.startswith("."):
            continue  # half-written ones beside a summary or figure, cleared away an hour later
        files[inside] = path.read_bytes() if exact else b""
    return files


def chaos(
    folder: Path, kills: int, seed: int, together: int, words: Sequence[str], say: Callable[[str], None] = print
) -> int:
    """Carry out so many kills. Returns how often the figure was finished; AssertionError where it ended otherwise."""
    moments = random.Random(seed)
    undisturbed = folder / "undisturbed" / "results"
    undisturbed.mkdir(parents=True)
    began = time.monotonic()
    assert start(undisturbed, words).wait() == 0, (undisturbed.parent / "log").read_text()
    span, wanted = time.monotonic() - began, end_of(undisturbed)
    assert any(name.startswith("summary/") for name in wanted)
    say(f"undisturbed: {span:.1f} s, {len(wanted)} files")
    done, rounds = 0, 0
    while done < kills:
        results = folder / f"round-{rounds}" / "results"
        results.mkdir(parents=True)
        processes: list[subprocess.Popen] = []
        here = 0
        while not any(p.poll() == 0 for p in processes):
            for p in processes:
                assert p.poll() in (None, -signal.SIGKILL), (results.parent / "log").read_text()
            processes = [p for p in processes if p.poll() is None]
            processes += [start(results, words) for _ in range(together - len(processes))]
            time.sleep(moments.uniform(0, span))
            alive = [p for p in processes if p.poll() is None]
            if alive and done < kills and not any(p.poll() == 0 for p in processes):
                victim = moments.choice(family(moments.choice(alive).pid))
                os.kill(victim, signal.SIGKILL)
                done, here = done + 1, here + 1
                time.sleep(0.1)
        for p in processes:
            assert p.wait() in (0, -signal.SIGKILL), (results.parent / "log").read_text()
        found = end_of(results)
        assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []
        rounds += 1
        say(f"round {rounds}: {here} kills, {done} of {kills}: the same bytes ({time.monotonic() - began:.0f} s)")
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=2)
    parser.add_argument("--in", dest="folder", type=Path, help="an empty folder; else a temporary one")
    options, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        chaos(options.folder or Path(temporary), options.kills, options.seed, options.together, words)


if __name__ == "__main__":
    main()
