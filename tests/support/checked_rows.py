"""Rows with logits of a network that leans on a concept as much as is said."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value


def rows(n=800, seed=0, tie=0.95, lean=0.0, concepts=30, core=1.2, names=("cat", "dog"), shift=0.0):
    """Two classes; `concept 0` goes with the second in a share `tie` of the rows, and moves its logit by `lean`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    tied = np.where(rng.random(n) < tie, labels, 1 - labels)
    z = core * (2 * labels - 1) + lean * (2 * tied - 1) + rng.normal(0, 1.2, n) + shift
    present = rng.random((n, concepts)) < 0.2
    present[:, 0] = tied == 1
    features = Features(
        {
            "logits": List(Value("float32"), length=2),
            "label": ClassLabel(names=list(names)),
            "concepts_tags": List(ClassLabel(names=[f"concept {j}" for j in range(concepts)])),
        }
    )
    made = {"logits": np.stack([-z, z], axis=1), "label": labels}
    return Dataset.from_dict({**made, "concepts_tags": [np.flatnonzero(row) for row in present]}, features=features)
