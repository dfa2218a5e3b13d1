"""What a run is: its identity, its round trip through JSON, and what cannot be written down."""

import json
import pickle
from typing import Any, Literal

import pytest
from flat import flat

from lsce.machine.values import Value
from lsce.training import methods
from lsce.training.methods import Distillation, Smoothing
from lsce.training.spec import Evaluation, NoisyLabels, Protocol, Recipe, RunSpec, task_of


def protocol(**changes) -> Protocol:
    fields = dict(corrupted_images=100, attacked_images=100, radii=(1, 4), judged_radius=4)
    return Protocol(**fields | dict(pgd_steps=2, pgd_restarts=1, square_queries=3) | changes)


def evaluation(**changes) -> Evaluation:
    return Evaluation(**dict(run=flat(), source=flat(seed=9), protocol=protocol()) | changes)


def test_identity_is_pinned():
    """A changed id throws every record away: raise VERSION instead, on purpose."""
    assert flat().id == "be0ed706cbc4ab57"
    assert flat(noise="symmetric", rate=0.2).id == "fed52d886a59ac5b"


VARIANTS = [
    flat(train_size=500),
    flat(data_checksum="abd"),
    flat(noise="symmetric", rate=0.2),
    flat(noise="asymmetric", rate=0.2),
    flat(data="cifar-100", noise="symmetric", rate=0.402),
    flat(data="cifar-100", noise="human", rate=0.402),
    *(
        flat(data="cifar-100").changed(
            labels=NoisyLabels(noise="instance-wise human", rate=0.402, checksum=digit * 64)
        )
        for digit in "ab"
    ),
    flat(classes=50, train_size=300, monitor_size=100),
    flat(superclasses=True),
    flat(train_size=1000, imbalance=10),
    *(
        flat(train_size=1000, imbalance=10, method=methods.WeightedSmoothing(**given))
        for given in (
            dict(epsilon=0.1, weighting="terms"),
            dict(epsilon=0.1, weighting="samples"),
            dict(epsilon=0.1, weighting="terms", convention="include-true"),
        )
    ),
    flat(network="resnet18"),
    flat(epsilon=0.2),
    flat(epsilon=-0.2),
    flat(method=Smoothing(epsilon=0.1, convention="include-true")),
    flat(method=Smoothing(epsilon=0.1, warmup_epochs=1)),
    flat(method=methods.Focal(gamma=1)),
    flat(method=Smoothing(epsilon=0.1, final_epsilon=0.2)),
    flat(method=methods.MaxSup(weight=1)),
    flat(method=methods.MaxSup(weight=1, final_weight=2)),
    flat(method=methods.OnlineSmoothing(alpha=0.5)),
    flat(method=methods.ZipfLS(weight=1)),
    flat(method=methods.LogitPenalty(beta=1)),
    flat(method=methods.MbLS(margin=10)),
    flat(method=methods.MbLS(margin=10, weight=1)),
    flat(method=methods.GeneralizedCE(q=1)),
    flat(method=methods.Mixup(alpha=1)),
    flat(method=methods.Mixup(alpha=1, epsilon=0.1)),
    flat(noise="symmetric", rate=0.2, method=methods.Correction(direction="forward")),
    flat(noise="symmetric", rate=0.2, method=methods.Correction(direction="backward")),
    flat(method=Distillation(teacher=flat(seed=1), temperature=2)),
    flat(method=Distillation(teacher=flat(seed=2), temperature=2)),
    flat(method=Distillation(teacher=flat(seed=1), temperature=4)),
    flat(epochs=3),
    *(
        flat(recipe=Recipe(batch_size=100, **given))
        for given in (
            dict(peak_learning_rate=0.1),
            dict(milestones=[0.5, 0.75]),
            dict(loss_factor=3),
            dict(clip_norm=1.0),
            dict(augment=False),
            dict(early_resolution=[0.5, 24]),
        )
    ),
    flat(monitor_size=200),
    flat(seed=1),
    evaluation(),
    evaluation(run=flat(seed=2)),
    evaluation(source=flat(seed=8)),
    evaluation(protocol=protocol(radii=(4,))),
]


def test_everything_that_determines_a_run_changes_its_id_and_comes_back():
    """From JSON, and from another process."""
    assert len({flat().id, *(each.id for each in VARIANTS)}) == len(VARIANTS) + 1
    for each in VARIANTS:
        fields = json.loads(json.dumps(each.model_dump(mode="json", exclude_none=True)))
        for again in (task_of(fields), pickle.loads(pickle.dumps(each))):
            assert again == each and again.id == each.id and hash(again) == hash(each)


def test_what_does_not_change_the_run_keeps_its_id():
    assert flat(keep=("features",)).id == flat().id
    assert flat(epsilon=0).id == flat(epsilon=0.0).id
    assert flat(method={"kind": "smoothing", "epsilon": 0.1}).id == flat(epsilon=0.1).id
    taught = (
        flat(method=Distillation(teacher=flat(seed=1, keep=keep), temperature=1))
        for keep in ((), ("weights",))
    )
    assert len({each.id for each in taught}) == 1


