from datasets import load_from_disk  # or load_dataset("me/my-images-mid", split="train")

import hf_midrange as hm

curated = load_from_disk("repaired/curated")
print(hm.curation_report(curated)["explanation"])
balanced = curated.filter(lambda keep: keep, input_columns="keep")
print(balanced.num_rows, "of", curated.num_rows, "rows:", balanced.unique("reason")[:2])
