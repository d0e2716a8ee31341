"""Claims on a folder that machines share: one owner, dead ones expire, suspended ones notice.

Machines are played by names and a clock; what a suspended process does is played with SIGSTOP.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from small_runs import SMALL, begin, checkpointed, wait_for

from experiments import ownership
from experiments.errors import UserError
from experiments.ownership import EXPIRY, Claims


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def on(folder: Path, host: str, clock=time.monotonic) -> Claims:
    """The folder as seen by a process of the machine `host`."""
    seen = Claims(folder, clock)
    seen.host = seen.machine = host
    return seen


def kill(process: Claims) -> None:
    """What the kernel does when a process dies: its lock and its heartbeat go, its file stays."""
    if process.held is not None:
        assert process._stop is not None
        process._stop.set()
        os.close(process._file)
        process.held, process._file, process._stop = None, -1, None


def test_one_owner_until_it_lets_go(tmp_path):
    a, b, far = on(tmp_path, "a"), on(tmp_path, "a"), on(tmp_path, "b")
    assert a.take()
    assert not b.take()
    assert not far.take()
    assert far.owner() == f"process {os.getpid()} on a"
    a.release()
    assert far.take()
    assert not a.take()
    far.release()


def test_a_killed_owner_is_free_at_once_on_its_machine_and_later_elsewhere(tmp_path):
    clock = Clock()
    dead, near, far = on(tmp_path, "a", clock), on(tmp_path, "a", clock), on(tmp_path, "b", clock)
    assert dead.take()
    kill(dead)
    assert not far.take()
    clock.now += EXPIRY - 1
    assert not far.take()
    clock.now += 1
    assert far.take(), "the heartbeat stayed away for a minute"
    far.release()
    assert dead.take()
    kill(dead)
    assert near.take(), "the kernel's lock is gone"
    near.release()


def test_an_observers_clock_starts_when_it_first_looks(tmp_path):
    """A wrong time of day, or an owner that started long ago, expires nothing."""
    owner, clock = on(tmp_path, "a"), Clock()
    assert owner.take()
    os.utime(owner.path(1), (0, 0))  # a file server that is decades behind
    far = on(tmp_path, "b", clock)
    clock.now += 10 * EXPIRY
    assert not far.take()
    clock.now += EXPIRY - 1
    owner.beat()
    assert not far.take()
    clock.now += EXPIRY - 1
    assert not far.take(), "it was renewed a moment less than a minute ago"
    owner.release()


def test_an_owner_that_lost_its_claim_is_told_before_it_writes(tmp_path):
    clock = Clock()
    slept, far = on(tmp_path, "a", clock), on(tmp_path, "b", clock)
    assert slept.take()
    slept.check()
    far.take()
    clock.now += EXPIRY
    assert far.take()
    with pytest.raises(UserError, match=r"taken over by process \d+ on b.*same command"):
        slept.check()
    slept.release()
    assert not on(tmp_path, "c").take(), "the loser's release is not the owner's"
    far.check()
    far.release()


def test_a_file_system_without_locks_is_left_to_the_heartbeat(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(ownership.fcntl, "flock", unsupported)
    clock = Clock()
    owner, near = on(tmp_path, "a", clock), on(tmp_path, "a", clock)
    assert owner.take()
    assert not near.take()
    clock.now += EXPIRY
    assert near.take()
    for one in (owner, near):
        one.release()


def test_a_claim_that_was_never_written_out_expires(tmp_path):
    """A power cut may leave an empty file, on any machine."""
    (tmp_path / "claim.1").touch()
    clock = Clock()
    near = on(tmp_path, "a", clock)
    assert near.owner() == "another process"
    assert not near.take()
    clock.now += EXPIRY
    assert near.take()
    near.release()


def test_the_heartbeat_comes_from_a_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "HEARTBEAT", 0.05)
    owner = on(tmp_path, "a")
    assert owner.take()
    before = owner.path(1).stat().st_mtime_ns
    wait_for(lambda: owner.path(1).stat().st_mtime_ns > before)  # during a long test of the network, say
    owner.release()


class Machines(RuleBasedStateMachine):
    """Two machines, one with two processes, which start, stop, die, are suspended and wake in any order."""

    @initialize()
    def folder(self) -> None:
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.processes = [on(Path(self.place.name), host, self.clock) for host in "aab"]
        self.suspended: set[int] = set()
        self.writes: list[tuple[int, int]] = []

    who = st.integers(0, 2)

    @rule(who=who)
    def take(self, who: int) -> None:
        process = self.processes[who]
        if process.held is None and who not in self.suspended:
            owners = [p for p in self.processes if p.held is not None and p.held == p.newest()]
            took = process.take()
            if took:
                process._stop.set()  # its heartbeat is `time_passes` below
                alive = [p for i, p in enumerate(self.processes) if p in owners and i not in self.suspended]
                assert not alive, "taken from an owner that lives"
                same = [p for p in owners if p.machine == process.machine]
                assert not same, "taken from a suspended owner of the same machine, which will go on"

    @rule(who=who)
    def release(self, who: int) -> None:
        if self.processes[who].held is not None and who not in self.suspended:
            self.processes[who].release()

    @rule(who=who)
    def killed(self, who: int) -> None:
        self.suspended.discard(who)
        kill(self.processes[who])

    @rule(who=who)
    def suspend(self, who: int) -> None:
        self.suspended.add(who)

    @rule(who=who)
    def wake(self, who: int) -> None:
        self.suspended.discard(who)

    @rule(seconds=st.sampled_from([1.0, 15.0, 59.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """Heartbeats come every 15 seconds of it; they are seen by whoever looks."""
        while seconds > 0:
            step = min(seconds, ownership.HEARTBEAT)
            self.clock.now += step
            seconds -= step
            for i, process in enumerate(self.processes):
                if process.held is not None and i not in self.suspended:
                    beat = int(self.clock.now * 1e9)
                    os.utime(process.path(process.held), ns=(beat, beat))

    @rule(who=who)
    def sleeps_through_its_expiry(self, who: int) -> None:
        self.suspend(who)
        for _ in range(2):
            for other in range(3):
                self.take(other)
            self.time_passes(61.0)
        self.wake(who)

    @rule(who=who)
    def write(self, who: int) -> None:
        process = self.processes[who]
        if process.held is None or who in self.suspended:
            return
        try:
            process.check()
        except UserError:
            process.release()
            return
        assert process.held == process.newest(), "written by one who is not the owner"
        self.writes.append((process.held, who))

    @invariant()
    def at_most_one_may_write(self) -> None:
        if hasattr(self, "processes"):
            assert sum(p.held is not None and not p.lost() for p in self.processes) <= 1
            assert self.writes == sorted(self.writes, key=lambda w: w[0]), "an earlier owner wrote after a later one"

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            kill(process)
        if hasattr(self, "place"):
            self.place.cleanup()


Machines.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestMachines = Machines.TestCase

ELSEWHERE = """
import runpy, sys
from experiments import ownership
host = sys.argv.pop(1)
ownership.EXPIRY, ownership.HEARTBEAT = 1.5, 0.3
ownership.machine = ownership.socket.gethostname = lambda: host
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def start(host: str, results: Path) -> subprocess.Popen:
    # a checkpoint soon: 3,000 iterations may be over before the usual 20 seconds are
    words = ["figure=fig09", *SMALL, "curve=wd_1e-3", "iterations=3000", "test_interval=50", f"results={results}"]
    words.append("checkpoint_seconds=2")
    return begin([sys.executable, "-c", ELSEWHERE, host, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_suspended_owner_wakes_up_and_leaves_the_new_owners_files_alone(tmp_path):
    """Two processes with the names of two machines, on one folder."""
    slept = start("a", tmp_path)
    wait_for(lambda: checkpointed(tmp_path))
    slept.send_signal(signal.SIGSTOP)
    other = start("b", tmp_path)
    wait_for(lambda: any((tmp_path / "runs").glob("*/claim.2")))
    slept.send_signal(signal.SIGCONT)
    said, _ = slept.communicate(timeout=120)
    assert slept.returncode == 2, said
    assert f"taken over by process {other.pid} on b" in said
    assert "Traceback" not in said
    its_end, _ = other.communicate(timeout=120)
    assert other.returncode == 0, its_end
    assert "goes on from iteration " in its_end
    assert "is being trained by process" in its_end
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "summary.json").is_file()
    assert not list(run.glob(".*")), "half-written files were left"
