import contextlib
import math
import shutil

import pytest
import torch
from flat import flat, outcome_of
from torch.nn import functional as F

from lsce import data
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.training import methods, networks, precision, step, train
from lsce.training.batches import Augmenter, evaluate
from lsce.training.methods import Distillation, Smoothing, WeightedSmoothing
from lsce.training.spec import Recipe
from lsce.training.step import Trainer, make_optimizer, one_cycle
from lsce.training.train import material


@pytest.fixture(scope="module")
def dataset():
    return data.load("built-in")


@pytest.fixture(scope="module")
def outcome(dataset):
    return outcome_of(flat(keep=("features",)), dataset)


def test_same_seed_same_bits(dataset, outcome):
    again = outcome_of(flat(keep=("features",)), dataset)
    assert again.history == outcome.history
    for name, tensor in outcome.outputs.items():
        assert torch.equal(tensor, again.outputs[name])
    other = outcome_of(flat(seed=1), dataset)
    assert not torch.equal(other.outputs["test_logits"], outcome.outputs["test_logits"])


def test_an_outcome_has_what_a_record_promises(outcome):
    assert outcome.run.status == "completed"
    assert [row["epoch"] for row in outcome.history] == [1, 2]
    assert outcome.outputs["test_logits"].shape == (10_000, 100)
    assert outcome.outputs["validation_logits"].shape == (5_000, 100)
    assert outcome.tensors["features"]["train_features"].shape == (300, 128)
    assert outcome.tensors["features"]["train_labels"].bincount().tolist() == [3] * 100
    rebuilt = F.linear(
        outcome.tensors["features"]["test_features"],
        outcome.tensors["features"]["classifier_weight"],
        outcome.tensors["features"]["classifier_bias"],
    )
    torch.testing.assert_close(rebuilt, outcome.outputs["test_logits"])
    assert outcome.final["temperature"] > 0


