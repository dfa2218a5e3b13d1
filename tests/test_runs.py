import dataclasses
import json

import pandas as pd
import pytest
import torch

from lsce.runs import Recipe, RunSpec, Store


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

    monkeypatch.setattr("lsce.runs.save_file", full)
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
