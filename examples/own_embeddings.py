"""Embeddings and logits that some other program made: a tie seen in a column, and a corrected linear head."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value

import hf_midrange as hm

rng = np.random.default_rng(0)
rows, width = 2000, 32
labels = rng.integers(0, 2, rows)
hospital = np.where(rng.random(rows) < 0.95, labels, 1 - labels)  # 95 % of the sick were seen in hospital B
embeddings = rng.normal(size=(rows, width))
embeddings[:, 0] += 1.5 * (2 * labels - 1)  # what the disease looks like
embeddings[:, 1] += 2.5 * (2 * hospital - 1)  # what the hospital's scanner looks like
logits = embeddings[:, :2] @ np.array([[-0.8, 0.8], [-1.2, 1.2]])  # a head that leans on the scanner

features = Features(
    {
        "embedding": List(Value("float32"), length=width),
        "logits": List(Value("float32"), length=2),
        "label": ClassLabel(names=["healthy", "sick"]),
        "hospital": ClassLabel(names=["A", "B"]),
    }
)
ds = Dataset.from_dict(
    {"embedding": embeddings, "logits": logits, "label": labels, "hospital": hospital}, features=features
)
ds = hm.LogitBands().fit(ds).transform(ds)
ds = hm.annotate(ds, [hm.Annotations(["hospital"])])
findings = hm.associate(ds)
print(findings.select_columns(["unit_name", "concept", "odds_ratio", "reading"]).to_pandas().head(2).to_string())

given = hm.LinearHead.from_weights(np.pad([[-0.8, -1.2], [0.8, 1.2]], ((0, 0), (0, width - 2))), np.zeros(2))
curated = hm.curate(ds, findings)
head = hm.retrain_head(curated, given)
print(hm.curation_report(curated)["verdict"])
print("weight of disease and scanner:", given.weight[1, :2].numpy(), "->", head.weight[1, :2].numpy().round(2))
