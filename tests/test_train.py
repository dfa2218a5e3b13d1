"""Runs are trained as their specs say, on the tiny data set."""

import contextlib
import functools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from made_up import tiny
from tiny_dataset import registered
from torch.nn import functional as F

from lsce import data
from lsce.data import datasets
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.losses.alternatives import OnlineLabelSmoothing, ZipfLabelSmoothing
from lsce.measures import information
from lsce.results.measure import measure
from lsce.training import methods, networks, precision, step, train
from lsce.training.batches import Augmenter, evaluate
from lsce.training.methods import Distillation, Smoothing, WeightedSmoothing
from lsce.training.spec import (
    Balanced,
    LongTail,
    NoisyLabels,
    Recipe,
    RunSpec,
    SomeClasses,
    Superclasses,
)
from lsce.training.step import Trainer, one_cycle, parameter_groups
from lsce.training.train import material

CPU = torch.device("cpu")
RECIPE = Recipe(batch_size=100)
PLAIN = Smoothing(epsilon=0.0)


@pytest.fixture(scope="module", autouse=True)
def dataset():
    """In float32, whatever pays on this machine, and with one thread."""
    with registered(), train.one_thread(CPU), pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "of", lambda *_: "float32")
        patch.setattr(train, "_idle", {})
        yield data.load("tiny")


def spec(**changes) -> RunSpec:
    usual = dict(sample=Balanced(train_size=300), recipe=RECIPE, keep=("weights",))
    return tiny(**usual | changes)


def left_by(spec: RunSpec, **given) -> SimpleNamespace:
    """A trained run, its history row by row, and what it was measured from."""
    if "information" in spec.keep:
        examples = spec.entry.examples
        given["monitors"] = lambda material: [information.monitor(material, examples)]
    with train.train(spec, data.load(spec.data), device=CPU, **given) as trained:
        run, tensors = measure(trained, {"step": trained.step, "seconds": trained.seconds})
        return SimpleNamespace(run=run, history=trained.history, **tensors)


@pytest.fixture(scope="module")
def usual(dataset):
    return left_by(spec())


def same(ours, theirs) -> bool:
    return all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)


def test_same_seed_same_bits_whatever_was_trained_between(usual):
    other = left_by(spec(seed=1, method=Smoothing(epsilon=0.3)))
    again = left_by(spec())
    assert again.history == usual.history and same(again, usual) and not same(other, usual)
    assert torch.equal(again.outputs["test_logits"], usual.outputs["test_logits"])


def test_reported_losses_are_hard_label_nll(usual, monkeypatch):
    """Never the training criterion: shifted by 100, it shifts the training loss alone."""

    class Shifted(LabelSmoothingCrossEntropy):
        def forward(self, preds, targets):
            return super().forward(preds, targets) + 100

    monkeypatch.setattr(methods, "LabelSmoothingCrossEntropy", Shifted)
    found = left_by(spec())
    for row, plain in zip(found.history, usual.history, strict=True):
        assert row.pop("train_loss") == pytest.approx(plain["train_loss"] + 100, abs=1e-3)
        assert row == {name: plain[name] for name in row}
    assert found.run.scalars == usual.run.scalars


def test_without_smoothing_the_criterion_is_the_nll():
    (row,) = left_by(spec(method=PLAIN, epochs=1)).history
    assert row["train_loss"] == pytest.approx(row["train_nll"], abs=1e-5)


def test_a_run_that_diverges_ends_and_says_so():
    found = left_by(spec(epochs=5, recipe=Recipe(batch_size=100, peak_learning_rate=1e30)))
    assert found.run.status == "diverged" and len(found.history) < 5


def test_other_data_than_the_spec_names_are_refused():
    with pytest.raises(ValueError, match="wants data abc"):
        left_by(spec(data_checksum="abc"))


def test_noise_is_on_training_and_validation_labels_and_not_on_test(dataset):
    noisy = spec(labels=NoisyLabels(noise="symmetric", rate=0.5))
    (_, labels, truth), (_, validation, right) = material(noisy, dataset, CPU)[2:]
    (_, clean, same_truth), (_, same_right, _) = material(spec(), dataset, CPU)[2:]
    assert torch.equal(truth, same_truth) and torch.equal(clean, truth)
    assert torch.equal(right, dataset.validation.labels) and torch.equal(right, same_right)
    for given, true in ((labels, truth), (validation, right)):
        assert 0.35 < (given != true).double().mean() < 0.65
    found = left_by(noisy)
    assert torch.equal(found.outputs["test_labels"], dataset.test.labels)
    assert torch.equal(found.outputs["validation_labels"], validation)


