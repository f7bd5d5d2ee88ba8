"""What stands before the explorer's page: it takes orders only with its token and under its own name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any


OWN_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine as it sees itself. A page elsewhere that had its own name lead here would send that one."""

_OPEN = frozenset({"/gradio_api/startup-events", "/manifest.json", "/favicon.ico"})
"""What Gradio asks itself when it starts, and browsers ask without the token: they tell nothing of the rows."""

_UPLOADS = "/gradio_api/upload"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """A layer around an ASGI app that lets through what comes with the token, as the first part of the path.

    In the path it works in every browser and in a notebook's frame, where cookies may not be kept. Files are taken
    from nobody: the page has no use for them.
    """

    def __init__(self, app: App, token: str = "", hosts: frozenset[str] = OWN_HOSTS) -> None:
        """Stand before `app`; without a token whoever finds the page may use it, under any name, as in a Space."""
        self._app, self._prefix, self._hosts = app, f"/{token}" if token else "", hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if self._prefix and _host(scope) not in self._hosts:
            await _refuse(scope, send, 403, "This page answers on this machine alone.")
        elif self._prefix and path not in _OPEN and not f"{path}/".startswith(f"{self._prefix}/"):
            await _refuse(scope, send, 401, "Open the address that explore printed: it ends in a token.")
        elif path.removeprefix(self._prefix).startswith(_UPLOADS):
            await _refuse(scope, send, 403, "This page takes no files.")
        else:
            inside = "" if path in _OPEN else self._prefix
            await self._app({**scope, "root_path": inside or scope.get("root_path", "")}, receive, send)


def _host(scope: Scope) -> str:
    """Return the name that the request was sent to, without the port; empty where it says none or several."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return ""
    host = named[0].decode("latin-1").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def _refuse(scope: Scope, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{words}\n".encode()})
