"""Every loss under every way PyTorch has of running a module other than eagerly."""

import contextlib
import copy
import functools
import os
import pickle
import subprocess
import sys

import pytest
import torch
from local_logits import WithLocalLogits
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from lsce.losses import LabelSmoothingCrossEntropy, alternatives, label_smoothing_cross_entropy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

C = 5
WEIGHTS = torch.tensor([1.0, 2.0, 0.0, 3.0, 0.5])
TRANSITION = 0.6 * torch.eye(C, dtype=torch.float64) + 0.1 * (1 - torch.eye(C))
OURS = {
    "indices": LabelSmoothingCrossEntropy(),
    "weighted": LabelSmoothingCrossEntropy(0.3, WEIGHTS, normalization="weights"),
    "mostly smoothed": LabelSmoothingCrossEntropy(0.97, WEIGHTS),
    "include-true": LabelSmoothingCrossEntropy(0.2, reduction="sum", convention="include-true"),
    "probabilities": LabelSmoothingCrossEntropy(0.2, WEIGHTS),
}
ALONE = LabelSmoothingCrossEntropy(reduction="none")
CASES = OURS | {
    "focal": alternatives.FocalLoss(2),
    "MaxSup": alternatives.MaxSup(0.1),
    "logit penalty": alternatives.LogitPenalty(0.1),
    "MbLS": alternatives.MbLS(1),
    "online smoothing": alternatives.OnlineLabelSmoothing(0.5, C).eval(),
    "Zipf-LS": WithLocalLogits(alternatives.ZipfLabelSmoothing(0.3), C),
    "generalized cross entropy": alternatives.GeneralizedCrossEntropy(0.7),
    "forward correction": alternatives.ForwardCorrection(TRANSITION),
    "backward correction": alternatives.BackwardCorrection(TRANSITION),
    "generalized smoothing": alternatives.GeneralizedLabelSmoothing(-0.5, "exclude-true"),
    "sample weights": alternatives.SampleWeighted(ALONE, WEIGHTS),
    "distillation": alternatives.Distillation(2.0),
}
CASES["online smoothing"].soft_labels.copy_(TRANSITION)
every_case = pytest.mark.parametrize("case", CASES)

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.compiler.reset()
    yield
    torch.set_num_threads(threads)


def make(case: str, n: int) -> Batch:
    """Logits, float64 (n, C), and targets; ours has an ignored sample among its indices."""
    logits = 2 * torch.randn(n, C, dtype=torch.float64)
    if case in ("probabilities", "distillation"):
        return logits, torch.randn(n, C, dtype=torch.float64).softmax(1)
    targets = torch.randint(C, (n,))
    if case in OURS:
        targets[-1] = -100
    return logits, targets


def eager(run, logits, targets):
    """Value and gradient of anything that is called as a loss is."""
    logits = logits.clone().requires_grad_()
    value = run(logits, targets)
    value.backward()
    return value.detach(), logits.grad


# Each takes a loss, a batch to trace with and another batch, on which it runs what was traced, and
# returns value and gradient; None where there is none. STATIC ones run the batch they traced.


def compiled(loss, example, batch, backend="aot_eager", **options):
    run = torch.compile(loss, fullgraph=True, backend=backend, **options)
    eager(run, *example)
    return eager(run, *batch)


def compiled_by_inductor(loss, example, batch):
    return compiled(loss, example, batch, backend="inductor")


def compiled_for_any_shape(loss, example, batch):
    return compiled(loss, example, batch, dynamic=True)


def marked_dynamic(loss, example, batch):
    for tensor in example:
        torch._dynamo.mark_dynamic(tensor, 0)
    run = torch.compile(loss, fullgraph=True, backend="aot_eager")
    run(*example)
    with torch.compiler.set_stance("fail_on_recompile"):
        return run(*batch), None


def exported(loss, example, batch):
    return eager(torch.export.export(loss, example).module(), *batch)


def exported_for_any_batch(loss, example, batch):
    n = torch.export.Dim("n")
    run = torch.export.export(loss, example, dynamic_shapes=({0: n}, {0: n})).module()
    return eager(run, *batch)


def traced_by_jit(loss, example, batch):
    return eager(torch.jit.trace(loss, example), *batch)


def trace(function, mode):
    return make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)  # the buffers


def traced_by_make_fx(mode):
    return lambda loss, example, batch: eager(trace(loss, mode)(*example), *batch)


def gradient_traced_by_make_fx(loss, example, batch):
    run = trace(torch.func.grad_and_value(loss), "symbolic")(*example)
    return run(*batch)[::-1]


def grad_and_value(loss, example, batch):
    return torch.func.grad_and_value(loss)(*batch)[::-1]


def vjp(loss, example, batch):
    value, pull = torch.func.vjp(lambda logits: loss(logits, batch[1]), batch[0])
    return value, pull(torch.ones_like(value))[0]


def jacrev(loss, example, batch):
    return loss(*batch), torch.func.jacrev(loss)(*batch)


