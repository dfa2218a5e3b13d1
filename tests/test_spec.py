"""What runs and evaluations are: their identity, and the sentence that says what is wrong."""

import json
import pickle
from typing import Any, Literal

import pytest
from made_up import spec

from lsce.machine.values import Value
from lsce.training.methods import (
    Correction,
    Distillation,
    Focal,
    GeneralizedCE,
    MaxSup,
    Method,
    Mixup,
    Smoothing,
    WeightedSmoothing,
)
from lsce.training.spec import (
    Balanced,
    Evaluation,
    LongTail,
    NoisyLabels,
    Protocol,
    Recipe,
    RunSpec,
    SomeClasses,
    Superclasses,
    Task,
    task_of,
)


def distilled(temperature: float = 2, **of_teacher: Any) -> RunSpec:
    return spec(method=Distillation(teacher=spec(**of_teacher), temperature=temperature))


def protocol(**changes: Any) -> Protocol:
    fields = dict(corrupted_images=100, attacked_images=100, radii=(1, 4), judged_radius=4)
    return Protocol(**fields | dict(pgd_steps=2, pgd_restarts=1, square_queries=3) | changes)


def evaluation(run: RunSpec | None = None, source: int = 9, **changes: Any) -> Evaluation:
    return Evaluation(run=run or spec(), source=spec(seed=source), protocol=protocol(**changes))


TAIL = LongTail(train_size=1000, imbalance=10)
NOISY = NoisyLabels(noise="symmetric", rate=0.2)

#: All different, each in one way from `spec()`.
OTHERS: list[Task] = [
    spec(data="built-in"),
    spec(data_checksum="abc"),
    spec(sample=Balanced(train_size=500)),
    spec(sample=SomeClasses(classes=50, train_size=300), monitor_size=50),
    spec(sample=TAIL),
    spec(sample=TAIL, method=WeightedSmoothing(epsilon=0.1, weighting="terms")),
    spec(sample=TAIL, method=WeightedSmoothing(epsilon=0.1, weighting="samples")),
    spec(labels=Superclasses()),
    spec(labels=NOISY),
    spec(labels=NoisyLabels(noise="symmetric", rate=0.4)),
    spec(labels=NOISY, method=Correction(direction="forward")),
    spec(network="resnet18"),
    spec(method=Smoothing(epsilon=0.2)),
    spec(method=Smoothing(epsilon=0.1, convention="include-true")),
    spec(method=Smoothing(epsilon=0.1, warmup_epochs=1)),
    spec(method=Focal(gamma=1)),
    spec(method=MaxSup(weight=0.1)),
    spec(method=GeneralizedCE(q=0.7)),
    spec(method=Mixup(alpha=0.2)),
    spec(epochs=3),
    spec(monitor_size=100),
    spec(seed=1),
    spec(recipe=Recipe(peak_learning_rate=0.1)),
    spec(recipe=Recipe(milestones=(0.5, 0.75))),
    spec(recipe=Recipe(loss_factor=3.0)),
    spec(recipe=Recipe(clip_norm=1.0)),
    distilled(),
    distilled(seed=1),
    distilled(temperature=4),
    evaluation(),
    evaluation(radii=(4,)),
    evaluation(source=8),
]


def test_identity_is_pinned():
    """Changed ids throw every record away: raise VERSION instead, on purpose."""
    assert spec(data_checksum="abc").id == "ce50731e19f070c6"


def test_everything_that_determines_a_task_changes_its_id():
    assert len({task.id for task in (spec(), *OTHERS)}) == len(OTHERS) + 1


def test_what_does_not_change_the_run_keeps_its_id():
    assert spec(keep=("features",)).id == spec().keeping("weights").id == spec().id
    assert distilled(keep=("weights",)).id == distilled().id
    assert (
        spec(method=Smoothing(epsilon=0)).id
        == spec(method={"kind": "smoothing", "epsilon": 0.0}).id
    )


@pytest.mark.parametrize("task", OTHERS, ids=lambda task: task.id)
def test_a_task_comes_back_from_json_and_from_another_process(task):
    fields = json.loads(json.dumps(task.model_dump(mode="json", exclude_none=True)))
    for again in (task_of(fields), pickle.loads(pickle.dumps(task))):
        assert again == task and again.id == task.id and hash(again) == hash(task)


