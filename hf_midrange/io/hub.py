"""Objects that are a few files: in a folder, or in a repository of the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import HfApi, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)


class HubSaved(ModelHubMixin):
    """Something with `save_pretrained`, `from_pretrained` and `push_to_hub`, that is written as one file or a few.

    A subclass names its files in `FILES`, writes them in `_write`, and reads them in `_read`. Unlike its parent it
    adds no file that the subclass did not write, works for frozen dataclasses, and pushes to private repositories.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    """Names of the files, in a folder and in a repository."""
    REPO_TYPES: ClassVar[tuple[str, ...]] = ("model",)
    """Kinds of repository in which the files are looked for, in this order; the first is what is pushed to."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - what the subclass takes
        """Return a bare instance: the parent would note its arguments for a config.json."""
        return object.__new__(cls)

    def _write(self, folder: Path) -> None:
        """Write every file of `FILES` into a folder that exists."""
        raise NotImplementedError

    @classmethod
    def _read(cls, *files: Path) -> Self:
        """Return what `_write` wrote, from the paths of `FILES`.

        Raises:
            ValueError: if a file is not what was written.
        """
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override] # no config, no README
        """Write the object's files into a folder, which is made if it is missing."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._write(folder)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder_or_id: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Return what `save_pretrained` wrote into a folder, or `push_to_hub` into a repository.

        Args:
            folder_or_id: a folder, one of the files themselves, or else the id of a repository on the Hub.
            revision: branch, tag or commit on the Hub.
            token: for private repositories; None: the one of `hf auth login`.
            cache_dir: where downloads are kept.
            local_files_only: take what was downloaded before, and ask the Hub nothing.

        Raises:
            FileNotFoundError: if there is nothing of the kind.
            ValueError: if a file is not what was written.
        """
        place = Path(folder_or_id)
        if place.is_file():
            return cls._read(*([place] if len(cls.FILES) == 1 else cls._in_folder(place.parent)))
        if place.exists():
            return cls._read(*cls._in_folder(place))
        options: dict[str, Any] = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        return cls._read(*cls._downloaded(str(folder_or_id), options))

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        repo_type: str | None = None,
        private: bool = True,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Upload the object's files, and nothing else, in one commit; return the commit's address.

        Args:
            repo_id: `user/name`; the repository is made if it is missing.
            repo_type: "model" or "dataset"; None: what such objects usually lie in.
            private: whether a repository that is made is private.
            token: None: the one of `hf auth login`.
            revision: branch to commit to; None: main.
            commit_message: None: one that names the kind of object.
        """
        api, kind = HfApi(token=token), repo_type or self.REPO_TYPES[0]
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)  # before anything is made: what cannot be written is refused here
            api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type=kind,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message or f"Add {type(self).__name__}",
            )
        return str(commit.commit_url)

    @classmethod
    def _in_folder(cls, folder: Path) -> list[Path]:
        missing = [name for name in cls.FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} has no {missing[0]}; `{cls.__name__}.save_pretrained` writes it")
        return [folder / name for name in cls.FILES]

    @classmethod
    def _downloaded(cls, repo_id: str, options: dict[str, Any]) -> list[Path]:
        for kind in cls.REPO_TYPES:
            try:
                return [Path(hf_hub_download(repo_id, name, repo_type=kind, **options)) for name in cls.FILES]
            except (EntryNotFoundError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
                failed = error
        raise FileNotFoundError(
            f"there is no folder {repo_id}, and on the Hub no {cls.__name__} of that name can be read: {failed}"
        ) from failed
