"""What all pages together say."""

import functools

import pytest
from made_up import digest_of, record_of
from test_evidence import images

from lsce import claims, evidence, pages, paths, profiles, record, recorded, stats, summary, sweep
from lsce.runs import Store

DECLARED = claims.load()


@functools.cache
def made(spec):
    return digest_of(spec, images=images(spec))


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recorded, "PER_CLASS", 1)


@pytest.fixture
def collected(nothing):
    """The smoke profile as if it had been recorded."""
    wanted = record._wanted(profiles.load("smoke")).values()
    recorded.write([made(spec) for spec, _, _ in wanted], paths.RECORDED)
    return summary.collect("smoke", data_name="built-in", runs="both")


def test_pages_without_runs_are_left_out(nothing):
    assert summary.collect("smoke", data_name="built-in", runs="both") == {}
    assert summary.collect("smoke", data_name="built-in", runs="own") == {}


def test_every_claim_has_a_verdict_and_a_link_to_its_figure(collected):
    assert set(collected) == {claim.notebook for claim in DECLARED.values()}
    table = summary.verdicts(collected).data
    assert list(table["claim"]) == [claim.claim for claim in DECLARED.values()]
    for claim, link in zip(DECLARED.values(), table["evidence"], strict=True):
        assert f'href="{claim.notebook}.html#{claim.figure}"' in link
    found = summary.effects(collected).data
    named = found["claim"].str.extract(r">(.*)</a> <b>(.*)</b>").dropna()
    assert list(named[0]) == list(table["claim"])
    assert list("<b>" + named[1] + "</b>") == list(table["verdict"])


def test_the_guide_says_what_the_verdict_asks_for(collected):
    advice, left = summary.guide(collected).data.split("**Open at this size**")
    for claim in DECLARED.values():
        word = pages.overall(claim, collected[claim.notebook][0])
        for other, sentence in claim.advice.items():
            assert (f"- {sentence} (*{word}*: " in advice) == (other == word)
        assert (f">{claim.claim.removesuffix('.')}</a> (" in left) == (word == stats.UNDECIDED)


def test_this_machine_shows_the_seeds_that_are_complete(nothing, monkeypatch):
    profile = profiles.load("smoke")
    lacking = profile.study("05_noisy_labels", "built-in").specs[-1]
    monkeypatch.setattr(Store, "missing", lambda self, specs: [s for s in specs if s == lacking])
    monkeypatch.setattr(
        sweep, "ensure", lambda specs, **_: [record_of(s, images=images(s)) for s in specs]
    )
    found = summary.collect("smoke", data_name="built-in", runs="both")
    assert found["02_epsilon_study"][0].seeds == [0, 1]
    assert found["05_noisy_labels"][0].seeds == [1 - lacking.seed]
    assert not any(one.recorded for shown in found.values() for one in shown)
    assert evidence.recorded("02_epsilon_study") == []
