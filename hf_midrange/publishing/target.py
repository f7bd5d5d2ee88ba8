"""The repository to publish to: whether the token may, what is there already, and whether it may be replaced."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_midrange.publishing.patience import PATIENT, PublishError, Retries, patiently


HOUSEKEEPING = {".gitattributes", ".gitignore", "README.md", "LICENSE", "LICENSE.txt"}


@dataclass(frozen=True)
class State:
    """A repository at one commit."""

    sha: str
    files: tuple[str, ...]

    @property
    def content(self) -> list[str]:
        """The files that say what kind of repository it is."""
        return [name for name in self.files if name not in HOUSEKEEPING]


@dataclass(frozen=True)
class Target:
    """Where to publish, with a token that may write there."""

    repo_id: str
    repo_type: Literal["model", "dataset"]
    private: bool
    revision: str | None
    token: str = field(repr=False)
    retries: Retries = PATIENT

    @property
    def api(self) -> HfApi:
        """The client, with this token."""
        return HfApi(token=self.token)

    def ask(self, what: str, question: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the client answers
        """Return what `question` returns, asked patiently."""
        return patiently(question, f"{what} {self.repo_id}", self.token, self.retries)

    def state(self) -> State | None:
        """Return the repository at its newest commit, None if there is no repository or no such branch.

        Raises:
            PublishError: if it is public although `private` was asked for.
        """
        api = self.api
        try:
            info: Any = api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision)
        except RevisionNotFoundError:
            self._refuse_public(api.repo_info(self.repo_id, repo_type=self.repo_type))
            return None
        except RepositoryNotFoundError:
            return None
        self._refuse_public(info)
        return State(str(info.sha), tuple(file.rfilename for file in info.siblings or ()))

    def _refuse_public(self, info: Any) -> None:  # noqa: ANN401 - ModelInfo or DatasetInfo of the client
        if self.private and not info.private:
            raise PublishError(
                f"{self.repo_id} exists and is public, but `private` is True; pass private=False (--public) to "
                "publish for everyone to see, make the repository private in its settings, or choose another id"
            )

    def make(self) -> None:
        """Make the repository and the branch where they are missing; an existing one keeps its visibility."""
        api = self.api
        api.create_repo(self.repo_id, repo_type=self.repo_type, private=self.private, exist_ok=True)
        if self.revision is not None:
            api.create_branch(self.repo_id, branch=self.revision, repo_type=self.repo_type, exist_ok=True)

    def read(self, path: str, state: State) -> str | None:
        """Return the text of one file at a commit, None if it is not there."""
        if path not in state.files:
            return None
        with tempfile.TemporaryDirectory() as folder:
            where: dict[str, Any] = {"repo_type": self.repo_type, "revision": state.sha, "local_dir": folder}
            return Path(self.api.hf_hub_download(self.repo_id, path, **where)).read_text(encoding="utf-8")

    def read_json(self, path: str, state: State) -> dict[str, Any] | None:
        """Return the mapping that a JSON file holds, None if it is not there or holds something else."""
        text = self.read(path, state)
        try:
            found = None if text is None else json.loads(text)
        except json.JSONDecodeError:
            return None
        return found if isinstance(found, dict) else None


def open_target(
    repo_id: str,
    repo_type: Literal["model", "dataset"],
    *,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    retries: Retries = PATIENT,
) -> Target:
    """Return where to publish, after the checks that need no upload.

    Args:
        repo_id: `name` or `namespace/name`; a bare name is in the namespace of the token's owner.
        repo_type: kind of repository.
        private: who may see a new repository; an existing public one is refused.
        token: by default what `hf auth login` stored or HF_TOKEN holds.
        revision: branch to commit to, made if need be.
        retries: patience with the Hub.

    Raises:
        PublishError: an invalid id, no token, a token that may not write there, an existing public repository.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no repository id, such as 'me/waterbirds-mid': {error}") from None
    secret = _usable(token if token is not None else get_token())
    who = patiently(lambda: HfApi(token=secret).whoami(), "ask the Hub whose token this is", secret, retries)
    full = repo_id if "/" in repo_id else f"{who['name']}/{repo_id}"
    _refuse_readers(who, full)
    target = Target(full, repo_type, private, revision, secret, retries)
    target.ask("look at", target.state)
    return target


def _usable(token: str | None) -> str:
    if not token:
        raise PublishError(
            "there is no token; `hf auth login` stores one, or set the environment variable HF_TOKEN to a token "
            "with write access"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise PublishError("the token holds spaces, line breaks or characters that no token has; copy it again")
    return token


def _refuse_readers(who: dict[str, Any], repo_id: str) -> None:
    namespace = repo_id.split("/")[0]
    orgs = {org["name"]: org for org in who.get("orgs") or ()}
    if namespace != who["name"] and namespace not in orgs:
        mine = ", ".join([who["name"], *orgs])
        raise PublishError(f"the token's owner {who['name']} cannot write to {namespace!r}, only to {mine}")
    if (orgs.get(namespace) or {}).get("roleInOrg") == "read":
        raise PublishError(f"{who['name']} may only read in the organisation {namespace}; ask for the role 'write'")
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise PublishError(
            f"this token of {who['name']} may only read; make one with the role 'write' in the settings of the Hub "
            "and give it to `hf auth login` or HF_TOKEN"
        )
