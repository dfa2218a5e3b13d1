"""Planted in made-up records, a false claim is found out by its page, and a true one supported."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from made_up import on_tiny, shown
from tiny_dataset import registered

from lsce import studies
from lsce.judging import claims, rule
from lsce.judging.claims import Claim
from lsce.measures.jackknife import GROUPS
from lsce.report import findings, page
from lsce.studies.evidence import Evidence

#: Claims of a page's own runs, whose measures can be planted one by one: not errors under attacks,
#: which are those of single images (see test_robustness).
PLAIN = [
    claim
    for claim in studies.all_claims().values()
    if claim.is_plain and claim.notebook != "06_robustness"
]


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered():
        yield


@functools.cache
def made_up(notebook: str) -> Evidence:
    return shown(on_tiny(notebook, seeds=range(5)))


def plant(evidence: Evidence, claim: Claim, margins: float) -> None:
    """Give a measure's effect a true size, in margins, that seeds and test images blur a little."""
    random, margin = np.random.default_rng(0), claim.matters / claim.scale
    least, most = (bound if isinstance(bound, float) else None for bound in claim.bounds)
    middle = 0.5 if least is None or most is not None else least + 20 * margin
    if least is not None and most is not None:
        middle = (least + most) / 2
    sign = 1 if claim.better == "higher" else -1
    for label, run in evidence.pairs:
        effect = margins * margin * sign if label.setting else 0.0
        run.scalars[claim.measure] = middle + effect + 0.05 * margin * random.normal()
        run.by_group[claim.measure] = 0.05 * margin * random.normal(size=GROUPS)
        run.scalars.update(train_accuracy=0.9, temperature_converged=1.0)
        if claim.repairs is not None:  # smoothing does damage
            run.scalars[claim.repairs] = 0.5 - (3 * margin * sign if label.setting else 0.0)


@pytest.mark.parametrize("claim", PLAIN, ids=lambda claim: claim.id)
@pytest.mark.parametrize(
    ("margins", "word"),
    [(3.0, rule.SUPPORTED), (-3.0, rule.OPPOSITE), (0.1, rule.NEGLIGIBLE)],
)
def test_a_page_finds_what_was_planted(claim, margins, word, monkeypatch):
    evidence = replace(made_up(claim.notebook))  # nothing of it is judged yet
    # By itself, so that what the other made-up measures do does not widen its interval.
    monkeypatch.setattr(studies, "claims_of", lambda notebook: [claim])
    plant(evidence, claim, margins)
    if claim.not_worse_by is not None and word == rule.NEGLIGIBLE:
        word = rule.SUPPORTED  # not worse
    assert findings.overall(claim, evidence, "judged") == word
    text = page.verdict(claim, evidence).data
    assert f"**“{claim.claim}” — {findings.words(claim, evidence)}.**" in text
    assert claims.changes_of(claim).empty or "Changed after runs had been seen" in text
