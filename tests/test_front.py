"""What pages found, written and read again, and what all of them together say."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up import TINY, on_tiny, shown
from matplotlib.figure import Figure
from tiny_dataset import registered

from lsce import studies
from lsce.judging import preconditions, rule
from lsce.judging.rule import Effect
from lsce.machine import paths
from lsce.report import figures, findings, front, page
from lsce.report.front import Collected

CLAIMS = studies.all_claims()
PAGE = "02_epsilon_study"
LOWER = CLAIMS["lower-error"]


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(preconditions, "failed", lambda *_: None)  # of runs that nobody trained
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """What every page that judges claims found on recorded runs."""
    folder = tmp_path_factory.mktemp("front") / "figures"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "FIGURES", folder)
        for notebook in dict.fromkeys(claim.notebook for claim in CLAIMS.values()):
            findings.write(findings.of(shown(on_tiny(notebook), "cpu", of_recorded=True)))
    return folder


@pytest.fixture
def nothing(tmp_path, monkeypatch) -> Path:
    """Where pages write what they found; they did not yet."""
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    return paths.FIGURES


@pytest.fixture
def collected(written, nothing) -> Collected:
    shutil.copytree(written, nothing)
    return front.collect("recorded")


# ---- findings ----


def test_what_a_page_found_is_written_and_read_again_the_same(nothing):
    for seeds in ([0], [0, 1, 2]):  # one seed has no interval
        found = findings.of(shown(on_tiny(PAGE, seeds=seeds), "mine"))
        findings.write(found)
        file = nothing / "mine" / f"{PAGE}.json"
        before, again = file.read_bytes(), findings.read(PAGE, "own")
        findings.write(again)
        assert file.read_bytes() == before and "NaN" not in before.decode()
        assert again.groups == found.groups and set(again.judgements) == set(found.judgements)
        for claim, judged in found.judgements.items():
            for ours, theirs in zip(again.judgements[claim], judged, strict=True):
                assert isinstance(ours.effect, Effect) and ours.terms == theirs.terms
                assert ours.effect.mean == theirs.effect.mean
                single = len(seeds) == 1 or ours.verdict == rule.UNTESTABLE
                assert math.isnan(ours.effect.low) >= single
    assert again.published == found.published and again.margins == found.margins


def test_own_runs_come_before_the_recorded_and_the_last_that_was_run_before_others(collected):
    assert findings.read(PAGE, "own").recorded
    for minute, profile in enumerate(("one", "two", "one")):
        findings.write(replace(collected[PAGE], recorded=False, profile=profile))
        os.utime(paths.FIGURES / profile / f"{PAGE}.json", (minute, minute))
        assert findings.read(PAGE, "own").profile == profile
    assert findings.read(PAGE, "recorded").recorded


@pytest.mark.parametrize("text", ['{"profile": "mine", "epsil', '{"profile": "mine"}', "[]"])
def test_what_another_version_wrote_is_passed_over(collected, text):
    (paths.FIGURES / "mine").mkdir()
    (paths.FIGURES / "mine" / f"{PAGE}.json").write_text(text)
    assert findings.read(PAGE, "own") == collected[PAGE]


# ---- the summary ----


def test_pages_that_were_not_run_are_left_out(nothing):
    assert front.collect("recorded") == {} == front.collect("own")
    with pytest.raises(ValueError, match="runs is 'both'; it must be 'own' or 'recorded'"):
        front.SummaryParameters(runs="both")


def test_every_claim_has_a_verdict_and_a_link_to_its_figure(collected):
    assert set(collected) == {claim.notebook for claim in CLAIMS.values()}
    table = front.verdicts(collected).data
    assert list(table["claim"]) == [claim.claim for claim in CLAIMS.values()]
    for claim, link in zip(CLAIMS.values(), table["evidence"], strict=True):
        assert f'href="{claim.notebook}.ipynb#{claim.figure}"' in link
    # Both arms with three seeds in one regime; not all the runs of the page.
    assert table.set_index("claim")["runs compared"][LOWER.claim] == "6"
    found = front.effects(collected).data
    named = found["claim"].str.extract(r">(.*)</a> <b>(.*)</b>").dropna()
    assert list(named[0]) == list(table["claim"])
    assert list(named[1]) == [
        findings.words(claim, collected[claim.notebook]) for claim in CLAIMS.values()
    ]
    for at in findings.AT:
        assert list(table[f"at the {at} ε"]) == [
            f"<b>{findings.overall(claim, collected[claim.notebook], at)}</b>"
            for claim in CLAIMS.values()
        ]


def test_the_guide_says_what_the_verdict_asks_for(collected):
    page = collected[PAGE]
    judged = page.judgements[LOWER.id][0]
    for word in (rule.SUPPORTED, rule.OPPOSITE, rule.NEGLIGIBLE, rule.UNDECIDED, rule.UNTESTABLE):
        both = replace(judged, at="both", verdict=word)
        changed = replace(page, judgements=page.judgements | {LOWER.id: [both]}, lacking=3)
        text = front.guide(collected | {PAGE: changed}).data
        for verdict, sentence in LOWER.advice.items():
            given = f"- {sentence} (*{word}*, an interim look; at least 0.5 matters, " in text
            assert given == (verdict == word)
        left = text.rpartition("**Undecided**")[2] if word == rule.UNDECIDED else text
        link = f">{LOWER.claim.removesuffix('.')}</a> ("
        assert (link in left) == (word in (rule.UNDECIDED, rule.UNTESTABLE))


def test_the_guide_says_where_the_two_values_of_epsilon_differ(collected):
    page = collected[PAGE]
    judged = page.judgements[LOWER.id][0]
    two = [
        replace(judged, at="judged", verdict=rule.UNDECIDED),
        replace(judged, at="chosen", verdict=rule.SUPPORTED),
    ]
    changed = replace(page, judgements=page.judgements | {LOWER.id: two})
    text = front.guide(collected | {PAGE: changed}).data
    assert "(*supported* at the chosen ε, *undecided* at the other; at least 0.5 matters" in text


def test_a_page_that_was_run_here_is_summed_up_as_it_was_run(collected):
    findings.write(findings.of(shown(on_tiny(PAGE, epsilons=[0.0, 0.2]), "mine")))
    found = front.collect("own")
    assert [name for name, shown in found.items() if not shown.recorded] == [PAGE]
    assert {judged.treatment for judged in found[PAGE].judgements[LOWER.id]} == {"ε = 0.2"}
    said = list(front.verdicts(found).data["runs compared"])
    assert said[0] == "6, this machine, profile mine"
    assert said[-1].endswith(", recorded results, profile cpu")
    banner = front.banner(found).data
    assert "> **This machine, profile mine, a tiny random data set**: " in banner
    assert front.collect("recorded") == collected


def test_a_claim_names_the_profile_of_the_runs_that_it_compares(collected):
    shown = collected[PAGE]
    *others, decay = shown.groups
    groups = [*others, replace(decay, profile="small")]
    own = replace(shown, groups=groups, recorded=False)  # so that it is said whose each are
    changed = {**collected, PAGE: own}
    compared = front.verdicts(changed).data.set_index("claim")["runs compared"]
    assert compared[LOWER.claim].endswith("profile cpu")
    assert compared[CLAIMS["better-than-weight-decay"].claim].endswith("profile small")
    (line,) = (s for s in front.banner(changed).data.splitlines() if "profile small" in s)
    count = len(decay.runs)
    assert f"{count} runs, on the pages 02 ({count})" in line


def test_a_verdict_names_the_profile_of_a_group_of_another():
    found = shown(on_tiny(PAGE), "cpu", of_recorded=True)
    other = replace(found.others["weight decay"], profile="small")
    changed = replace(found, others={**found.others, "weight decay": other})
    said = page.verdict(CLAIMS["better-than-weight-decay"], changed).data
    assert "(resnet6, profile small), " in said


def test_figures_of_the_summary_say_whose_runs_they_are(collected, monkeypatch):
    for name in ("effects", "beside_published"):
        monkeypatch.setattr(figures, name, lambda numbers: Figure())
    findings.write(findings.of(shown(on_tiny(PAGE, regimes={"own": TINY}), "mine")))
    for found, folder in ((collected, ""), (front.collect("own"), "mine")):
        front.publish_effects("effects", found)
        front.publish_beside_published("published", found)
        effects = pd.read_csv(paths.FIGURES / folder / "effects.csv")
        testable = [
            claim.claim
            for claim in CLAIMS.values()
            if any(j.verdict != rule.UNTESTABLE for j in found[claim.notebook].judgements[claim.id])
        ]
        assert len(testable) > 20 and list(effects["claim"].unique()) == testable
        of_page = effects[effects["claim"] == LOWER.claim]
        assert list(of_page["profile"]) == [folder or "cpu"]
        assert list(of_page["recorded"]) == [not folder]
        published = pd.read_csv(paths.FIGURES / folder / "published.csv")
        assert set(published["source"]) == {"here", "published"}
        assert ("own" in set(published["name"])) == bool(folder)
    written = json.loads((paths.FIGURES / f"{PAGE}.json").read_text(encoding="utf-8"))
    assert written["profile"] == "cpu"