def test_a_task_names_the_networks_that_it_needs():
    def names(task: Task) -> list[tuple[str, set[str]]]:
        return [(need.id, set(need.keep)) for need in task.needs]

    assert spec().needs == []
    assert names(distilled(seed=1, keep=("features",))) == [
        (spec(seed=1).id, {"features", "weights"})
    ]
    assert names(evaluation()) == [(spec().id, {"weights"}), (spec(seed=9).id, {"weights"})]


def test_a_run_counts_its_images_and_classes():
    cut = spec(sample=LongTail(train_size=45_000, imbalance=100))
    assert cut.images == sum(int(450 * 100 ** (-k / 99) + 1e-9) for k in range(100)) == 9_754
    some = spec(sample=SomeClasses(classes=50, train_size=300), monitor_size=50)
    assert (some.images, some.classes, some.images_of("test")) == (300, 50, 5_000)
    for each, told_apart in ((spec(labels=Superclasses()), 20), (some, 50), (spec(), 100)):
        assert each.num_classes == told_apart


# ---- what is wrong, in one sentence ----


def kind(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": name, **fields}


SENTENCES = [
    # of the wrong type
    ({"epochs": "2"}, "epochs is '2'; it must be a valid integer"),
    ({"epochs": True}, "epochs is True; it must be a valid integer"),
    ({"seed": 0.5}, "seed is 0.5; it must be a valid integer"),
    ({"network": 6}, "network is 6; it must be a valid string"),
    ({"sample": 300}, "sample is 300; it must be a valid dictionary"),
    ({"method": "smoothing"}, "method is 'smoothing'; it must be a valid dictionary"),
    # out of range
    ({"epochs": 0}, "epochs is 0; it must be at least 1"),
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"data": "cifar100"}, "data is 'cifar100'; it must be one of cifar-100, built-in"),
    ({"network": "resnet9"}, "network is 'resnet9'; it must be one of resnet6, "),
    ({"keep": ["gradients"]}, "keep.0 is 'gradients'; it must be 'features', 'information'"),
    ({"sample": Balanced(train_size=150)}, "train_size is 150; it must be a multiple of the 100"),
    ({"sample": Balanced(train_size=50_000)}, "train_size is 50000; .* at most 45,000"),
    ({"monitor_size": 5_100}, "monitor_size is 5100; .* at most 5,000"),
    # missing, unknown
    ({"sample": kind("balanced")}, "train_size is missing; Balanced needs it"),
    ({"method": kind("smoothing", epsilo=0.1)}, "Smoothing has no .* 'epsilo'; did you mean 'eps"),
    ({"epoch": 2}, "RunSpec has no parameter 'epoch'; did you mean 'epochs'?"),
    ({"optimiser": "Adam"}, "RunSpec has no parameter 'optimiser'; it has data, data_checksum, "),
    # within another value
    ({"recipe": {"batch_size": 1}}, "batch_size is 1; it must be at least 2"),
    ({"recipe": {"momentum": 1.0}}, "momentum is 1.0; it must be less than 1"),
    ({"recipe": {"warmup_fraction": "x"}}, "warmup_fraction is 'x'; it must be a valid number"),
    ({"recipe": {"milestones": [0.5, 2.0]}}, "milestones.1 is 2.0; it must be less than 1"),
    ({"method": kind("smoothing", epsilon=1.5)}, "epsilon is 1.5; it must be at most 1"),
    ({"method": kind("smoothing", epsilon=float("nan"))}, "epsilon is nan; .* a finite number"),
    (
        {"method": kind("smoothing", epsilon=0.1, convention="all")},
        "convention is 'all'; .* or 'inc",
    ),
    ({"labels": kind("noisy", noise="uniform", rate=0.2)}, "noise is 'uniform'; .*'symmetric' or"),
    ({"method": kind("distillation", teacher={}, temperature=1)}, "data is missing; RunSpec needs"),
    # of no kind
    ({"sample": {"train_size": 300}}, "sample is {'train_size': 300}; .* a dictionary with a kind"),
    ({"sample": kind("half")}, "sample.kind is 'half'; it must be one of 'balanced', 'some c"),
    ({"labels": kind("coarse")}, "labels.kind is 'coarse'; it must be one of 'true', 'superc"),
    ({"method": kind("focal")}, "method.kind is 'focal'; it must be one of 'smoothing', .*'foc"),
    ({"method": {"epsilon": 0.1}}, "method.kind is None; it must be one of 'smoothing'"),
    ({"method": kind([])}, r"method.kind is \[\]; it must be one of 'smoothing'"),
    # that do not go together
    ({"sample": SomeClasses(classes=100, train_size=100)}, "classes is 100; .* below all 100"),
    ({"sample": LongTail(train_size=1000, imbalance=500)}, "imbalance is 500; .* 10 images of a c"),
    ({"sample": TAIL, "labels": Superclasses()}, "labels are superclasses; they must be true"),
    ({"method": WeightedSmoothing(epsilon=0, weighting="terms")}, "sample is balanced; .* long ta"),
    ({"method": Smoothing(epsilon=0.1, warmup_epochs=2)}, "warmup_epochs is 2; .* below the 2 ep"),
    ({"method": Correction(direction="forward")}, "labels are true; forward .* needs noisy ones"),
    (
        {"method": Distillation(teacher=spec(data="built-in"), temperature=1)},
        "teacher is .*; it must have the run's classes",
    ),
    ({"keep": ["unseen"]}, r"keep is \['unseen'\]; this run has no 'unseen'"),
    ({"keep": ["features"], "labels": Superclasses()}, "keep is .* has no 'features'"),
    ({"keep": ["features"], "sample": Balanced(train_size=100)}, "keep is .* has no 'features'"),
]


