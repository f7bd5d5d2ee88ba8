"""The repository to publish to: what is there, whether it may be replaced, and the one commit on top of it."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_midrange.io.folders import scratch_folder


Answer = TypeVar("Answer")

_PASSING = (408, 409, 412, 425, 429)
"""Overload, and commits that came between (409, 412)."""
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds after each failed try but the last; up to a fifth is added at random."""
CARD = "README.md"
HOUSEKEEPING = {".gitattributes", ".gitignore", CARD, "LICENSE", "LICENSE.txt"}


class PublishError(ValueError):
    """Why something cannot be published, and what would work."""


@dataclass(frozen=True)
class State:
    """A repository at one commit."""

    sha: str
    files: tuple[str, ...]
    card: Mapping[str, Any]
    """Metadata of its card."""

    @property
    def content(self) -> list[str]:
        """The files that say what kind of repository it is."""
        return [name for name in self.files if name not in HOUSEKEEPING]


class CommitOptions(TypedDict, total=False):
    """How and where something is committed: what every `publish_...` takes beside what it publishes.

    Attributes:
        private: whether a new repository is private, as it is by default. An existing public one is then refused.
        token: by default the one stored by `hf auth login` or in HF_TOKEN; needs write access.
        revision: branch to publish to, made if need be.
        commit_message: title of the commit or pull request.
        create_pr: open a pull request on a repository that exists, with the card as its text, and commit nothing to
            its main branch; the commit that comes back has its address as `pr_url`.
    """

    private: bool
    token: str | None
    revision: str | None
    commit_message: str | None
    create_pr: bool


