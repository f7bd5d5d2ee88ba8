"""Ctrl-C ends a command within two seconds, also where it is deep inside a library."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


CODE = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C ended: 130."""

GRACE = 1.5
"""Seconds that clean-up may take. Everything that is written is whole or absent, so nothing is lost without it."""

MESSAGE = "interrupted: what is finished is kept, and the same command goes on from there"


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C, in whatever guise a library passes it on, into a line on standard error and the exit status 130.

    Python sees a signal only between two of its own instructions, which in a long matrix product may be minutes away.
    A thread of ours is told of it at once, and ends the process where the main thread does not in time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, teller = socket.socketpair()
    teller.setblocking(False)
    seen = threading.Event()
    before = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(told, seen), daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != CODE and not seen.is_set():
            raise
        seen.wait(GRACE)
        atexit._run_exitfuncs()  # while the thread still watches; the interpreter's own end may take seconds
        _end()
    finally:
        signal.set_wakeup_fd(before)
        if not seen.is_set():
            teller.close()  # ends the thread


def _watch(told: socket.socket, seen: threading.Event) -> None:
    while heard := told.recv(1):
        if heard[0] == signal.SIGINT:
            seen.set()
            time.sleep(GRACE)
            _end()
    told.close()


def _end() -> None:
    os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(CODE)