def jacfwd(loss, example, batch):
    return loss(*batch), torch.func.jacfwd(loss)(*batch)


def vmapped(loss, example, batch):
    return eager(lambda *tensors: torch.vmap(loss)(*(t[None] for t in tensors)).sum(), *batch)


def forward_mode(loss, example, batch):
    logits, targets = batch
    gradient = torch.empty_like(logits)
    for i in range(logits.numel()):
        direction = torch.zeros_like(logits)
        direction.view(-1)[i] = 1
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(logits, direction)
            value, gradient.view(-1)[i] = forward_ad.unpack_dual(loss(dual, targets))
    return value, gradient


def checkpointed(use_reentrant):
    return lambda loss, example, batch: eager(
        lambda *tensors: checkpoint(loss, *tensors, use_reentrant=use_reentrant), *batch
    )


def called_with_buffers(loss, example, batch):
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    return eager(lambda *tensors: functional_call(loss, buffers, tensors), *batch)


def copied(loss, example, batch):
    return eager(copy.deepcopy(loss), *batch)


def pickled(loss, example, batch):
    return eager(pickle.loads(pickle.dumps(loss)), *batch)


def saved_on_cpu(loss, example, batch):
    with save_on_cpu():
        return eager(loss, *batch)


def autocast(loss, example, batch):
    with torch.autocast("cpu", torch.bfloat16):
        return eager(loss, *batch)


def inference_mode(loss, example, batch):
    with torch.inference_mode():
        return loss(*batch).clone(), None


def default_device_meta(loss, example, batch):
    with torch.device("meta"):
        return eager(loss, *batch)


TRANSFORMATIONS = {
    "compile": compiled,
    "compile, dynamic": compiled_for_any_shape,
    "compile, mark_dynamic": marked_dynamic,
    "export": exported,
    "export, dynamic": exported_for_any_batch,
    "jit.trace": traced_by_jit,
    "make_fx, real": traced_by_make_fx("real"),
    "make_fx, fake": traced_by_make_fx("fake"),
    "make_fx, symbolic": traced_by_make_fx("symbolic"),
    "make_fx of the gradient": gradient_traced_by_make_fx,
    "func.grad": grad_and_value,
    "func.vjp": vjp,
    "func.jacrev": jacrev,
    "func.jacfwd": jacfwd,
    "vmap": vmapped,
    "forward mode": forward_mode,
    "checkpoint": checkpointed(use_reentrant=False),
    "checkpoint, reentrant": checkpointed(use_reentrant=True),
    "functional_call": called_with_buffers,
    "deepcopy": copied,
    "pickle": pickled,
    "save_on_cpu": saved_on_cpu,
    "autocast": autocast,
    "inference_mode": inference_mode,
    "default device meta": default_device_meta,
}
STATIC = ("export", "make_fx, real", "make_fx, fake")


def check(transform, case, static=False):
    loss, batch = CASES[case], make(case, 6)
    example = batch if static else make(case, 4)
    value, gradient = transform(loss, example, batch)
    expected = eager(loss, *batch)
    torch.testing.assert_close(value, expected[0])
    if gradient is not None:
        torch.testing.assert_close(gradient, expected[1])


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@every_case
def test_as_eager(case, transformation):
    check(TRANSFORMATIONS[transformation], case, transformation in STATIC)


@pytest.mark.parametrize("case", ["weighted", "mostly smoothed", "probabilities"])
def test_compiled_by_inductor_as_eager(case):
    check(compiled_by_inductor, case)


@every_case
def test_hessian(case):
    logits, targets = make(case, 2)
    hessian = torch.func.hessian(CASES[case])(logits, targets)
    expected = torch.autograd.functional.hessian(lambda z: CASES[case](z, targets), logits)
    torch.testing.assert_close(hessian, expected)


@every_case
def test_fake_tensors_stay_fake(case):
    mode = FakeTensorMode()
    logits, targets = (mode.from_tensor(tensor) for tensor in make(case, 4))
    buffers = {name: mode.from_tensor(buffer) for name, buffer in CASES[case].named_buffers()}
    logits.requires_grad_()
    for context in (mode, contextlib.nullcontext()):
        with context:
            value = functional_call(CASES[case], buffers, (logits, targets))
        assert isinstance(value, FakeTensor)
        assert value.shape == () and value.dtype == torch.float64
        # The derivative of PyTorch's own power needs the mode.
        with mode if case == "focal" else context:
            (gradient,) = torch.autograd.grad(value, logits)
        assert isinstance(gradient, FakeTensor) and gradient.shape == logits.shape


@every_case
def test_meta_tensors(case):
    loss = copy.deepcopy(CASES[case]).to("meta")
    logits, targets = (tensor.to("meta") for tensor in make(case, 4))
    value, gradient = eager(loss, logits, targets)
    assert value.is_meta and value.shape == () and gradient.shape == logits.shape


def test_jit_script_refuses():
    with pytest.raises((RuntimeError, torch.jit.frontend.FrontendError)):
        torch.jit.script(LabelSmoothingCrossEntropy())


