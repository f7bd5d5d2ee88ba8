"""The part of the page that writes and publishes the edited rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gradio as gr

from hf_midrange.explorer.exporting import Exports
from hf_midrange.reporting.rendering import render


def export_panel(exports: Exports, marks: gr.State) -> None:
    """Add the buttons and what they say."""
    in_space = bool(os.environ.get("SPACE_ID"))
    options: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "export", "concurrency_limit": 1}
    status = gr.HTML(elem_classes="hm", elem_id="status")
    if not in_space:  # the disk of a Space is nobody's
        write = gr.Button("Write the edited data set", variant="primary", elem_id="export")
        write.click(lambda given: _say(lambda: exports.write(given)), marks, status, **options)
    if not exports.publishable or (in_space and "OAUTH_CLIENT_ID" not in os.environ):
        return  # rows that were never curated, or a Space in which nobody can sign in
    with gr.Accordion("Publish", open=in_space):
        if in_space:
            gr.LoginButton("Sign in to publish with your own account")
        repo = gr.Textbox(label="Private data set on the Hub", placeholder="me/my-images-mid", elem_id="repo")
        push = gr.Button("Publish privately", elem_id="publish")
    # In a Space whoever opens the page could write with the token of the Space: there, each one's own is wanted.
    push.click(_with_login(exports) if in_space else _with_stored(exports), [marks, repo], status, **options)


def _with_stored(exports: Exports) -> Callable:
    def publish(given: dict[int, str], repo_id: str) -> str:
        return _say(lambda: exports.publish(given, repo_id, None))

    return publish


def _with_login(exports: Exports) -> Callable:
    def publish(given: dict[int, str], repo_id: str, token: gr.OAuthToken | None) -> str:
        if token is None:
            return _told("Sign in first: rows are published with your own account.", bad=True)
        return _say(lambda: exports.publish(given, repo_id, token.token))

    # Gradio finds out from the annotation that it must fill in the token; annotations are text in this module.
    publish.__annotations__["token"] = gr.OAuthToken | None
    return publish


def _say(act: Callable[[], str]) -> str:
    """Return what `act` says, or why it could not."""
    try:
        return _told(act())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _told(str(error.args[0] if isinstance(error, KeyError) else error), bad=True)


def _told(text: str, bad: bool = False) -> str:
    return render("status", "hf_midrange.explorer", text=text, bad=bad)
