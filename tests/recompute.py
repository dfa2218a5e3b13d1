"""Every recorded verdict again from the committed files: python tests/recompute.py [checkout]."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

root, drawn, differ = Path(sys.argv[1] if len(sys.argv) > 1 else "."), 0, 0
runs = pd.read_csv(root / "data/recorded/runs.csv", index_col="run", low_memory=False)
rows = pd.read_parquet(root / "data/recorded/groups.parquet").groupby(["run", "measure"])["value"]
groups = {key: part.to_numpy(float) for key, part in rows if len(part)}
for file in sorted((root / "figures").glob("[0-9]*.json")):
    page = json.loads(file.read_text(encoding="utf-8"))
    for claim, judged in ((c, j) for c, rows in page["judgements"].items() for j in rows):
        if judged["verdict"] == "not testable here":
            continue
        seeds, ids, names, weights = map(np.array, zip(*judged["terms"], strict=True))
        terms = list(zip(ids, names, weights, strict=True))
        effects = pd.Series([w * runs.at[r, m] for r, m, w in terms]).groupby(seeds).sum()
        n, mean, tail = len(effects), effects.mean(), 0.025 / judged["effect"]["family"]
        half, margin = stats.t.isf(tail, n - 1) * effects.std() / n**0.5, page["margins"][claim]
        if judged["effect"]["se_images"] is not None:  # else it is not of test images
            parts = pd.DataFrame([w * groups[r, m] for r, m, w in terms]).groupby(seeds).sum()
            by = parts.to_numpy()
            rest = by - by.mean(1, keepdims=True) - by.mean(0) + by.mean()
            both = (rest**2).sum() / ((n - 1) * 49 * n * 50)
            images = max(by.mean(0).var(ddof=1) / 50 - both, 0)
            half = np.hypot(half, stats.t.isf(tail, 49) * images**0.5)
        low, high = (mean - half, mean + half) if effects.std() > 0 else (np.nan, np.nan)
        if claim in page["not_worse"]:
            word = "supported" if low > -margin else "opposite" if high < -margin else "undecided"
        elif max(low, -high) > 0 and abs(mean) >= margin:
            word = "supported" if mean > 0 else "opposite"
        else:
            word = "negligible" if max(-low, high) < margin else "undecided"
        drawn, differ = drawn + 1, differ + (word != judged["verdict"])
        if word != judged["verdict"]:
            print(f"{file.stem}, {claim}, {judged['regime']}: {judged['verdict']}, but here {word}")
print(f"{drawn} verdicts recomputed, {differ} differ")
sys.exit(bool(differ) or not drawn)