def test_a_run_with_human_noise(dataset):
    """Its labels follow the counts of the data set, and corrections know their matrix."""
    labels = NoisyLabels.of_people(data.entry("tiny"))
    assert labels.rate == 18 / 40 and labels.words == "human noise, 45%"
    noisy = spec(labels=labels, method=methods.Correction(direction="forward"))
    matrix = torch.full((10, 10), 2 / 40).fill_diagonal_(22 / 40).double()
    torch.testing.assert_close(train.transition_of(noisy), matrix)
    (_, given, truth), (_, held_out, right) = material(noisy, dataset, CPU)[2:]
    expected = data.draw_labels(torch.cat([truth, right]), matrix, noisy.seed)
    assert torch.equal(torch.cat([given, held_out]), expected)
    assert 0.3 < (given != truth).double().mean() < 0.6
    found = left_by(noisy)
    assert found.run.status == "completed" and {"memorised", "recovered"} <= set(found.run.scalars)
    assert found.history[0]["train_loss"] == left_by(noisy).history[0]["train_loss"]
    plain = left_by(noisy.changed(method=PLAIN))
    assert found.history[0]["train_loss"] != plain.history[0]["train_loss"]


def test_a_run_with_the_label_that_a_person_gave_each_image(dataset, monkeypatch):
    given = torch.randint(0, 10, (400,))
    read = lambda: data.HumanLabels(given, checksum)  # noqa: E731
    entry, checksum = data.entry("tiny"), "ab" * 32
    monkeypatch.setitem(datasets._ENTRIES, "tiny", replace(entry, human_labels=read))
    labels = NoisyLabels.of_people(data.entry("tiny"), by_image=True)
    assert labels.words == "instance-wise human noise, 45%" and labels.checksum == checksum
    noisy = spec(sample=Balanced(train_size=100), labels=labels)
    training, validation = material(noisy, dataset, CPU)[2:]
    place = {image.numpy().tobytes(): k for k, image in enumerate(dataset.train.images)}
    chosen = [place[image.numpy().tobytes()] for image in training.images]
    assert len(place) == 300 and torch.equal(training.labels, given[chosen])
    assert torch.equal(training.truth, dataset.train.labels[chosen])
    assert torch.equal(validation.labels, given[300:])
    again = material(noisy.changed(seed=1), dataset, CPU).validation
    assert torch.equal(again.labels, given[300:])  # they are what they are, whatever the seed
    assert torch.equal(train.transition_of(noisy), data.human_transition(entry.human_counts()))
    checksum = "cd" * 32
    with pytest.raises(
        ValueError, match="wants labels abababababab…, those on this machine are cdc"
    ):
        material(noisy, dataset, CPU)


def test_augmented_images_are_mirrored_crops_of_the_originals():
    images = torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8)
    labels = torch.arange(12)
    padded = F.pad(images.permute(0, 3, 1, 2).float(), (4, 4, 4, 4), mode="reflect") / 255
    seen = set()
    for batch, chosen in Augmenter(images, labels, batch_size=5, seed=3).epoch():
        assert batch.is_contiguous(memory_format=torch.channels_last)
        for image, label in zip(batch, chosen.tolist(), strict=True):
            crops = padded[label].unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32)
            crops = crops.permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)
            matches = [((c == image).flatten(1).all(1)).any() for c in (crops, crops.flip(3))]
            assert any(matches)
            seen.add(label)
    assert len(seen) == 10  # the incomplete last batch is dropped, no image comes twice


def test_arms_of_a_seed_see_the_same_batches():
    images = torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8)
    epochs = [list(Augmenter(images, torch.arange(12), 5, seed).epoch()) for seed in (0, 0, 1)]
    same = [torch.equal(a[0], b[0]) for a, b in zip(epochs[0], epochs[1], strict=True)]
    other = [torch.equal(a[0], b[0]) for a, b in zip(epochs[0], epochs[2], strict=True)]
    assert all(same) and not any(other)


