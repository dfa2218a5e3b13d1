"""What the literature reports, and how it is read."""

import pandas as pd
import pytest
from pybtex.database import parse_file

from lsce.machine import paths
from lsce.report import literature, speed

PUBLISHED = literature.published()


def test_every_value_has_a_place_and_every_paper_is_in_the_bibliography():
    assert PUBLISHED.index.is_unique and len(PUBLISHED) > 1800
    assert PUBLISHED[["paper", "year", "where_in_paper", "value", "metric"]].notna().all(axis=None)
    assert set(PUBLISHED["confidence"]) == {"seen", "recalled"}
    sources = pd.read_csv(paths.SOURCES)
    assert sources["source"].is_unique and set(sources["source"]) == set(PUBLISHED["source"])
    keys = PUBLISHED.index.str.rpartition("-").get_level_values(0)
    assert (keys == PUBLISHED["source"].str.rpartition(".")[0]).all()
    assert set(keys) <= set(parse_file(paths.REPORT / "references.bib").entries)


def test_no_value_stands_twice_and_none_is_impossible():
    about = [name for name in PUBLISHED if name not in ("source", "where_in_paper", "confidence")]
    assert not PUBLISHED.duplicated(about).any()
    values = PUBLISHED["value"]
    assert values[PUBLISHED["unit"] == "%"].between(0, 100).all()
    assert values[PUBLISHED["unit"] == "fraction"].between(0, 1).all()
    plain = PUBLISHED["method"].str.match("(cross-entropy|hard (label|target)s?)( |$)")
    assert (PUBLISHED.loc[plain, "epsilon"] == 0).all()
    assert not ((PUBLISHED["method"] == "label smoothing") & (PUBLISHED["epsilon"] <= 0)).any()


def test_values_and_places_are_joined():
    row = PUBLISHED.loc["liang2022-013"]  # the README of Zipf-LS: ResNet-18, 77.38 ± 0.32
    assert (row["value"], row["unit"], row["method"]) == (77.38, "%", "Zipf-LS")
    assert (row["arxiv_id"], row["year"], row["venue"]) == ("2207.12980", 2022, "ECCV")
    assert row["where_in_paper"] == "authors' repository README, main results"


def test_values_come_in_the_units_of_our_measures():
    accuracies = PUBLISHED.loc[["zhou2025-001", "zhou2025-009"]]
    assert list(literature.in_units_of("top1_error", accuracies)) == pytest.approx([0.2384, 0.2295])
    assert list(literature.in_units_of("unseen_probe", accuracies)) == pytest.approx(
        [0.7616, 0.7705]
    )
    errors = PUBLISHED.loc[["mukhoti2020-004", "mukhoti2020-016"]]
    assert list(literature.in_units_of("top1_error", errors)) == pytest.approx([0.2330, 0.2343])
    fractions = PUBLISHED.loc[["zhou2025-152", "zhou2025-153"]]
    assert list(literature.in_units_of("unseen_probe", fractions)) == [0.814, 0.746]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("zhou2025-009", "Zhou et al. 2025, ResNet-18"),
        ("carlini2021-001", "Carlini 2021, CIFAR-10"),
        ("wei2022nls-009", "Wei et al. 2022, ResNet-34, symmetric, 40%"),
        ("shen2021-035", "Shen et al. 2021, ResNet-50 → ResNet-18 student, T = 1, ImageNet-1K"),
        ("shen2021-001", "Shen et al. 2021, ResNet-18, ImageNet-1K"),
    ],
)
def test_names_say_who_with_which_network_on_what(row, name):
    assert literature.name(PUBLISHED.loc[row]) == name


def test_speedruns_have_both_a_time_and_an_accuracy():
    runs = speed.speedruns().data
    assert len(runs) == 9 and runs[["seconds", "test accuracy"]].notna().all(axis=None)
    fastest = runs.set_index("network").loc["whitening CNN (Vibecoders / futurebiohackers)"]
    assert fastest["seconds"] == 3.9618 and fastest["test accuracy"] == pytest.approx(75.2486)
