"""Metrics as folders for `evaluate.load`, and how to put one on the Hub.

```python
metric = evaluate.load(str(hf_midrange.metrics.WORST_GROUP_ACCURACY))
```
"""

from pathlib import Path


WORST_GROUP_ACCURACY = Path(__file__).parent / "worst_group_accuracy"
"""Folder of the module, of its card, and of what a Space needs besides."""

FILES = ("README.md", "app.py", "requirements.txt", "worst_group_accuracy.py")


def publish_metric(repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Put worst-group accuracy into a Space, from which `evaluate.load(repo_id)` reads it; return its address.

    One commit holds all files. A Space that is there already gets a new commit.

    Args:
        repo_id: `me/worst_group_accuracy`; the name must be that of the module, since `evaluate` looks for it by that.
        private: whether a new Space is private.
        token: a token with write permission; None takes the one that is stored.

    Raises:
        ValueError: if the name is another.
        huggingface_hub.errors.HfHubHTTPError: if the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if repo_id.split("/")[1:] != [WORST_GROUP_ACCURACY.name]:
        raise ValueError(
            f"`repo_id` must be '<user or organisation>/{WORST_GROUP_ACCURACY.name}', as `evaluate` takes the "
            f"module's name from it, but is {repo_id!r}"
        )
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    files = [CommitOperationAdd(name, WORST_GROUP_ACCURACY / name) for name in FILES]
    commit = api.create_commit(repo_id, files, commit_message="Worst-group accuracy", repo_type="space")
    return str(commit.repo_url)
