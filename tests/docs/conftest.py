import pytest
from support import reader_folder


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """A folder with what the pages call my-images, me/my-classifier, reviews.csv and so on."""
    folder = tmp_path_factory.mktemp("reader")
    reader_folder.make(folder)
    return folder
