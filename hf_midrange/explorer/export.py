"""Writing and publishing what the marks make of the data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from hf_midrange import columns
from hf_midrange.explorer.marks import edited, told
from hf_midrange.io.datasets import write_dataset
from hf_midrange.io.outputs import new_folder


def in_space() -> bool:
    """Return whether this runs in a Space, whose page is for everyone and whose disk is nobody's."""
    return bool(os.environ.get("SPACE_ID"))


@dataclass(frozen=True, eq=False)
class Exports:
    """Where edited rows go.

    Attributes:
        ds: the rows before the marks.
        findings: what is published with them.
        folder: the folder to write; each export replaces the one before.
    """

    ds: Dataset
    findings: Dataset | None
    folder: Path

    def write(self, marks: Mapping[int, str]) -> str:
        """Write the edited rows, whole or not at all; return a sentence that says so.

        Raises:
            OSError, ValueError: if the folder cannot be written.
        """
        with new_folder(self.folder, overwrite=True) as new:
            write_dataset(edited(self.ds, marks), new.folder)
        return f"Wrote {len(self.ds)} rows to {self.folder} (marked: {told(marks)}); load_from_disk reads them."

    def publish(self, marks: Mapping[int, str], repo_id: str, token: str | None) -> str:
        """Publish the edited rows in a private repository; return a sentence that says so.

        Raises:
            PublishError: for what `publish_dataset` refuses.
        """
        from hf_midrange.publishing import publish_dataset

        done = publish_dataset(edited(self.ds, marks), repo_id.strip(), findings=self.findings, token=token)
        return f"Published privately: {done.commit_url}"

    def refuse_own_folder(self) -> None:
        """Raise `ValueError` if exports would overwrite the very files that the rows are read from."""
        read_from = {Path(str(file["filename"])).resolve().parent for file in self.ds.cache_files}
        if self.folder.resolve() in read_from:
            raise ValueError(
                f"{self.folder} holds the rows that are explored; choose another folder for what is exported"
            )

    @property
    def publishable(self) -> bool:
        """Whether the rows were curated: others have nothing to publish."""
        return columns.REASON in self.ds.column_names
