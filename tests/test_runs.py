import dataclasses
import json

import pandas as pd
import pytest
import torch

from lsce.results.store import Store
from lsce.training.spec import Protocol, Recipe, RunSpec


def spec(**changes) -> RunSpec:
    fields = dict(
        data="built-in", data_checksum="abc", model="resnet6", epsilon=0.1, epochs=2, seed=0
    )
    return RunSpec(**fields | changes)


def save(store: Store, a_spec: RunSpec):
    return store.save(
        a_spec,
        status="completed",
        meta={"final": {"test_nll": 1.5}},
        history=pd.DataFrame({"epoch": [1, 2], "train_nll": [2.0, 1.0]}),
        outputs={"test_logits": torch.rand(3, 4)},
        extras={"features": {"test_features": torch.rand(3, 2)}},
        details=pd.DataFrame(),
    )


def test_identity_is_pinned():
    """A changed id throws every record away: raise RECIPE_VERSION instead, on purpose."""
    assert spec().id == "1d07a70e8275b03d"


@pytest.mark.parametrize(
    "change",
    [
        {"data_checksum": "abd"},
        {"train_size": 500},
        {"noise": "symmetric", "noise_rate": 0.2},
        {"model": "resnet18"},
        {"epsilon": 0.2},
        {"convention": "include-true"},
        {"epochs": 3},
        {"recipe": Recipe(peak_learning_rate=0.1)},
        {"recipe": Recipe(milestones=(0.5,))},
        {"recipe": Recipe(loss_factor=3.0)},
        {"recipe": Recipe(clip_norm=1.0)},
        {"monitor_size": 100},
        {"seed": 1},
    ],
)
def test_everything_that_determines_a_run_changes_its_id(change):
    assert spec(**change).id != spec().id


def test_what_does_not_change_the_run_keeps_its_id():
    assert spec(keep=("features",)).id == spec().id
    assert spec(epsilon=0).id == spec(epsilon=0.0).id


