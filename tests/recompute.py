"""Every verdict of the recorded report again, from the committed files alone.

python tests/recompute.py [the checkout]
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
runs = pd.read_csv(root / "data/recorded/runs.csv", index_col="run", low_memory=False)
rows = pd.read_parquet(root / "data/recorded/groups.parquet").groupby(["run", "measure"])["value"]
groups = {key: part.to_numpy(float) for key, part in rows if len(part)}
differ = drawn = 0
for file in sorted((root / "figures").glob("[01]*.json")):
    page = json.loads(file.read_text(encoding="utf-8"))
    every = [(claim, j) for claim, rows in page["judgements"].items() for j in rows]
    every = [(c, j) for c, j in every if j["effect"] and j["verdict"] != "not testable here"]
    for claim, judged in every:
        terms = pd.DataFrame(judged["terms"], columns=["seed", "run", "measure", "weight"])
        values = [w * runs.at[r, m] for r, m, w in zip(terms.run, terms.measure, terms.weight)]
        effects = pd.Series(values).groupby(terms["seed"]).sum().to_numpy()
        n, mean, margin = len(effects), effects.mean(), page["margins"][claim]
        tail = 0.05 / 2 / judged["effect"]["family"]
        half = stats.t.isf(tail, n - 1) * effects.std(ddof=1) / n**0.5
        if judged["effect"]["se_images"] is not None:  # else it is not of test images
            parts = [w * groups[r, m] for r, m, w in zip(terms.run, terms.measure, terms.weight)]
            by = np.stack(
                [
                    np.sum([p for p, s in zip(parts, terms.seed) if s == seed], axis=0)
                    for seed in sorted(set(terms.seed))
                ]
            )
            rest = by - by.mean(1, keepdims=True) - by.mean(0) + by.mean()
            both = (rest**2).sum() / ((n - 1) * 49 * n * 50)
            images = max(by.mean(0).var(ddof=1) / 50 - both, 0)
            half = np.hypot(half, stats.t.isf(tail, 49) * images**0.5)
        low, high = (mean - half, mean + half) if effects.std() > 0 else (np.nan, np.nan)
        if claim in page["not_worse"]:
            word = "supported" if low > -margin else "opposite" if high < -margin else "undecided"
        elif low > 0 and mean >= margin:
            word = "supported"
        elif high < 0 and mean <= -margin:
            word = "opposite"
        else:
            word = "negligible" if -margin < low and high < margin else "undecided"
        drawn += 1
        if word != judged["verdict"]:
            differ += 1
            print(f"{file.stem}, {claim}, {judged['regime']}: {judged['verdict']}, but here {word}")
print(f"{drawn} verdicts recomputed, {differ} differ")
sys.exit(bool(differ) or not drawn)