@pytest.mark.parametrize(("changes", "sentence"), SENTENCES, ids=str)
def test_what_is_wrong_with_a_run_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}") as caught:
        spec(**changes)
    assert "\n" not in str(caught.value)
    if not changes.keys() - RunSpec.model_fields.keys():
        with pytest.raises(ValueError, match=f"^{sentence}"):
            spec().changed(**changes)


def test_what_a_run_lacks_is_named():
    with pytest.raises(ValueError, match="^data is missing; RunSpec needs it$"):
        RunSpec()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"corrupted_images": 150}, "corrupted_images is 150; .* multiple of the 100 classes"),
        ({"attacked_images": 0}, "attacked_images is 0; it must be at least 1"),
        ({"radii": []}, r"radii is \[\]; it must be ascending numbers"),
        ({"radii": [4, 1]}, r"radii is \[4.0, 1.0\]; it must be ascending numbers"),
        ({"judged_radius": 2}, r"judged_radius is 2; it must be one of radii \[1.0, 4.0\]"),
        ({"pgd_steps": 0}, "pgd_steps is 0; it must be at least 1"),
        ({"square_queries": 1.5}, "square_queries is 1.5; it must be a valid integer"),
        ({"run": spec(sample=TAIL)}, "the run of an evaluation must have all classes"),
    ],
)
def test_so_is_what_is_wrong_with_an_evaluation(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        evaluation(**changes)


def test_a_value_does_not_change_and_equals_its_like():
    with pytest.raises(ValueError, match="frozen"):
        spec().seed = 1
    assert spec() == spec() and len({spec(), spec(), spec(seed=1)}) == 2
    assert Recipe(milestones=[0.5]) == Recipe(milestones=(0.5,))


# ---- methods ----


def test_the_json_schema_of_a_run_names_the_kinds_of_method():
    schema = RunSpec.model_json_schema()
    kinds = schema["properties"]["method"]["oneOf"]
    assert [each["properties"]["kind"]["const"] for each in kinds] == list(Method.kinds)
    assert "RunSpec" in Evaluation.model_json_schema()["$defs"]


def test_a_method_is_added_by_a_class_alone():
    try:

        class Own(Method):
            kind: Literal["of my own"] = "of my own"
            strength: float = 1.0

        added = spec(method=kind("of my own"))
        assert added.method == Own() and added.method.name == "of my own"
        assert task_of(added.model_dump(mode="json")) == added
        assert "of my own" in json.dumps(RunSpec.model_json_schema())
    finally:
        del Method.kinds["of my own"]


def test_values_take_numbers_for_numbers_alone():
    class Both(Value):
        share: float
        count: int

    assert Both(share=1, count=2).share == 1.0
    for wrong in ({"share": "1"}, {"share": True}, {"share": float("inf")}, {"count": 2.0}):
        with pytest.raises(ValueError, match=r"^(share|count) is .*; it must be a"):
            Both(**{"share": 1.0, "count": 2} | wrong)
