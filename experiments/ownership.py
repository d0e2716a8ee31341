"""Who may train a run: a chain of numbered claims in its folder, which several machines may share.

Not to be confused with the report's claims (`reproduce.claims`).

    claim.1, claim.2, ...   the newest says who is training the run, or that its owner let go of it

A claim is made by creating the next number, which the file system (NFS included) lets exactly one process do; no
number is ever given twice, so the owner before finds a newer claim than its own as soon as it looks. A claim stands

  on the machine that made it   while its process or one that it forked holds the kernel's lock: free within seconds;
  seen from another machine     while its heartbeat goes on, the file's time of change, renewed by a thread: when the
                                observer's own clock has seen none for EXPIRY seconds, it has expired.

filelock's SoftFileLease would have done, but for NFS: it takes over an expired lease by an atomic exchange of two
names, which NFS refuses, so there a dead owner's lease would last for ever.
"""

import contextlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Any

from experiments.errors import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: claims expire by their heartbeat there, on the same machine too
    fcntl = None

HEARTBEAT, EXPIRY = 15.0, 60.0
"""Seconds between two signs of life; seconds without one after which another machine takes over."""

RELEASED = b"released\n"
NAME = re.compile(r"claim\.([1-9][0-9]*)")


def machine() -> str:
    """What two processes share if and only if one kernel runs both, whatever their machines are called."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"


class Claims:
    """The claims on one folder as one process sees them; it holds at most one itself.

    An observer keeps its object while it waits: the object remembers when, by clock(), the heartbeat was last seen.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic):
        self.folder, self.clock = folder, clock
        self.host, self.machine = socket.gethostname(), machine()
        self.held: int | None = None
        self._file = -1
        self._seen: tuple[int, int] = (0, 0)
        self._since = 0.0
        self._stop: Event | None = None

    def path(self, number: int) -> Path:
        return self.folder / f"claim.{number}"

    def newest(self) -> int:
        """The highest number taken so far, 0 where there is none."""
        return max((int(m[1]) for name in os.listdir(self.folder) if (m := NAME.fullmatch(name))), default=0)

    def take(self) -> bool:
        """Become the owner, unless another one lives. Raises OSError where the folder cannot be written."""
        assert self.held is None, "a claim is already held"
        number = self.newest()
        if number and self._stands(number):
            return False
        try:
            file = os.open(self.path(number + 1), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False  # another one was quicker
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks: the heartbeat alone decides
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            record = {"host": self.host, "machine": self.machine, "pid": os.getpid(), "since": time.time()}
            os.write(file, json.dumps(record).encode() + b"\n")
        except BaseException:
            os.close(file)
            self.path(number + 1).unlink()
            raise
        self._file, self.held = file, number + 1
        if self.newest() != self.held:  # `number` was an old listing: others have come and gone since
            self.release()
            return False
        self._stop = Event()
        Thread(target=self._beat_on, args=(self._stop,), name=f"heartbeat-{self.held}", daemon=True).start()
        return True

    def release(self) -> None:
        """Let go of the claim, so that anyone may take the next one at once."""
        if self._stop is not None:
            self._stop.set()
        with contextlib.suppress(OSError):  # a full disk: the kernel's lock goes all the same
            os.write(self._file, RELEASED)
        os.close(self._file)
        self.held, self._file, self._stop = None, -1, None

    def lost(self) -> bool:
        """Whether another process has taken over what this one holds, or the claim was deleted with its folder."""
        return self.held is not None and (self.path(self.held + 1).exists() or self._deleted(self.held))

    def _deleted(self, number: int) -> bool:
        """Whether the file is gone, or another one by now: who begins in an empty folder makes claim.1 again."""
        try:
            return not os.path.samestat(os.stat(self.path(number)), os.fstat(self._file))
        except FileNotFoundError:
            return True

    def check(self) -> None:
        """Raise UserError where the claim held was lost. To be called before anything is written over."""
        if not self.lost():
            return
        if self.held is not None and self._deleted(self.held):
            raise UserError(
                f"{self.folder}, or this process's claim in it, was deleted while its run was trained here. This "
                "command stops without writing to it; the same command goes on with what is left."
            )
        raise UserError(
            f"{self.folder} was taken over by {self.owner()}, because this process gave no sign of life for "
            f"{EXPIRY:.0f} seconds (was it suspended, or cut off from the folder?). It stops without writing "
            f"over the new owner's files; the same command goes on with what is left."
        )

    def beat(self) -> None:
        """One sign of life."""
        if self.held is not None:
            with contextlib.suppress(OSError):  # a file server that is away for a moment
                if not self._deleted(self.held):
                    os.utime(self.path(self.held))

    def _beat_on(self, stop: Event) -> None:
        while not stop.wait(HEARTBEAT):
            self.beat()

    def owner(self) -> str:
        """Who holds the newest claim, in words."""
        try:
            record = self._record(self.path(self.newest()).read_bytes())
            return f"process {record['pid']} on {record['host']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    @staticmethod
    def _record(content: bytes) -> dict[str, Any]:
        """What `take` wrote. Raises ValueError for a claim that is still being written."""
        record = json.loads(content.removesuffix(RELEASED))
        if not isinstance(record, dict):
            raise ValueError("not a record")
        return record

    def _stands(self, number: int) -> bool:
        """Whether the claim's owner lives, as far as can be told from here."""
        try:
            file = os.open(self.path(number), os.O_RDWR)  # opened anew each time: NFS then asks the server
        except FileNotFoundError:
            return False  # its owner could not write it and took it back
        try:
            content = os.read(file, 4096)
            if content.endswith(RELEASED):
                return False
            with contextlib.suppress(ValueError):
                if self._record(content).get("machine") == self.machine and fcntl is not None:
                    try:
                        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                        return False
                    except BlockingIOError:
                        return True
                    except OSError:
                        pass  # a file system without locks
            seen = (number, os.fstat(file).st_mtime_ns)
        finally:
            os.close(file)
        if seen != self._seen:
            self._seen, self._since = seen, self.clock()
        return self.clock() - self._since < EXPIRY
