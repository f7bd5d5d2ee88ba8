"""What can be made to go wrong, and the log of what was asked."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass


@dataclass
class Fault:
    """A failure of the requests that match.

    `kind`: "status" answers `status` and does nothing; "lost" does all and answers `status`; "cut" reads a part of the
    request and closes the connection; "half" sends half of the answer and closes it; "slow" waits `seconds` first.
    """

    method: str
    path: str
    kind: str = "status"
    status: int = 500
    times: int = 1
    skip: int = 0
    seconds: float = 0.0


class Faults:
    """The failures still to come."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def set(self, faults: list[dict]) -> None:
        with self._lock:
            self._waiting = [Fault(**fault) for fault in faults]

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._waiting:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return Fault(**asdict(fault))
        return None


class Log:
    """Every request: method, path, origin, who asked, and the answer's status."""

    def __init__(self) -> None:
        self._rows: list[dict] = []
        self._lock = threading.Lock()

    def add(self, **row: object) -> None:
        with self._lock:
            self._rows.append(row)

    def rows(self) -> list[dict]:
        with self._lock:
            return list(self._rows)