def test_reported_losses_are_hard_label_nll(dataset, outcome, monkeypatch):
    """Never the training criterion: shifted by 100, it shifts the training loss alone."""

    class Shifted(LabelSmoothingCrossEntropy):
        def forward(self, preds, targets):
            return super().forward(preds, targets) + 100

    monkeypatch.setattr(methods, "LabelSmoothingCrossEntropy", Shifted)
    found = outcome_of(flat(), dataset)
    for row, plain in zip(found.history, outcome.history, strict=True):
        assert row.pop("train_loss") == pytest.approx(plain["train_loss"] + 100, abs=1e-3)
        assert row == {name: plain[name] for name in row}
    assert found.final == {name: outcome.final[name] for name in found.final}
    logits, labels = found.outputs["test_logits"], found.outputs["test_labels"]
    nll = F.cross_entropy(logits.double(), labels).item()
    assert found.final["test_nll"] == pytest.approx(nll, abs=1e-12)
    assert found.final["test_accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_without_smoothing_the_criterion_is_the_nll(dataset):
    row = outcome_of(flat(epsilon=0.0, epochs=1), dataset).history[0]
    assert row["train_loss"] == pytest.approx(row["train_nll"], abs=1e-5)


def test_a_run_that_diverges_ends_and_says_so(dataset):
    wild = flat(epochs=5, recipe=Recipe(batch_size=100, peak_learning_rate=1e30))
    found = outcome_of(wild, dataset)
    assert found.run.status == "diverged"
    assert len(found.history) < 5
    assert found.outputs == {} and found.final == {}


def test_other_data_than_the_spec_names_are_refused(dataset):
    with pytest.raises(ValueError, match="wants data abc"):
        outcome_of(flat(data_checksum="abc"), dataset)


def test_noise_is_on_training_and_validation_labels_and_not_on_test(dataset):
    noisy = flat(noise="symmetric", rate=0.5)
    cpu = torch.device("cpu")
    (_, labels, truth), (_, validation, right) = material(noisy, dataset, cpu)[2:]
    (_, clean, same_truth), (_, same_right, _) = material(flat(), dataset, cpu)[2:]
    assert torch.equal(truth, same_truth) and torch.equal(clean, truth)
    assert torch.equal(right, dataset.validation.labels) and torch.equal(right, same_right)
    assert 0.4 < (labels != truth).double().mean() < 0.6
    assert 0.45 < (validation != right).double().mean() < 0.55
    found = outcome_of(noisy, dataset)
    assert torch.equal(found.outputs["test_labels"], dataset.test.labels)
    assert torch.equal(found.outputs["validation_labels"], validation)


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


def test_weight_decay_spares_biases_and_normalisation():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = make_optimizer(network, Recipe(), torch.tensor(0.1))
    decayed, spared = optimizer.param_groups
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


def test_threads_are_given_back(dataset):
    before = torch.get_num_threads()
    outcome_of(flat(epochs=1), dataset)
    assert torch.get_num_threads() == before


def test_a_run_that_ends_leaves_the_others_their_one_thread():
    before, cpu = torch.get_num_threads(), torch.device("cpu")
    torch.set_num_threads(2)
    try:
        with contextlib.ExitStack() as longer:
            with train.one_thread(cpu):
                longer.enter_context(train.one_thread(cpu))
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_trainer_used_before_gives_the_same_bits(dataset, outcome):
    outcome_of(flat(seed=5, epsilon=0.3), dataset)
    again = outcome_of(flat(), dataset)
    assert torch.equal(again.outputs["test_logits"], outcome.outputs["test_logits"])


PUBLISHED = {"milestones": (0.4, 0.8), "loss_factor": 3.0, "clip_norm": 0.5}


@pytest.mark.parametrize("special", [{}, PUBLISHED], ids=["one-cycle", "published"])
def test_the_step_is_sgd_with_the_scheduled_rate(special, monkeypatch):
    """Against a loop of PyTorch's own parts, on a network without a second thought."""
    monkeypatch.setattr(precision, "of", lambda *_: "float32")
    steps, recipe = 5, Recipe(batch_size=20, **special)
    device = torch.device("cpu")
    batches = [(torch.rand(20, 3, 32, 32), torch.randint(0, 10, (20,))) for _ in range(steps)]
    trainer = Trainer("resnet6", 10, device)
    trainer.begin(recipe, F.cross_entropy, steps=steps, batch_size=20, pixels=32, seed=3)
    trainer.network.train()
    for images, labels in batches:
        trainer.step(images, labels)

    torch.manual_seed(3)
    plain = networks.build("resnet6", 10).to(memory_format=torch.channels_last)
    decays = [5e-4 if p.ndim > 1 else 0.0 for p in plain.parameters()]
    groups = [
        {"params": [p], "weight_decay": decay}
        for p, decay in zip(plain.parameters(), decays, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    rates = [0.3 * one_cycle(step, steps, 0.25) for step in range(steps)]
    if special:
        rates = [0.3, 0.3, 0.03, 0.03, 0.003]
    for rate, (images, labels) in zip(rates, batches, strict=True):
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_is_reused_by_every_run_of_its_shape():
    device, recipe = torch.device("cpu"), Recipe(batch_size=20)
    images, labels = torch.rand(20, 3, 32, 32), torch.randint(0, 10, (20,))
    images = images.to(memory_format=torch.channels_last)  # as batches are
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # other tests compile too, in this process
    counters = torch._dynamo.utils.counters["stats"]

    def losses(trainer: Trainer, epsilon: float, seed: int) -> torch.Tensor:
        criterion = LabelSmoothingCrossEntropy(epsilon)
        trainer.begin(recipe, criterion, steps=4, batch_size=20, pixels=32, seed=seed)
        trainer.network.train()
        for _ in range(2):
            trainer.step(images, labels)
        return trainer.totals.clone()

    fast, plain = (Trainer("resnet6", 10, device, compiled=c) for c in (True, False))
    for epsilon, seed in ((0.0, 0), (0.1, 1)):
        torch.testing.assert_close(
            losses(fast, epsilon, seed), losses(plain, epsilon, seed), rtol=2e-2, atol=2e-2
        )
        assert counters["unique_graphs"] == 1


def losses_of(trainer: Trainer, recipe: Recipe, steps: int = 4) -> list[float]:
    torch.manual_seed(5)
    images, labels = torch.rand(steps, 20, 3, 32, 32), torch.randint(0, 10, (steps, 20))
    trainer.begin(
        recipe, LabelSmoothingCrossEntropy(0.1), steps=steps, batch_size=20, pixels=32, seed=1
    )
    trainer.network.train()
    found = []
    for batch in zip(images, labels, strict=True):
        trainer.totals.zero_()
        trainer.step(*batch)
        found.append(trainer.totals[0].item())
    return found


def test_training_goes_on_where_compiling_and_capturing_fail(monkeypatch):
    device, recipe = torch.device("cpu"), Recipe(batch_size=20)
    plain = Trainer("resnet6", 10, device)
    assert (plain.mode, plain.fallbacks) == ("eager", [])

    def broken(images):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda network, **_: broken)
    with pytest.warns(RuntimeWarning, match="goes on uncompiled, and slower: RuntimeError: no co"):
        other = Trainer("resnet6", 10, device, compiled=True, captured=True)
        losses = losses_of(other, recipe)
    # Without CUDA there is nothing to capture with, either.
    compiling, capturing = other.fallbacks
    assert compiling == "uncompiled: RuntimeError: no compiler"
    assert capturing.startswith("without a captured step: ")
    assert other.mode == "eager" and losses == losses_of(plain, recipe)
    assert len(other.fallbacks) == 2
    losses_of(other, recipe)
    assert len(other.fallbacks) == 2  # the next run does not try again


def test_early_steps_are_on_smaller_images():
    recipe = Recipe(batch_size=20, early_resolution=(0.5, 16))
    trainer, seen = Trainer("resnet6", 10, torch.device("cpu")), []
    trainer.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    losses_of(trainer, recipe, steps=5)
    assert seen == [16, 16, 16, 32, 32]


def test_without_augmentation_images_are_only_shuffled(dataset):
    images, labels = dataset.train.images[:200], dataset.train.labels[:200]
    plain = Augmenter(images, labels, 50, seed=0, augment=False)
    first, second = (torch.cat([batch for batch, _ in plain.epoch()]) for _ in range(2))
    as_they_are = images.permute(0, 3, 1, 2).float() / 255
    for epoch in (first, second):
        found = (epoch[:, None, 0, 0, :8] - as_they_are[None, :, 0, 0, :8]).abs().amax(2) < 1e-6
        assert found.any(1).all()
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten().sort().values, second.flatten().sort().values)


def test_a_run_s_fixed_first_layer_is_set_from_its_images(dataset):
    def filters(**changes):
        kept = flat(network="resnet8-half", epochs=1, keep=("weights",), **changes)
        return outcome_of(kept, dataset).tensors["weights"]["body.0.weight"]

    first = filters(seed=0)
    assert torch.equal(first[:16], -first[16:])
    assert torch.equal(first, filters(seed=0, epsilon=0.5))
    assert not torch.equal(first, filters(seed=1))  # another subset of the images


def test_a_run_says_how_its_steps_were_done_and_what_they_took(outcome):
    assert outcome.run.origin["step"] == {"mode": "eager", "fallbacks": []}
    assert set(outcome.run.origin["seconds"]) == {"training", "core"}


# ---- what other studies ask of a run ----


def test_what_is_measured_beside_does_not_change_the_run(dataset, outcome):
    """`outcome` keeps features alone."""
    found = outcome_of(flat(keep=("features", "information", "selected")), dataset)
    for row, plain in zip(found.history, outcome.history, strict=True):
        assert {name: row[name] for name in plain} == plain
        assert 0 < row["information_similar"] < math.log(300)
    assert found.final["test_nll"] == outcome.final["test_nll"]
    assert found.final["nc1"] == outcome.final["nc1"] > 0
    assert 0.05 < found.final["superclass_probe"] < 1


def test_the_selected_epoch_is_that_of_the_best_validation_accuracy(dataset):
    wanted = flat(epochs=4, recipe=Recipe(batch_size=100, milestones=(0.5,)), keep=("selected",))
    found = outcome_of(wanted, dataset)
    accuracies = [row["validation_accuracy"] for row in found.history]
    best = accuracies.index(max(accuracies)) + 1
    assert found.final["selected_epoch"] == best
    assert found.final["selected_validation_accuracy"] >= max(accuracies) - 0.1
    # The schedule knows only steps: the run cut off at that epoch had the same weights there.
    milestones = tuple(m for m in (0.5 * 4 / best,) if m < 1)
    short = flat(epochs=best, recipe=Recipe(batch_size=100, milestones=milestones))
    again = outcome_of(short, dataset).final
    names = ("nll", "ece", "top1_error")
    assert {n: again[n] for n in names} == {n: found.final[f"{n}_selected"] for n in names}


def test_wrong_labels_that_are_learned_are_memorised(dataset):
    wanted = flat(
        train_size=200,
        epochs=60,
        noise="symmetric",
        rate=0.5,
        epsilon=0.0,
        recipe=Recipe(batch_size=50, weight_decay=0.0),
    )
    rows = outcome_of(wanted, dataset).history
    assert rows[0]["memorised"] < 0.1
    assert rows[-1]["memorised"] > 0.8 and rows[-1]["recovered"] < 0.1


def test_classes_left_out_are_never_seen(dataset):
    wanted = flat(classes=80, train_size=240, monitor_size=80, keep=("features",))
    found = outcome_of(wanted, dataset)
    assert found.outputs["test_logits"].shape == (8_000, 80)
    seen, unseen = material(wanted, dataset, torch.device("cpu"))[:2]
    assert set(seen.classes) | set(unseen.classes) == set(dataset.classes)
    assert len(seen.classes) == 80 and len(unseen.test) == 2_000
    assert seen.train.labels.unique().tolist() == list(range(80))
    assert 1 / 20 < found.final["unseen_probe"] < 1 and "superclass_probe" not in found.final


def test_a_warm_up_is_plain_cross_entropy(dataset):
    plain = outcome_of(flat(epsilon=0.0, epochs=3), dataset).history
    warmed = outcome_of(
        flat(method=Smoothing(epsilon=-0.5, warmup_epochs=2), epochs=3), dataset
    ).history
    scratch = outcome_of(flat(epsilon=-0.5, epochs=3), dataset).history
    for epoch in (0, 1):
        assert warmed[epoch]["train_loss"] == pytest.approx(plain[epoch]["train_loss"], rel=1e-4)
        assert abs(scratch[epoch]["train_loss"] - plain[epoch]["train_loss"]) > 0.01
    assert warmed[2]["train_loss"] < warmed[2]["train_nll"] - 0.01


@pytest.mark.parametrize(
    ("method", "noise"),
    [
        (methods.Focal(gamma=2.0), {}),
        (methods.MaxSup(weight=0.1), {}),
        (methods.GeneralizedCE(q=0.7), {"noise": "symmetric", "rate": 0.2}),
        (methods.Correction(direction="forward"), {"noise": "asymmetric", "rate": 0.4}),
        (methods.Correction(direction="backward"), {"noise": "symmetric", "rate": 0.2}),
        (methods.Mixup(alpha=0.4), {}),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_another_method_shares_all_but_the_loss(dataset, method, noise):
    """Same first batch and weights, so the same NLL before the first step; then another way."""
    given = {"train_size": 100, "epochs": 1} | noise
    found = outcome_of(flat(**given, method=method), dataset).history[0]
    plain = outcome_of(flat(**given, epsilon=0.0), dataset).history[0]
    if not isinstance(method, methods.Mixup):
        assert found["train_nll"] == plain["train_nll"]
    assert found["train_loss"] != plain["train_loss"]
    assert outcome_of(flat(**given, method=method), dataset).history[0] == found


def test_mixed_images_have_mixed_labels():
    mix = methods.Mixup(alpha=1.0).mixer(100, None)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    mixed, shares = mix(images, labels)
    assert shares.shape == (8, 100) and torch.allclose(shares.sum(1), torch.ones(8))
    rolled = images.roll(1, 0)
    share = shares[torch.arange(8), labels][0]
    torch.testing.assert_close(mixed, share * images + (1 - share) * rolled)


def test_superclasses_label_the_very_same_images(dataset):
    wanted = flat(superclasses=True)
    _, unseen, (images, labels, _), _ = material(wanted, dataset, torch.device("cpu"))
    fine = data.subset(dataset.train.labels, 300, seed=0)
    assert torch.equal(images, dataset.train.images[fine]) and unseen is None
    assert torch.equal(labels, torch.tensor(dataset.superclass)[dataset.train.labels[fine]])
    found = outcome_of(wanted, dataset)
    assert found.outputs["test_logits"].shape == (10_000, 20)
    assert found.outputs["test_labels"].bincount().tolist() == [500] * 20


def test_a_long_tail_is_trained_on_and_measured(dataset):
    wanted = flat(train_size=3_000, imbalance=10, epsilon=0.0)
    labels = material(wanted, dataset, torch.device("cpu")).training.labels
    assert labels.bincount().tolist() == data.long_tail_counts(30, 100, 10)
    found = outcome_of(wanted, dataset).final
    assert {"medium_accuracy", "few_accuracy", "rare_elsewhere"} <= set(found)
    assert "many_accuracy" not in found  # no class has more than 100 images


def test_without_smoothing_weights_on_terms_and_on_samples_are_the_same(dataset):
    fields = dict(train_size=3_000, imbalance=10, epochs=1)
    losses = {
        (weighting, epsilon): outcome_of(
            flat(**fields, method=WeightedSmoothing(epsilon=epsilon, weighting=weighting)),
            dataset,
        ).history[0]["train_loss"]
        for weighting in ("terms", "samples")
        for epsilon in (0.0, 0.3)
    }
    assert losses["terms", 0.0] == pytest.approx(losses["samples", 0.0], rel=1e-3)
    assert losses["terms", 0.3] != pytest.approx(losses["samples", 0.3], rel=1e-2)


def test_a_student_learns_what_its_teacher_says(dataset):
    teacher = flat(epochs=6, epsilon=0.0, seed=1, keep=("weights",))
    taught = outcome_of(teacher, dataset)
    weights = {name: value.clone() for name, value in taught.tensors["weights"].items()}
    student = flat(epochs=6, method=Distillation(teacher=teacher, temperature=1.0))
    found = outcome_of(student, dataset, networks=lambda _: weights)
    alone = outcome_of(flat(epochs=6, epsilon=0.0), dataset)

    def distance(outcome):
        theirs = taught.outputs["test_logits"].log_softmax(1)
        mine = outcome.outputs["test_logits"].log_softmax(1)
        return F.kl_div(mine, theirs, log_target=True, reduction="batchmean").item()

    assert distance(found) < distance(alone)
    assert 0 < found.final["smoothness"] < 1
    for name, value in taught.tensors["weights"].items():
        assert torch.equal(value, weights[name])  # the teacher itself is not trained


def test_kept_weights_are_the_network_and_stay_when_it_is_used_again(dataset):
    first = outcome_of(flat(keep=("weights",)), dataset)
    outcome_of(flat(seed=1), dataset)
    network = train.network_of(flat(), first.tensors["weights"], torch.device("cpu"))
    logits = evaluate(network, dataset.test.images)[0]
    assert torch.equal(logits, first.outputs["test_logits"])


def test_images_of_classes_never_seen_are_told_apart(dataset):
    wanted = flat(classes=80, train_size=240, monitor_size=80, keep=("unseen",))
    assert 0.3 < outcome_of(wanted, dataset).final["unseen_auroc"] < 1


def test_no_network_is_drawn_while_another_thread_draws_its_own(monkeypatch):
    """Threads share the generator: a network that is drawn in between would change a run."""
    build, locked = networks.build, []

    def watched(*arguments):
        locked.append(step._one_at_a_time.locked())
        return build(*arguments)

    monkeypatch.setattr(networks, "build", watched)
    cpu = torch.device("cpu")
    one = Trainer("resnet6", 100, cpu)
    one.begin(Recipe(), torch.nn.CrossEntropyLoss(), steps=1, batch_size=2, pixels=32, seed=0)
    train.network_of(flat(), one.network.state_dict(), cpu)
    assert locked == [True] * 3
