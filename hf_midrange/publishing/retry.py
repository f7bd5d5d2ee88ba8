"""Asking the Hub: which failures pass, how often to try again, and messages that hold no token."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled


Answer = TypeVar("Answer")

_PASSING = (408, 409, 412, 425, 429)
"""Overload, and commits that came between (409, 412)."""


class PublishError(ValueError):
    """Why something cannot be published, and what would work."""


@dataclass(frozen=True)
class Retries:
    """How often to try, and the seconds before the second try; each further wait is twice as long."""

    attempts: int = 6
    pause: float = 0.5

    def waits(self) -> list[float]:
        """Return the seconds to wait after each failed try but the last, with up to a fifth added at random."""
        return [self.pause * 2**k * random.uniform(1, 1.2) for k in range(self.attempts - 1)]


def retried(ask: Callable[[], Answer], what: str, token: str, retries: Retries) -> Answer:
    """Return what `ask` returns, asking again after failures that pass: conflicts, overload, 5xx, lost connections.

    Args:
        ask: talks to the Hub; called anew for each try, so it must read again whatever may have changed.
        what: the doing, for messages, such as "commit to me/x".
        token: never shown.
        retries: how often and how long to wait.

    Raises:
        PublishError: after the last try, or at once for what will not pass.
    """
    for wait in [*retries.waits(), None]:
        try:
            return ask()
        except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:
            if wait is None or not passes(error):
                # The original is not chained: its text and its request may hold the token.
                raise _explained(error, what, token, retries if wait is None else None) from None
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def passes(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = _status_of(error)
    return status is None or status >= 500 or status in _PASSING


def redacted(text: str, token: str) -> str:
    """Return `text` without the token."""
    return text.replace(token, "<token>") if token else text


def _status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error or its causes, or None where no answer came."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None


def _explained(error: BaseException, what: str, token: str, tried: Retries | None) -> PublishError:
    status = _status_of(error)
    says = " ".join(redacted(str(error), token).split())
    if isinstance(error, OfflineModeIsEnabled):
        return PublishError(f"cannot {what}: HF_HUB_OFFLINE is set; unset it to publish")
    if status in (401, 403):
        return PublishError(
            f"cannot {what}: the Hub answers {status}: {says}; a token with write access to this place is needed "
            "(`hf auth login`, or the environment variable HF_TOKEN)"
        )
    often = f" after {tried.attempts} tries" if tried and tried.attempts > 1 else ""
    return PublishError(f"cannot {what}{often}: {says}. Nothing was changed unless the commit is listed on the Hub")