def test_without_augmentation_images_are_only_shuffled():
    images, labels = torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8), torch.arange(200)
    plain = Augmenter(images, labels, 50, seed=0, augment=False)
    as_they_are, orders = images.permute(0, 3, 1, 2).float() / 255, []
    for _ in range(2):
        epoch, order = (torch.cat(part) for part in zip(*plain.epoch(), strict=True))
        assert torch.equal(epoch, as_they_are[order])
        assert order.unique().tolist() == list(range(200))
        orders.append(order)
    assert not torch.equal(*orders)


def test_weight_decay_spares_biases_and_normalisation():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    decayed, spared = parameter_groups(network, 5e-4)
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 5e-4
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0


@pytest.mark.parametrize("steps", [1, 2, 4, 100])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(steps):
    shares = [one_cycle(step, steps, 0.25) for step in range(steps + 1)]
    assert shares[0] == pytest.approx(1 / 25) and shares[-1] == pytest.approx(0)
    assert max(shares) <= 1
    if steps == 100:
        assert shares[25] == 1 and shares[:26] == sorted(shares[:26])
        assert shares[25:] == sorted(shares[25:], reverse=True)
        like = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        torchs = torch.optim.lr_scheduler.OneCycleLR(like, 1.0, total_steps=100, pct_start=0.25)
        for share in shares[:100]:
            assert like.param_groups[0]["lr"] == pytest.approx(share, abs=0.07)
            like.step()
            torchs.step()


def test_the_last_run_that_ends_gives_the_threads_back():
    with pytest.MonkeyPatch.context() as patch:
        for own in ("_running", "_threads"):  # of this module's one thread
            patch.setattr(train, own, 0)
        torch.set_num_threads(2)
        left_by(spec(epochs=1))
        assert torch.get_num_threads() == 2
        with contextlib.ExitStack() as longer:
            with train.one_thread(CPU):
                longer.enter_context(train.one_thread(CPU))
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


# ---- the step ----

PUBLISHED = {"milestones": (0.4, 0.8), "loss_factor": 3.0, "clip_norm": 0.5}


PLAIN_LOSS = torch.nn.CrossEntropyLoss()


def begin(trainer: Trainer, recipe: Recipe, criterion=PLAIN_LOSS, steps=4, seed=3, **more) -> None:
    trainer.begin(recipe, criterion, steps=steps, batch_size=20, pixels=32, seed=seed, **more)
    trainer.network.train()


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    drawn = [(torch.rand(20, 3, 32, 32), torch.randint(0, 10, (20,))) for _ in range(steps)]
    return [(x.to(memory_format=torch.channels_last), y) for x, y in drawn]


def losses(trainer: Trainer, given: list) -> list[float]:
    """The criterion at each step."""
    found = []
    for batch in given:
        trainer.totals.zero_()
        trainer.step(*batch)
        found.append(trainer.totals[0].item())
    return found


