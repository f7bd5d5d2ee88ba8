"""The repository to publish to: what is there already, whether it may be replaced, and the one commit on top of it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_midrange.publishing.retry import PublishError, Retries, retried


CARD = "README.md"
HOUSEKEEPING = {".gitattributes", ".gitignore", CARD, "LICENSE", "LICENSE.txt"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


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


@dataclass(frozen=True)
class Repository:
    """Where to publish, with which token, and whether as a proposal."""

    repo_id: str
    repo_type: Literal["model", "dataset"]
    private: bool
    revision: str | None
    token: str = field(repr=False)
    create_pr: bool = False
    """Open a pull request, and leave the branch as it is."""
    retries: Retries = Retries()

    @property
    def api(self) -> HfApi:
        """The client, with this token."""
        return HfApi(token=self.token)

    def ask(self, what: str, question: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the client answers
        """Return what `question` returns, asked again after failures that pass."""
        return retried(question, f"{what} {self.repo_id}", self.token, self.retries)

    def refuse(self, refuse_other: Callable[[State], None]) -> None:
        """Look at what is there, before any work is done for it.

        Args:
            refuse_other: raises `PublishError` if what is there must not be replaced.

        Raises:
            PublishError: if so, or if the repository is public although `private` was asked for.
        """
        state = self.ask("look at", self._state)
        if state is not None:
            self.ask("read", lambda: refuse_other(state))
        elif self.create_pr:
            raise PublishError(f"there is no {self.repo_type} {self.repo_id} to open a pull request on; check its id")

    def commit(
        self, folder: Path, *, message: str, is_stale: Callable[[str], bool], refuse_other: Callable[[State], None]
    ) -> CommitInfo:
        """Upload a folder and make it one commit on top of the newest one: everything of it, or nothing.

        A pull request has the card as its text, and leaves the card of the repository as it is.

        If another commit comes between, the repository is looked at again, and the commit is made on top of that one.
        Readers see the old revision or the new one. The Hub knows contents by their hash: what was uploaded before a
        failure is not sent again.

        Args:
            folder: what the repository is to hold.
            message: of the commit.
            is_stale: whether a file of an earlier publication, if not in `folder`, is deleted in the same commit.
            refuse_other: raises `PublishError` if what is there must not be replaced.

        Raises:
            PublishError: if the Hub refuses, or does not answer in time.
        """
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if not self.create_pr:
            self.ask("make", self._make)

        def attempt() -> CommitInfo:
            state = self._state()
            if state is None:
                raise ConnectionError("the repository that was just made is not there yet")
            refuse_other(state)
            card = {CARD} if self.create_pr and CARD in state.files else set()
            # Anew for each try: the client keeps in them which files were unchanged, which another commit may change.
            added = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=file)
                for name, file in files.items()
                if name not in card
            ]
            gone = [CommitOperationDelete(name) for name in state.files if is_stale(name) and name not in files]
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

        # A pull request whose answer was lost may be open: it is not asked for twice.
        retries = Retries(attempts=1) if self.create_pr else self.retries
        return retried(attempt, f"commit to {self.repo_id}", self.token, retries)

    def read_json(self, path: str, state: State) -> dict[str, Any] | None:
        """Return the mapping that a JSON file holds at a commit, None if it is not there or holds something else."""
        if path not in state.files:
            return None
        with tempfile.TemporaryDirectory() as folder:
            where: dict[str, Any] = {"repo_type": self.repo_type, "revision": state.sha, "local_dir": folder}
            text = Path(self.api.hf_hub_download(self.repo_id, path, **where)).read_text(encoding="utf-8")
        try:
            found = json.loads(text)
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
    create_pr: bool = False,
) -> Repository:
    """Return where to publish.

    Args:
        repo_id: `name` or `namespace/name`; a bare name is in the namespace of the token's owner.
        repo_type: kind of repository.
        private: who may see a new repository; an existing public one is refused.
        token: by default what `hf auth login` stored or HF_TOKEN holds.
        revision: branch to commit to, made if need be.
        create_pr: open a pull request instead, on the main branch of a repository that exists.

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
    named = Repository(repo_id, repo_type, private, revision, secret, create_pr)
    if "/" in repo_id:
        return named
    owner = named.ask("ask the Hub for the owner of", lambda: named.api.whoami()["name"])
    return replace(named, repo_id=f"{owner}/{repo_id}")


def is_hub_id(text: str) -> bool:
    """Return whether a text has the form of a Hub id.

    >>> is_hub_id("me/waterbirds"), is_hub_id("https://x.y/z")
    (True, False)
    """
    return bool(_HUB_ID.fullmatch(text))


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
