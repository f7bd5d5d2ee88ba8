"""One atomic commit: everything of a publication, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete

from hf_midrange.publishing.target import State, Target


def files_in(folder: Path) -> dict[str, Path]:
    """Return path in the repository -> file, of all files below `folder`."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def commit(
    target: Target,
    files: Mapping[str, Path],
    *,
    message: str,
    stale: Callable[[str], bool],
    refuse_other: Callable[[State], None],
) -> CommitInfo:
    """Upload `files` and make them one commit on top of the newest one.

    If another commit comes between, the repository is looked at again, and the commit is made on top of that one.
    Readers see the old revision or the new one. The Hub knows contents by their hash: what was uploaded before a
    failure is not sent again.

    Args:
        target: where to.
        files: path in the repository -> local file.
        message: of the commit.
        stale: whether a file of an earlier publication, if not among `files`, is deleted in the same commit.
        refuse_other: raises `PublishError` if what is there must not be replaced.

    Raises:
        PublishError: if the Hub refuses, or does not answer in time.
    """
    target.ask("make", target.make)

    def attempt() -> CommitInfo:
        state = target.state()
        if state is None:
            raise ConnectionError("the repository that was just made is not there yet")
        refuse_other(state)
        # Anew for each try: the client keeps in them which files were unchanged, which another commit may change.
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        gone = [CommitOperationDelete(name) for name in state.files if stale(name) and name not in files]
        return target.api.create_commit(
            target.repo_id,
            [*additions, *gone],
            commit_message=message,
            repo_type=target.repo_type,
            revision=target.revision,
            parent_commit=state.sha,
        )

    return target.ask("commit to", attempt)
