"""What every test runs under: no network, its own caches, no progress bars, no wall-clock deadlines."""

import os


os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # on a GPU, figures are compared to more digits than TF32 has

import hypothesis  # noqa: E402
import pytest  # noqa: E402


hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(autouse=True, scope="session")
def _quiet_private_caches(tmp_path_factory):
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")


@pytest.fixture(autouse=True, scope="session")
def _small_pictures_of_kinds():
    """The network that names kinds of things sees pictures at a quarter of their side: sixteen times as fast."""
    from hf_midrange.concepts import predictions

    predictions.SMALL_PIXELS = 32