# --- weights where there are no values ------------------------------------------------------


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], torch.ones(3)], ids=["list", "tensor"])
def test_weights_of_fake_and_meta_tensors(weights):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        loss = LabelSmoothingCrossEntropy(class_weights=weights)
        assert loss(torch.randn(2, 3), torch.rand(2, 3)).shape == ()
        assert loss(torch.randn(2, 3), torch.tensor([0, 1])).shape == ()
    fake = mode.from_tensor(torch.ones(3))
    assert LabelSmoothingCrossEntropy(class_weights=fake).class_weights is fake
    meta = torch.ones(3, device="meta")
    assert LabelSmoothingCrossEntropy(class_weights=meta).class_weights is meta


def test_weights_follow_the_default_device():
    logits, targets = torch.randn(2, 3), torch.tensor([0, 1])
    expected = label_smoothing_cross_entropy(logits, targets, 0.1, [1, 2, 3])
    with torch.device("meta"):
        assert LabelSmoothingCrossEntropy(class_weights=[1, 2, 3]).class_weights.is_meta
        with pytest.raises(ValueError, match="class_weights must be finite"):
            LabelSmoothingCrossEntropy(class_weights=[1, -2, 3])
        assert label_smoothing_cross_entropy(logits, targets, 0.1, [1, 2, 3]) == expected


# --- ε changed between calls ----------------------------------------------------------------


def one_criterion(epsilons, **options):
    criterion = LabelSmoothingCrossEntropy()
    run = torch.compile(criterion, **options)
    for epsilon in epsilons:
        criterion.label_smoothing = epsilon
        yield run


def fresh_criteria(epsilons, **options):
    return (torch.compile(LabelSmoothingCrossEntropy(e), **options) for e in epsilons)


def functional(epsilons, **options):
    run = torch.compile(label_smoothing_cross_entropy, **options)
    return (functools.partial(run, label_smoothing=epsilon) for epsilon in epsilons)


def check_epsilons(runs, kind, epsilons, **options):
    preds = torch.tensor([[2.0, 1.0, 0.1], [1.5, 2.5, 0.3]])
    targets = torch.tensor([0, 1])
    if kind == "probabilities":
        targets = torch.eye(3)[targets]
    found = [eager(run, preds, targets) for run in runs(epsilons, **options)]
    plain = [eager(LabelSmoothingCrossEntropy(epsilon), preds, targets) for epsilon in epsilons]
    torch.testing.assert_close(found, plain)
    return [value.item() for value, _ in found]


@pytest.mark.parametrize(
    ("runs", "kind", "dynamic"),
    [
        (one_criterion, "indices", None),
        (one_criterion, "probabilities", None),
        (fresh_criteria, "indices", None),
        (functional, "indices", True),
    ],
)
def test_inductor_sees_another_epsilon(runs, kind, dynamic):
    found = check_epsilons(runs, kind, (0.1, 0.2, 0.3, 0.4), dynamic=dynamic)
    assert found == pytest.approx([0.5566, 0.7091, 0.8616, 1.0141], abs=5e-5)


@pytest.mark.parametrize("runs", [one_criterion, fresh_criteria, functional])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_compiled_with_every_epsilon(runs, kind):
    epsilons = (0.1, 0.2, 0.3, 0, 1, 0.97, 0.98)
    check_epsilons(runs, kind, epsilons, fullgraph=True, backend="aot_eager")


SECOND_PROCESS = """
import torch
from lsce.losses import LabelSmoothingCrossEntropy

criterion = LabelSmoothingCrossEntropy()
run = torch.compile(criterion)
preds, targets = torch.tensor([[2.0, 1.0, 0.1], [1.5, 2.5, 0.3]]), torch.tensor([0, 1])
for epsilon in {epsilons}:
    criterion.label_smoothing = epsilon
    print(run(preds, targets).item(), criterion(preds, targets).item())
"""


def test_compiled_with_the_cache_of_another_process(tmp_path):
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    for epsilons in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)):
        script = SECOND_PROCESS.format(epsilons=epsilons)
        command = [sys.executable, "-c", script]
        printed = subprocess.run(command, env=environment, text=True, stdout=-1, check=True).stdout
        for line in printed.splitlines():
            found, expected = map(float, line.split())
            assert found == pytest.approx(expected)
    assert any(tmp_path.iterdir())


@every_case
def test_vmap_of_batches(case):
    batches = [make(case, 4) for _ in range(3)]
    logits, targets = (torch.stack(tensors) for tensors in zip(*batches, strict=True))
    expected = torch.stack([CASES[case](*batch) for batch in batches])
    torch.testing.assert_close(torch.vmap(CASES[case])(logits, targets), expected)


def test_vmap_over_weights():
    logits, targets = make("weighted", 4)
    weights = torch.rand(3, C, dtype=torch.float64)

    def loss(weights):
        return functional_call(CASES["weighted"], {"class_weights": weights}, (logits, targets))

    expected = torch.stack([loss(each) for each in weights])
    torch.testing.assert_close(torch.vmap(loss)(weights), expected)