def test_round_trip_through_json():
    original = spec(
        noise="asymmetric", noise_rate=0.4, recipe=Recipe(batch_size=64, milestones=(0.5, 0.75))
    )
    assert RunSpec.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epsilon", 1.5),
        ("epsilon", float("nan")),
        ("epsilon", "0.1"),
        ("epsilon", True),
        ("epochs", 0),
        ("seed", -1),
        ("seed", 0.5),
        ("model", "resnet9"),
        ("data", "cifar100"),
        ("convention", "exclude"),
        ("noise", "uniform"),
        ("noise_rate", 0.1),
        ("train_size", 0),
        ("train_size", 150),
        ("train_size", 50_000),
        ("monitor_size", 5_100),
        ("keep", ("gradients",)),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        spec(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 1), ("peak_learning_rate", -0.1), ("momentum", 1.0), ("warmup_fraction", "x")],
)
def test_so_is_a_recipe(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        Recipe(**{name: value})


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    store = Store(tmp_path)
    a_spec = spec(keep=("features",))
    assert a_spec not in store
    save(store, a_spec)
    record = store.load(a_spec)
    assert record.spec == a_spec and not record.diverged
    assert record.meta["final"] == {"test_nll": 1.5}
    assert list(record.history["train_nll"]) == [2.0, 1.0]
    assert record.outputs()["test_logits"].shape == (3, 4)
    assert record.features()["test_features"].shape == (3, 2)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lsce.results.store.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(store, spec())
    assert spec() not in store
    assert list(tmp_path.iterdir()) == []


def test_missing_names_each_run_once_and_unites_what_is_kept(tmp_path):
    store = Store(tmp_path)
    save(store, spec(seed=1))
    plain, keeping = spec(), spec(keep=("features",))
    missing = store.missing([plain, keeping, spec(seed=1), spec(seed=2)])
    assert missing == [keeping, spec(seed=2)]
    assert missing[0].keep == ("features",)


def test_a_record_without_the_features_asked_for_is_missing(tmp_path):
    store = Store(tmp_path)
    save(store, spec())
    assert spec() in store
    assert dataclasses.replace(spec(), keep=("features",)) not in store


@pytest.mark.parametrize("text", ["{", "{}", '{"spec": {"seed": 1}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    store = Store(tmp_path)
    record = save(store, spec())
    (record.folder / "record.json").write_text(text)
    with pytest.raises(ValueError, match=f"{spec().id} is damaged"):
        store.load(spec())


def protocol(**changes) -> Protocol:
    fields = dict(corrupted_images=100, attacked_images=100, radii=(1, 4), judged_radius=4)
    fields |= dict(pgd_steps=2, pgd_restarts=1, square_queries=3, source=spec(seed=9))
    return Protocol(**fields | changes)


OTHERS = [
    {"labels": "superclasses"},
    {"train_size": 1000, "imbalance": 10},
    {"train_size": 1000, "imbalance": 10, "weighting": "terms"},
    {"train_size": 1000, "imbalance": 10, "weighting": "samples"},
    {"epsilon": 0.0, "teacher": spec(seed=1), "temperature": 2},
    {"epsilon": 0.0, "teacher": spec(seed=2), "temperature": 2},
    {"epsilon": 0.0, "teacher": spec(seed=1), "temperature": 4},
    {"examination": protocol()},
    {"examination": protocol(radii=(4,))},
    {"examination": protocol(source=spec(seed=8))},
]


def test_runs_that_rest_on_others_have_ids_of_their_own_and_come_back_from_json():
    specs = [spec(**changes) for changes in OTHERS]
    assert len({spec().id, *(each.id for each in specs)}) == len(specs) + 1
    for each in specs:
        again = RunSpec.from_dict(json.loads(json.dumps(each.to_dict())))
        assert again == each and again.id == each.id


def test_what_a_teacher_keeps_does_not_change_its_student():
    a, b = (
        spec(epsilon=0.0, temperature=1, teacher=spec(seed=1, keep=keep))
        for keep in ((), ("weights",))
    )
    assert a.id == b.id


def test_a_run_names_the_networks_that_it_needs():
    student = spec(epsilon=0.0, teacher=spec(seed=1), temperature=2)
    tried = spec(examination=protocol())
    assert [(s.id, s.keep) for s in student.needs] == [(spec(seed=1).id, ("weights",))]
    assert [s.id for s in tried.needs] == [spec().id, spec(seed=9).id]
    assert spec().needs == []


def test_a_long_tail_has_fewer_images_than_it_is_cut_from():
    cut = spec(train_size=45_000, imbalance=100)
    assert cut.images == sum(int(450 * 100 ** (-k / 99) + 1e-9) for k in range(100)) == 9_754
    assert spec(train_size=500).images == 500
    assert (spec(labels="superclasses").num_classes, spec().num_classes) == (20, 100)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": "coarse"}, "labels is 'coarse'"),
        (
            {"labels": "superclasses", "classes": 50, "train_size": 50, "monitor_size": 50},
            "labels is 'superclasses'",
        ),
        ({"imbalance": 1}, "imbalance is 1; it must be a number > 1"),
        ({"imbalance": 500, "train_size": 1000}, "imbalance is 500; .* the 10 images a class"),
        ({"weighting": "terms"}, "weighting is 'terms'; it must be None where every class"),
        ({"imbalance": 10, "train_size": 1000, "weighting": "all"}, "weighting is 'all'"),
        ({"temperature": 2}, "temperature is 2; it must be None without a teacher"),
        ({"teacher": spec(), "epsilon": 0.0}, "temperature is None"),
        ({"teacher": spec(), "temperature": 2}, "epsilon is 0.1; it must be 0"),
        (
            {"teacher": spec(data_checksum="d"), "temperature": 2, "epsilon": 0.0},
            "teacher is .* the same data",
        ),
        ({"keep": ("unseen",)}, "keep is .* where all classes are seen"),
        ({"keep": ("features",), "labels": "superclasses"}, "keep is .*'features'"),
    ],
)
def test_a_wrong_field_of_these_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        spec(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("corrupted_images", 150),
        ("attacked_images", 0),
        ("radii", []),
        ("radii", [4, 1]),
        ("judged_radius", 2),
        ("pgd_steps", 0),
        ("square_queries", 1.5),
    ],
)
def test_a_wrong_protocol_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        protocol(**{name: value})


def test_a_record_that_lacks_something_is_made_anew_with_what_it_holds(tmp_path):
    store = Store(tmp_path)
    save(store, spec(keep=("features",)))
    (missing,) = store.missing([spec(keep=("weights",))])
    assert missing.keep == ("features", "weights")
