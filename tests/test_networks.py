import pytest
import torch

from lsce.training import networks


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_forward_is_classifier_of_features(name):
    network = networks.build(name, 100).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, network.classifier.in_features)
        torch.testing.assert_close(network.classifier(features), network(images))


@pytest.mark.parametrize(
    ("name", "millions"),
    # For 10 classes: He et al. 2016, table 6; the usual CIFAR form; Zhang et al. 2017, table 1.
    [("resnet56", 0.85), ("resnet18", 11.17), ("inception-small", 1.65)],
)
def test_parameters_are_those_of_the_published_networks(name, millions):
    count = sum(p.numel() for p in networks.build(name, 10).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_local_logits_are_those_of_each_position_and_their_mean_is_the_logits():
    network, images = networks.build("resnet6", 7).eval(), torch.rand(2, 3, 32, 32)
    logits, local = network(images, True)
    assert local.shape == (2, 7, 2, 2) and not local.requires_grad
    assert torch.equal(logits, network(images))
    torch.testing.assert_close(local.mean(dim=(2, 3)), logits)
    with torch.autocast("cpu", torch.bfloat16):
        assert {each.dtype for each in network(images, True)} == {torch.float32}


def test_logits_are_float32_under_autocast():
    network = networks.build("resnet6", 100)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(2, 3, 32, 32)).dtype == torch.float32


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="resnet9.*resnet6"):
        networks.build("resnet9", 100)


def test_a_whitening_layer_makes_channels_uncorrelated_and_of_equal_variance():
    torch.manual_seed(0)
    # Neighbouring pixels are alike, as those of photographs are.
    images = torch.nn.functional.interpolate(torch.rand(400, 3, 8, 8), size=32, mode="bilinear")
    network = networks.build("resnet8", 100)
    layer = network.body[0]
    assert isinstance(layer, networks.Whitening) and not list(layer.parameters())
    before = layer.weight.clone()
    network.fit_whitening(images)
    assert not torch.equal(layer.weight, before)
    channels = layer((images - 0.5) * 4)[:, :32, 1:-1, 1:-1].transpose(0, 1).flatten(1)
    correlation = channels.corrcoef()
    strong = channels.var(1) > 0.9  # of components that vary more than what is added to them
    assert strong.sum() > 8
    assert (correlation - torch.eye(32))[strong][:, strong].abs().max() < 0.1
    assert channels.var(1)[strong].max() < 1.1


def test_a_network_without_a_fixed_layer_is_left_alone():
    network = networks.build("resnet6", 100)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.fit_whitening(torch.rand(8, 3, 32, 32))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
