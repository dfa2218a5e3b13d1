"""What all pages together say."""

import dataclasses
import functools

import pytest
from made_up import digest_of, record_of
from test_evidence import images

from lsce.commands import record
from lsce.judging import claims, statistics
from lsce.machine import paths
from lsce.report import front, page
from lsce.results import recorded
from lsce.studies import evidence, profiles
from lsce.sweeps import sweep

DECLARED = claims.load()


@functools.cache
def made(spec):
    return digest_of(spec, images=images(spec))


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recorded, "PER_CLASS", 4)


@pytest.fixture
def collected(nothing):
    """The profile smoke as if it had been recorded."""
    wanted = record.wanted(profiles.load("smoke")).values()
    recorded.write([made(run.spec) for run in wanted], paths.RECORDED)
    return front.collect("recorded")


def test_pages_without_runs_are_left_out(nothing):
    assert front.collect("recorded") == {} == front.collect("own")
    with pytest.raises(ValueError, match="runs is 'both'; it must be one of own, recorded"):
        front.collect("both")


def test_every_claim_has_a_verdict_and_a_link_to_its_figure(collected):
    assert set(collected) == {claim.notebook for claim in DECLARED.values()}
    table = front.verdicts(collected).data
    assert list(table["claim"]) == [claim.claim for claim in DECLARED.values()]
    for claim, link in zip(DECLARED.values(), table["evidence"], strict=True):
        assert f'href="{claim.notebook}.ipynb#{claim.figure}"' in link
    # Both arms with two seeds, in two regimes and Inception's; not all the runs of the page.
    assert (
        table.set_index("claim")["runs compared"]["Label smoothing lowers the test error."] == "12"
    )
    found = front.effects(collected).data
    named = found["claim"].str.extract(r">(.*)</a> <b>(.*)</b>").dropna()
    assert list(named[0]) == list(table["claim"])
    assert list("<b>" + named[1] + "</b>") == list(table["verdict"])


def test_the_guide_says_what_the_verdict_asks_for(collected):
    advice, left = front.guide(collected).data.split("**Open at this size**")
    for claim in DECLARED.values():
        word = page.overall(claim, collected[claim.notebook])
        for other, sentence in claim.advice.items():
            assert (f"- {sentence} (*{word}*: " in advice) == (other == word)
        assert (f">{claim.claim.removesuffix('.')}</a> (" in left) == (word == statistics.UNDECIDED)


def test_a_page_that_was_run_here_is_summed_up_as_it_was_run(collected, monkeypatch):
    monkeypatch.setattr(
        sweep, "ensure", lambda specs, **_: [record_of(s, images=images(s)) for s in specs]
    )
    page = "02_epsilon_study"
    given = profiles.load("smoke").notebooks[page] | {"epsilons": [0.0, 0.1, 0.2]}
    given |= dict(profile="smoke", data_name="built-in", runs="own", train_missing=True)
    evidence.gather(page, **given)
    found = front.collect("own")
    assert [name for name, shown in found.items() if not shown.recorded] == [page]
    assert sorted(found[page].table["epsilon"].unique()) == [0.0, 0.1, 0.2]
    said = front.verdicts(found).data["runs compared"]
    assert said[0] == "12, this machine, profile smoke" and "recorded" in said.iloc[-1]
    assert front.collect("recorded")[page].recorded
    banner = front.banner(found).data
    assert "> **This machine, profile smoke, the built-in synthetic data**: " in banner


def test_a_claim_names_the_profile_of_the_runs_that_it_compares(collected):
    page = "02_epsilon_study"
    shown = dataclasses.replace(collected[page], profile="cpu")
    alternatives = dataclasses.replace(shown.others["alternatives"], profile="small")
    others = shown.others | {"alternatives": alternatives}
    changed = {**collected, page: dataclasses.replace(shown, others=others)}
    compared = front.verdicts(changed).data.set_index("claim")["runs compared"]
    assert compared["Label smoothing lowers the test error."].endswith("profile cpu")
    words = "Label smoothing lowers the test error more than weight decay does."
    assert compared[words].endswith("profile small")
    cpu, small = (f"**Recorded results, profile {name}, " for name in ("cpu", "small"))
    (line,) = (line for line in front.banner(changed).data.splitlines() if small in line)
    count = len({run.spec.id for run in alternatives.runs})
    assert f"{count} runs, on the pages 02 ({count})" in line
    assert cpu in front.banner(changed).data
    verdict = page.verdict(DECLARED["better-than-weight-decay"], changed[page]).data
    assert "(resnet6, profile small), " in verdict
