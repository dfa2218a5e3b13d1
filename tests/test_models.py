import pytest
import torch

from lsce import models


@pytest.mark.parametrize("name", models.MODELS)
def test_forward_is_classifier_of_features(name):
    network = models.build(name, 100).eval()
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
    count = sum(p.numel() for p in models.build(name, 10).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_logits_are_float32_under_autocast():
    network = models.build("resnet6", 100)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(2, 3, 32, 32)).dtype == torch.float32


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="resnet9.*resnet6"):
        models.build("resnet9", 100)