@dataclass(frozen=True)
class Repository:
    """Where to publish, with which token, and whether as a proposal: see `CommitOptions`."""

    repo_id: str
    repo_type: Literal["model", "dataset"]
    private: bool
    revision: str | None
    token: str = field(repr=False)
    commit_message: str | None = None
    create_pr: bool = False

    @property
    def api(self) -> HfApi:
        """The client, with this token."""
        return HfApi(token=self.token)

    def ask(self, what: str, question: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the client answers
        """Return what `question` returns, asked again after failures that pass."""
        return retried(question, f"{what} {self.repo_id}", self.token)

    def refuse_different(self, state: State, file: str, what: str, facts: Mapping[str, Any]) -> None:
        """Refuse to replace anything but `what`, whose JSON `file` says the same `facts`; nothing may be there.

        Raises:
            PublishError: if something else is there.
        """
        if not state.content:
            return
        there = self._read_json(file, state)
        if there is None:
            raise PublishError(
                f"{self.repo_id} exists and does not hold {what} but {', '.join(state.content[:4])}, ...; choose "
                "another id"
            )
        for key, value in facts.items():
            if there.get(key) != value:
                raise PublishError(
                    f"{self.repo_id} exists and holds {what}, but another one: its {key} is {there.get(key)}, here it "
                    f"is {value}; choose another id"
                )

    def commit(
        self, write: Callable[[Path], Any], *, title: str, stale: str, refuse_other: Callable[[State], None]
    ) -> CommitInfo:
        """Write files, upload them and make them one commit on top of the newest one: everything, or nothing.

        What is there is looked at before any file is written. If another commit comes between, it is looked at again,
        and the commit is made on top of that one. Readers see the old revision or the new one. The Hub knows contents
        by their hash: what was uploaded before a failure is not sent again. A pull request has the card as its text,
        and leaves the card that is there.

        Args:
            write: writes what the repository is to hold into the folder that it is given.
            title: of the commit, where the caller gave no `commit_message`.
            stale: regular expression of files of an earlier publication, which go unless they are written anew.
            refuse_other: raises `PublishError` if what is there must not be replaced.

        Raises:
            PublishError: if it must not, if the repository is public although `private` was asked for, or if the Hub
                refuses, or does not answer in time.
        """

        def looked_at() -> State | None:
            state = self._state()
            if state is not None:
                refuse_other(state)
            return state

        if self.ask("look at", looked_at) is None and self.create_pr:
            raise PublishError(f"there is no {self.repo_type} {self.repo_id} to open a pull request on; check its id")
        with scratch_folder() as folder:
            write(folder)
            files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            if not self.create_pr:
                self.ask("make", self._make)

            def attempt() -> CommitInfo:
                state = looked_at()
                if state is None:
                    raise ConnectionError("the repository that was just made is not there yet")
                return self._committed(state, files, self.commit_message or title, stale)

            # A pull request whose answer was lost may be open: it is not asked for twice.
            return retried(attempt, f"commit to {self.repo_id}", self.token, () if self.create_pr else WAITS)

    def _committed(self, state: State, files: Mapping[str, Path], message: str, stale: str) -> CommitInfo:
        keeps_card = self.create_pr and CARD in state.files
        # Anew for each try: the client keeps in them which files were unchanged, which another commit may change.
        added = [CommitOperationAdd(path, file) for path, file in files.items() if not (keeps_card and path == CARD)]
        gone = [CommitOperationDelete(path) for path in state.files if re.fullmatch(stale, path) and path not in files]
        return self.api.create_commit(
            self.repo_id,
            [*added, *gone],
            commit_message=message,
            commit_description=files[CARD].read_text(encoding="utf-8") if self.create_pr else None,
            repo_type=self.repo_type,
            revision=self.revision,
            create_pr=self.create_pr,
            parent_commit=state.sha,
        )

    def _read_json(self, path: str, state: State) -> dict[str, Any] | None:
        """Return the mapping that a JSON file holds at a commit, None if it is not there or holds something else."""
        if path not in state.files:
            return None
        file = self.api.hf_hub_download(self.repo_id, path, repo_type=self.repo_type, revision=state.sha)
        try:
            found = json.loads(Path(file).read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            return None
        return found if isinstance(found, dict) else None

    def _state(self) -> State | None:
        """Return the repository at its newest commit, None if there is no repository or no such branch."""
        api = self.api
        try:
            info: Any = api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision)
        except RevisionNotFoundError:
            self._refuse_public(api.repo_info(self.repo_id, repo_type=self.repo_type))
            return None
        except RepositoryNotFoundError:
            return None
        self._refuse_public(info)
        card = info.card_data.to_dict() if info.card_data is not None else {}
        return State(str(info.sha), tuple(file.rfilename for file in info.siblings or ()), card)

    def _refuse_public(self, info: Any) -> None:  # noqa: ANN401 - ModelInfo or DatasetInfo of the client
        if self.private and not info.private:
            raise PublishError(
                f"{self.repo_id} exists and is public, but `private` is True; pass private=False (--public) to "
                "publish for everyone to see, make the repository private in its settings, or choose another id"
            )

    def _make(self) -> None:
        """Make the repository and the branch where they are missing; an existing one keeps its visibility."""
        api = self.api
        api.create_repo(self.repo_id, repo_type=self.repo_type, private=self.private, exist_ok=True)
        if self.revision is not None:
            api.create_branch(self.repo_id, branch=self.revision, repo_type=self.repo_type, exist_ok=True)


def open_repository(
    repo_id: str,
    repo_type: Literal["model", "dataset"],
    *,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> Repository:
    """Return where to publish; a bare name is in the namespace of the token's owner. Options are `CommitOptions`.

    Raises:
        PublishError: an invalid id, no token, or a pull request on another branch.
    """
    if create_pr and revision not in (None, "main"):
        raise PublishError(f"a pull request is made on the main branch; leave out revision={revision!r} or create_pr")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is not a repository id, such as 'me/waterbirds-mid': {error}") from None
    secret = _usable(token if token is not None else get_token())
    named = Repository(repo_id, repo_type, private, revision, secret, commit_message, create_pr)
    if "/" in repo_id:
        return named
    owner = named.ask("ask the Hub for the owner of", lambda: named.api.whoami()["name"])
    return replace(named, repo_id=f"{owner}/{repo_id}")


def is_hub_id(text: str) -> bool:
    """Return whether a text has the form of a Hub id.

    >>> is_hub_id("me/waterbirds"), is_hub_id("https://x.y/z")
    (True, False)
    """
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def refuse_non_id(name: str, value: str | None) -> None:
    """Raise `PublishError` if the argument `name` is neither None nor the form of a Hub id."""
    if value is not None and not is_hub_id(value):
        raise PublishError(f"`{name}` must be a Hub id, such as 'me/waterbirds', but is {value!r}")


def _usable(token: str | None) -> str:
    if not token:
        raise PublishError(
            "there is no token; `hf auth login` stores one, or set the environment variable HF_TOKEN to a token "
            "with write access"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise PublishError("the token holds spaces, line breaks or characters that no token has; copy it again")
    return token


def retried(ask: Callable[[], Answer], what: str, token: str, waits: Sequence[float] = WAITS) -> Answer:
    """Return what `ask` returns, asking again after failures that pass: conflicts, overload, 5xx, lost connections.

    Args:
        ask: talks to the Hub; called anew for each try, so it must read again whatever may have changed.
        what: the doing, for messages, such as "commit to me/x".
        token: never shown.
        waits: seconds after each failed try but the last.

    Raises:
        PublishError: after the last try, or at once for what will not pass.
    """
    for wait in [*waits, None]:
        try:
            return ask()
        except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:
            if wait is None or not passes(error):
                often = f" after {len(waits) + 1} tries" if wait is None and waits else ""
                # The original is not chained: its text and its request may hold the token.
                raise _explained(error, what + often, token) from None
            time.sleep(wait * random.uniform(1, 1.2))
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


def _explained(error: BaseException, what: str, token: str) -> PublishError:
    status = _status_of(error)
    says = " ".join(redacted(str(error), token).split())
    if isinstance(error, OfflineModeIsEnabled):
        return PublishError(f"cannot {what}: HF_HUB_OFFLINE is set; unset it to publish")
    if status in (401, 403):
        return PublishError(
            f"cannot {what}: the Hub answers {status}: {says}; a token with write access to this place is needed "
            "(`hf auth login`, or the environment variable HF_TOKEN)"
        )
    return PublishError(f"cannot {what}: {says}. Nothing was changed unless the commit is listed on the Hub")
