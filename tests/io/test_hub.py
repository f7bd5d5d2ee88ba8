"""Objects of a few files: in a folder, a file, and a repository; nothing is written that the class did not write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import ModelHubMixin

from hf_midrange.io.hub import HubSaved


@dataclass(frozen=True)
class Note(HubSaved):
    FILES = ("note.txt",)
    text: str = ""

    def _write(self, folder: Path) -> None:
        (folder / "note.txt").write_text(self.text)

    @classmethod
    def _read(cls, *files: Path) -> Note:
        return cls(*(file.read_text() for file in files))


def test_a_frozen_dataclass_comes_back_from_its_folder_and_from_its_file(tmp_path):
    note = Note("so")
    note.save_pretrained(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["note.txt"]
    assert Note.from_pretrained(tmp_path / "new" / "folder") == note
    renamed = (tmp_path / "new" / "folder" / "note.txt").rename(tmp_path / "any name")
    assert Note.from_pretrained(renamed) == note
    assert isinstance(note, ModelHubMixin)


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no note.txt; `Note.save_pretrained` writes it"):
        Note.from_pretrained(tmp_path)


def test_an_id_that_is_not_on_the_hub_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder me/nothing, and on the Hub no Note"):
        Note.from_pretrained("me/nothing", cache_dir=tmp_path, local_files_only=True)