def test_a_run_names_the_networks_that_it_needs():
    student = flat(method=Distillation(teacher=flat(seed=1), temperature=2))
    assert [(s.id, s.keep) for s in student.needs] == [(flat(seed=1).id, {"weights"})]
    assert [s.id for s in evaluation().needs] == [flat().id, flat(seed=9).id]
    assert flat().needs == []


def test_sizes_follow_from_the_sample():
    cut = flat(train_size=45_000, imbalance=100)
    assert cut.images == sum(int(450 * 100 ** (-k / 99) + 1e-9) for k in range(100)) == 9_754
    few = flat(classes=50, train_size=500)
    assert (few.images, few.num_classes, few.images_of("test")) == (500, 50, 5_000)
    assert (flat(superclasses=True).num_classes, flat().num_classes) == (20, 100)


def sampled(sample: Any) -> RunSpec:
    return flat().changed(sample=sample)


def labelled(labels: Any) -> RunSpec:
    return flat().changed(labels=labels)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Smoothing(epsilon=1.5), "epsilon is 1.5; it must be at most 1"),
        (lambda: Smoothing(epsilon=float("nan")), "epsilon is nan; it must be a finite number"),
        (lambda: Smoothing(epsilon="0.1"), "epsilon is '0.1'; it must be a valid number"),
        (lambda: Smoothing(epsilon=True), "epsilon is True; it must be a valid number"),
        (lambda: Smoothing(), "epsilon is missing; Smoothing needs it"),
        (lambda: Smoothing(epsilon=0, convention="e"), "convention is 'e'; it must be 'exclude-"),
        (lambda: Smoothing(epsilon=0, warmup=1), "no parameter 'warmup'; did you mean 'warmup_e"),
        (lambda: flat(epochs=0), "epochs is 0; it must be at least 1"),
        (lambda: flat(seed=-1), "seed is -1; it must be at least 0"),
        (lambda: flat(seed=0.5), "seed is 0.5; it must be a valid integer"),
        (lambda: flat(network="resnet9"), "network is 'resnet9'; it must be one of resnet6, "),
        (lambda: flat(data="cifar100"), "data is 'cifar100'; it must be one of cifar-100, built-"),
        (lambda: flat(train_size=0), "train_size is 0; it must be at least 1"),
        (lambda: flat(train_size=150), "train_size is 150; it must be a multiple of the 100 cla"),
        (lambda: flat(train_size=50_000), "train_size is 50000; .* at most 45,000"),
        (lambda: flat(monitor_size=5_100), "monitor_size is 5100; .* at most 5,000"),
        (lambda: flat(classes=100), "classes is 100; it must be below all 100"),
        (lambda: flat(imbalance=1), "imbalance is 1; it must be greater than 1"),
        (lambda: flat(imbalance=500), "imbalance is 500; it must be at most the 3 images of a c"),
        (lambda: flat(noise="uniform", rate=0.1), "noise is 'uniform'; it must be 'symmetric', "),
        (lambda: flat(noise="human", rate=0.402), "noise is 'human'; built-in has no labels by pe"),
        (
            lambda: NoisyLabels(noise="human", rate=0.402, checksum="a" * 64),
            "checksum is a+; with human noise it is None",
        ),
        (
            lambda: NoisyLabels(noise="instance-wise human", rate=0.402),
            "checksum is None; with instance-wise human noise it is that of the labels' file",
        ),
        (
            lambda: flat(data="cifar-100", noise="human", rate=0.4),
            "rate is 0.4; it must be 0.402, the share of CIFAR-100's labels by people that are wr",
        ),
        (lambda: flat(noise="symmetric", rate=0.0), "rate is 0.0; it must be greater than 0"),
        (lambda: flat(classes=50, superclasses=True), "labels are superclasses; they must be true"),
        (lambda: flat(imbalance=2, noise="symmetric", rate=0.1), "labels are noisy; they must be"),
        (lambda: flat(method=methods.Correction(direction="forward")), "labels are true; forward"),
        (
            lambda: flat(method=methods.WeightedSmoothing(epsilon=0, weighting="terms")),
            "sample is balanced; it must be a long tail",
        ),
        (lambda: flat(network=6), "network is 6; it must be a valid string"),
        (lambda: flat(epoch=2), "RunSpec has no parameter 'epoch'; did you mean 'epochs'?"),
        (lambda: flat(optimiser="Adam"), "has no parameter 'optimiser'; it has data, data_check"),
        (lambda: RunSpec(), "data is missing; RunSpec needs it"),
        (lambda: flat().changed(epochs=0), "epochs is 0; it must be at least 1"),
        (lambda: flat(method="plain"), "method is 'plain'; it must be a valid dictionary"),
        (lambda: flat(method={"kind": "polyloss"}), "method.kind is 'polyloss'; it must be one of"),
        (lambda: flat(method={"kind": []}), r"method.kind is \[\]; it must be one of 'smoothing'"),
        (lambda: flat(method={"epsilon": 0}), "method.kind is None; it must be one of 'smoothing'"),
        (lambda: flat(method={"kind": "smoothing", "epsilon": 2}), "epsilon is 2; it must be at"),
        (
            lambda: flat(method={"kind": "smoothing", "epsilo": 0}),
            "Smoothing has no parameter 'epsilo'; did you mean 'epsilon'?",
        ),
        (
            lambda: flat(method={"kind": "distillation", "teacher": {}, "temperature": 1}),
            "data is missing; RunSpec needs it",
        ),
        (lambda: sampled(300), "sample is 300; it must be a valid dictionary"),
        (lambda: sampled({"train_size": 300}), "sample is .*; it must be a dictionary with a kind"),
        (lambda: sampled({"kind": "half"}), "sample.kind is 'half'; it must be one of 'balanced'"),
        (lambda: sampled({"kind": "balanced"}), "train_size is missing; Balanced needs it"),
        (lambda: labelled({"rate": 0.1}), "labels is {'rate': 0.1}; .* a dictionary with a kind"),
        (lambda: labelled({"kind": "coarse"}), "labels.kind is 'coarse'; it must be one of 'true'"),
        (lambda: flat(recipe={"momentum": 2}), "momentum is 2; it must be less than 1"),
        (lambda: flat(recipe={"momentun": 0}), "Recipe has no .*; did you mean 'momentum'?"),
        (
            lambda: flat(method=Smoothing(epsilon=0, warmup_epochs=2)),
            "warmup_epochs is 2; it must be below the 2 epochs",
        ),
        (
            lambda: flat(method=Smoothing(epsilon=0, warmup_epochs=1, final_epsilon=0.2)),
            "final_epsilon is 0.2; it must be left out after a warm-up",
        ),
        (
            lambda: flat(method=Distillation(teacher=flat(superclasses=True), temperature=2)),
            "teacher is .*; it must have the run's classes",
        ),
        (lambda: flat(keep=("gradients",)), "keep.*gradients"),
        (lambda: flat(keep=("unseen",)), "this run has no 'unseen'"),
        (lambda: flat(keep=("features",), superclasses=True), "this run has no 'features'"),
        (lambda: flat(keep=("features",), train_size=100), "this run has no 'features'"),
        (lambda: Recipe(batch_size=1), "batch_size is 1; it must be at least 2"),
        (lambda: Recipe(peak_learning_rate=-0.1), "peak_learning_rate is -0.1; it must be at le"),
        (lambda: Recipe(momentum=1.0), "momentum is 1.0; it must be less than 1"),
        (lambda: Recipe(warmup_fraction="x"), "warmup_fraction is 'x'; it must be a valid numbe"),
        (lambda: Recipe(early_resolution=(1.0, 24)), "early_resolution.0 is 1.0; it must be les"),
        (lambda: Recipe(early_resolution=(0.5, 24.5)), "early_resolution.1 is 24.5; it must be"),
        (
            lambda: flat(recipe=Recipe(early_resolution=(0.5, 32))),
            "early_resolution is .*; its pixels must be below 32",
        ),
        (lambda: protocol(radii=[]), "radii is .*; it must be ascending"),
        (lambda: protocol(radii=[4, 1]), "radii is .*; it must be ascending"),
        (lambda: protocol(judged_radius=2), "judged_radius is 2; it must be one of radii"),
        (lambda: protocol(square_queries=1.5), "square_queries is 1.5; it must be a valid integ"),
        (
            lambda: evaluation(protocol=protocol(corrupted_images=150)),
            "corrupted_images is 150; it must be a multiple of the 100 classes, at most 10,000",
        ),
        (lambda: evaluation(run=flat(superclasses=True)), "must have all classes with their"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_value_does_not_change_and_takes_numbers_for_numbers_alone():
    class Both(Value):
        share: float
        count: int

    assert Both(share=1, count=2) == Both(share=1.0, count=2) != Both(share=1, count=3)
    with pytest.raises(ValueError, match="frozen"):
        Both(share=1, count=2).count = 3
    for wrong in ({"share": "1"}, {"share": True}, {"share": float("inf")}, {"count": 2.0}):
        with pytest.raises(ValueError, match="^(share|count) is .*; it must be a"):
            Both(**{"share": 1, "count": 2} | wrong)


def test_the_schema_of_a_run_names_every_method():
    schema = RunSpec.model_json_schema()
    kinds = schema["properties"]["method"]["oneOf"]
    assert [each["properties"]["kind"]["const"] for each in kinds] == list(methods.Method.kinds)
    assert "RunSpec" in Evaluation.model_json_schema()["$defs"]
    words = json.dumps(schema)
    assert "milestones" in words and "smaller sets are part of larger" in words


def test_a_method_is_added_by_a_class_alone():
    try:

        class Own(methods.Method):
            kind: Literal["of my own"] = "of my own"

        added = flat(method={"kind": "of my own"})
        assert added.method == Own() and task_of(added.model_dump(mode="json")) == added
        assert "of my own" in json.dumps(RunSpec.model_json_schema())
    finally:
        del methods.Method.kinds["of my own"]