@pytest.mark.parametrize("special", [{}, PUBLISHED], ids=["one-cycle", "published"])
def test_the_step_is_sgd_with_the_scheduled_rate(special):
    """Against a loop of PyTorch's own parts, on a network without a second thought."""
    trainer, given = Trainer("resnet6", 10, CPU), batches(5)
    begin(trainer, Recipe(batch_size=20, **special), steps=5)
    losses(trainer, given)

    torch.manual_seed(3)
    plain = networks.build("resnet6", 10).to(memory_format=torch.channels_last)
    decays = [5e-4 if p.ndim > 1 else 0.0 for p in plain.parameters()]
    groups = [
        {"params": [p], "weight_decay": decay}
        for p, decay in zip(plain.parameters(), decays, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    rates = [0.3 * one_cycle(step, 5, 0.25) for step in range(5)]
    if special:
        rates = [0.3, 0.3, 0.03, 0.03, 0.003]
    for rate, (images, labels) in zip(rates, given, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        (F.cross_entropy(plain(images), labels) * (3 if special else 1)).backward()
        if special:
            norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            assert norm > 0.5  # else nothing is tested
        optimizer.step()
    for ours, theirs in zip(trainer.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_compiled_step_is_reused_by_every_run_of_its_shape(monkeypatch):
    """Traced as for a compiler; `test_gpu_check.py` compiles."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    given = batches(2)
    fast, plain = (Trainer("resnet6-half", 10, CPU, compiled=c) for c in (True, False))
    for epsilon, seed in ((0.0, 0), (0.1, 1)):
        found = []
        for trainer in (fast, plain):
            begin(trainer, RECIPE, LabelSmoothingCrossEntropy(epsilon), seed=seed)
            found.append(losses(trainer, given))
        assert found[0] == pytest.approx(found[1], rel=1e-4)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert (fast.mode, fast.fallbacks, plain.mode) == ("compiled", [], "eager")


def test_a_process_compiles_as_many_networks_as_a_profile_has(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for classes in range(10, 20):
        trainer = Trainer("resnet6-half", classes, CPU, compiled=True)
        begin(trainer, RECIPE, LabelSmoothingCrossEntropy(0.1))
        losses(trainer, batches(1))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 10


def test_a_compiled_step_has_local_logits_and_its_warm_up_leaves_no_trace_in_the_loss(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    given, found = batches(3), []
    online = [OnlineLabelSmoothing(0.5, 10) for _ in range(2)]
    for compiled, criterion in zip((True, False), online, strict=True):
        trainer = Trainer("resnet6-half", 10, CPU, compiled=compiled)
        begin(trainer, RECIPE, criterion)
        assert not any(buffer.any() for buffer in criterion.buffers())
        losses(trainer, given)
        begin(trainer, RECIPE, ZipfLabelSmoothing(1.0), local=True)
        found.append(losses(trainer, given))
        assert not trainer.fallbacks
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    torch.testing.assert_close(online[0].sums, online[1].sums, rtol=1e-3, atol=1e-5)
    assert online[0].counts.sum() > 0


def test_training_goes_on_where_compiling_and_capturing_fail(monkeypatch):
    plain, given = Trainer("resnet6", 10, CPU), batches(4)
    begin(plain, RECIPE)

    def broken(images):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda network, **_: broken)
    with pytest.warns(RuntimeWarning, match="goes on .*, and slower") as warned:
        other = Trainer("resnet6", 10, CPU, compiled=True, captured=True)
        begin(other, RECIPE)
    # Without CUDA there is nothing to capture with, either.
    compiling, capturing = other.fallbacks
    assert compiling == "uncompiled: RuntimeError: no compiler"
    assert capturing.startswith("without a captured step: ") and len(warned) == 2
    assert other.mode == "eager" and losses(other, given) == losses(plain, given)
    begin(other, RECIPE)
    assert len(other.fallbacks) == 2  # the next run does not try again


def test_early_steps_are_on_smaller_images():
    trainer, seen = Trainer("resnet6", 10, CPU), []
    trainer.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    begin(trainer, Recipe(batch_size=20, early_resolution=(0.5, 16)), steps=5)
    losses(trainer, batches(5))
    assert seen == [16, 16, 16, 32, 32]


def test_no_network_is_drawn_while_another_thread_draws_its_own(monkeypatch):
    """Threads share the generator: a network that is drawn in between would change a run."""
    build, locked = networks.build, []

    def watched(*arguments):
        locked.append(step._one_at_a_time.locked())
        return build(*arguments)

    monkeypatch.setattr(networks, "build", watched)
    one = Trainer("resnet6", 10, CPU)
    begin(one, RECIPE)
    train.network_of(spec(), one.network.state_dict(), CPU)
    assert locked == [True] * 3


def test_a_run_s_fixed_first_layer_is_set_from_its_images():
    def filters(**changes):
        return left_by(spec(network="resnet8-half", epochs=1, **changes)).weights["body.0.weight"]

    first = filters(seed=0)
    assert torch.equal(first[:16], -first[16:])
    assert torch.equal(first, filters(seed=0, method=PLAIN))
    fewer = Balanced(train_size=100)
    assert not torch.equal(filters(seed=0, sample=fewer), filters(seed=1, sample=fewer))


def test_a_run_says_how_its_steps_were_done_and_what_they_took(usual):
    assert usual.run.origin["step"] == {"mode": "eager", "fallbacks": []}
    assert set(usual.run.origin["seconds"]) == {"training", "core"}


# ---- what studies ask of a run ----


def test_what_is_measured_beside_does_not_change_the_run(usual):
    extras = ("features", "information", "selected", "selective", "weights")
    found = left_by(spec(keep=extras))
    for row, plain in zip(found.history, usual.history, strict=True):
        assert {name: row[name] for name in plain} == plain
        assert 0 < row["information_similar"] < math.log(300)
    assert same(found, usual) and usual.run.scalars.items() <= found.run.scalars.items()


def test_the_selected_epoch_is_that_of_the_best_validation_accuracy():
    recipe = Recipe(batch_size=100, milestones=(0.5,))
    found = left_by(spec(epochs=4, recipe=recipe, keep=("selected",)))
    accuracies = [row["validation_accuracy"] for row in found.history]
    best, scalars = accuracies.index(max(accuracies)) + 1, found.run.scalars
    assert scalars["selected_epoch"] == best
    assert scalars["selected_validation_accuracy"] == max(accuracies)  # all images are monitored
    # The schedule knows only steps: the run cut off at that epoch had the same weights there.
    milestones = tuple(m for m in (0.5 * 4 / best,) if m < 1)
    short = left_by(spec(epochs=best, recipe=Recipe(batch_size=100, milestones=milestones)))
    names = ("nll", "ece", "top1_error")
    assert all(short.run.scalars[name] == scalars[f"{name}_selected"] for name in names)


def test_wrong_labels_that_are_learned_are_memorised():
    rows = left_by(
        spec(
            sample=Balanced(train_size=100),
            labels=NoisyLabels(noise="symmetric", rate=0.5),
            method=PLAIN,
            recipe=Recipe(batch_size=50, weight_decay=0.0, augment=False),
            epochs=40,
        )
    ).history
    assert rows[0]["memorised"] < 0.3
    assert rows[-1]["memorised"] > 0.8 and rows[-1]["recovered"] < 0.1


def test_classes_left_out_are_never_seen(dataset):
    some = SomeClasses(classes=8, train_size=240)
    seen, unseen, training, validation = material(spec(sample=some, monitor_size=80), dataset, CPU)
    assert set(seen.classes) | set(unseen.classes) == set(dataset.classes)
    assert len(seen.classes) == 8 and len(unseen.test) == 20
    for labels in (training.labels, validation.labels, seen.test.labels):
        assert labels.unique().tolist() == list(range(8))


def test_a_warm_up_is_plain_cross_entropy():
    plain, warmed, scratch = (
        left_by(spec(method=method, epochs=3)).history
        for method in (
            PLAIN,
            Smoothing(epsilon=-0.5, warmup_epochs=2),
            Smoothing(epsilon=-0.5),
        )
    )
    for epoch in (0, 1):
        assert warmed[epoch]["train_loss"] == pytest.approx(plain[epoch]["train_loss"], rel=1e-4)
        assert abs(scratch[epoch]["train_loss"] - plain[epoch]["train_loss"]) > 0.01
    assert warmed[2]["train_loss"] < warmed[2]["train_nll"] - 0.01


NOISE = {name: NoisyLabels(noise=name, rate=0.2) for name in ("symmetric", "asymmetric")}


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (methods.Focal(gamma=2.0), {}),
        (methods.MaxSup(weight=0.1), {}),
        (methods.OnlineSmoothing(alpha=0.5), {}),
        (methods.ZipfLS(weight=0.1), {}),
        (methods.LogitPenalty(beta=0.01), {}),
        (methods.MbLS(margin=0.5), {}),
        (methods.GeneralizedCE(q=0.7), {"labels": NOISE["symmetric"]}),
        (methods.Correction(direction="forward"), {"labels": NOISE["asymmetric"]}),
        (methods.Correction(direction="backward"), {"labels": NOISE["symmetric"]}),
        (methods.Mixup(alpha=0.4), {}),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_another_method_shares_all_but_the_loss(method, given):
    """Same first batch and weights, so the same NLL before the first step; then another way."""
    given |= {"sample": Balanced(train_size=100), "epochs": 1}
    found, again, plain = (
        left_by(spec(method=each, **given)).history for each in (method, method, PLAIN)
    )
    if method.kind != "mixup":
        assert found[0]["train_nll"] == plain[0]["train_nll"]
    assert found[0]["train_loss"] != plain[0]["train_loss"] and again == found


@pytest.mark.parametrize(
    ("constant", "scheduled"),
    [
        (methods.MaxSup(weight=0.1), methods.MaxSup(weight=0.1, final_weight=0.9)),
        (Smoothing(epsilon=-0.1), Smoothing(epsilon=-0.1, final_epsilon=0.5)),
    ],
    ids=["MaxSup", "smoothing"],
)
def test_a_schedule_changes_the_loss_from_the_second_epoch_on(constant, scheduled):
    ours, theirs = (left_by(spec(method=each)).history for each in (scheduled, constant))
    assert ours[0] == theirs[0]
    assert ours[1]["train_loss"] != pytest.approx(theirs[1]["train_loss"], abs=1e-3)


def test_online_labels_of_an_epoch_are_from_all_its_steps(monkeypatch):
    """Counted anew from the logits of every step."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    made: list[OnlineLabelSmoothing] = []

    class Watched(OnlineLabelSmoothing):
        def forward(self, logits, labels):
            seen.append((logits.detach().double().softmax(1), labels))
            return super().forward(logits, labels)

        def next_epoch(self):
            super().next_epoch()
            made.append(self)

    monkeypatch.setattr(methods.alternatives, "OnlineLabelSmoothing", Watched)
    found = left_by(spec(method=methods.OnlineSmoothing(alpha=0.25))).history
    assert len(seen) == 6 and len(made) == 1  # two epochs of three steps
    p, labels = (torch.cat(part) for part in zip(*seen[:3], strict=True))
    expected = torch.full((10, 10), 0.1, dtype=torch.float64)
    for k in range(10):
        if (rightly := (labels == k) & (p.argmax(1) == k)).any():
            expected[k] = p[rightly].mean(0)
    assert expected.std(0).max() > 0.01  # else nothing is tested
    torch.testing.assert_close(made[0].soft_labels, expected, rtol=1e-5, atol=1e-7)
    assert found[0]["train_loss"] == pytest.approx(0.25 * found[0]["train_nll"], rel=1e-5)
    p, labels = (torch.cat(part) for part in zip(*seen[3:], strict=True))
    soft = -(expected[labels] * p.log()).sum(1).mean().item()
    mixed = 0.25 * found[1]["train_nll"] + 0.75 * soft
    assert found[1]["train_loss"] == pytest.approx(mixed, rel=1e-5)


def test_mixed_images_have_mixed_labels():
    mix = methods.Mixup(alpha=1.0).mixer(100, None)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    mixed, shares = mix(images, labels)
    assert shares.shape == (8, 100) and torch.allclose(shares.sum(1), torch.ones(8))
    rolled = images.roll(1, 0)
    share = shares[torch.arange(8), labels][0]
    torch.testing.assert_close(mixed, share * images + (1 - share) * rolled)


def test_superclasses_label_the_very_same_images(dataset):
    given = dict(sample=Balanced(train_size=100))
    _, unseen, (images, labels, _), _ = material(spec(labels=Superclasses(), **given), dataset, CPU)
    fine = material(spec(**given), dataset, CPU).training
    assert torch.equal(images, fine.images) and unseen is None
    assert torch.equal(labels, torch.tensor(dataset.superclass)[fine.labels])


def test_a_long_tail_has_fewer_images_of_the_later_classes(dataset):
    tail = LongTail(train_size=300, imbalance=10)
    counts = material(spec(sample=tail), dataset, CPU).training.labels.bincount()
    assert counts.tolist() == data.long_tail_counts(30, 10, 10)


def test_without_smoothing_weights_on_terms_and_on_samples_are_the_same():
    tail = LongTail(train_size=300, imbalance=10)
    terms, samples = (
        [
            left_by(spec(sample=tail, epochs=1, method=method)).history[0]["train_loss"]
            for epsilon in (0.0, 0.3)
            for method in [WeightedSmoothing(epsilon=epsilon, weighting=weighting)]
        ]
        for weighting in ("terms", "samples")
    )
    assert terms[0] == pytest.approx(samples[0], rel=1e-3)
    assert terms[1] != pytest.approx(samples[1], rel=1e-2)


def test_a_student_learns_what_its_teacher_says():
    teacher = left_by(spec(epochs=6, method=PLAIN, seed=1))
    weights = {name: value.clone() for name, value in teacher.weights.items()}
    method = Distillation(teacher=teacher.run.spec, temperature=1.0)
    student = left_by(spec(epochs=6, method=method), networks=lambda _: weights)
    alone = left_by(spec(epochs=6, method=PLAIN))

    def distance(outcome) -> float:
        mine, theirs = (each.outputs["test_logits"].log_softmax(1) for each in (outcome, teacher))
        return F.kl_div(mine, theirs, log_target=True, reduction="batchmean").item()

    assert distance(student) < distance(alone)
    assert all(torch.equal(value, weights[name]) for name, value in teacher.weights.items())


def test_kept_weights_are_the_network_and_stay_when_it_is_used_again(dataset):
    first = left_by(spec())
    left_by(spec(seed=1))
    network = train.network_of(spec(), first.weights, CPU)
    assert torch.equal(evaluate(network, dataset.test.images)[0], first.outputs["test_logits"])
