"""The features that FID and KID compare: those of pyiqa for the same network, and weights by the policy."""

import imageio.v3 as iio
import pytest
import torch

from errors import UserError
from pretrained.set_features import INCEPTION_URL, SET_FEATURES, alexnet_statistics, inception_pool


@pytest.fixture(scope="module")
def inception():
    return inception_pool("random")


def test_inceptions_features_are_those_of_pyiqas_clean_fid(inception, tmp_path):
    from pyiqa.archs.fid_arch import get_folder_features

    images = torch.randint(0, 256, (2, 40, 52, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(images):
        iio.imwrite(tmp_path / f"{number}.png", image.numpy())
    options = {"num_workers": 0, "device": torch.device("cpu"), "verbose": False}
    theirs = torch.from_numpy(get_folder_features(str(tmp_path), inception.network, **options))
    ours = inception(images.permute(0, 3, 1, 2) / 255)
    assert ours.shape == (2, 2048) and ours.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_alexnets_statistics_are_means_and_deviations_of_its_layers():
    network, images = alexnet_statistics("random"), torch.rand(2, 3, 64, 48)
    features = network(images)
    first = network.network(images, ("relu1",))["relu1"]
    assert features.shape == (2, 2 * (64 + 192 + 384 + 256 + 256))
    torch.testing.assert_close(features[:, :64], first.mean((2, 3)))
    torch.testing.assert_close(features[:, 64:128], first.std((2, 3), correction=0))


@pytest.mark.parametrize("name", SET_FEATURES)
def test_networks_are_frozen_and_say_where_their_weights_are_from(name):
    network = SET_FEATURES[name]("random", seed=3)
    assert "random" in network.provenance and not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torchvision's former options, in pyiqa's constructor
def test_weights_are_read_from_the_cache(inception, tmp_path, monkeypatch):
    from pyiqa.archs import inception as published

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = {}
    monkeypatch.setattr(published, "load_pretrained_network", lambda network, url: found.update(network.state_dict()))
    published.fid_inception_v3()
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "pyiqa" / INCEPTION_URL.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    torch.save(found, path)
    network = inception_pool()
    assert "pt_inception-2015-12-05-6726825d.pth" in network.provenance
    weight = network.network.blocks[0][0].conv.weight
    assert torch.equal(weight, found["Conv2d_1a_3x3.conv.weight"])
    assert not torch.equal(weight, inception.network.blocks[0][0].conv.weight)
    torch.save({name: value for name, value in found.items() if "Mixed_7c" not in name}, path)
    with pytest.raises(UserError, match="does not hold the weights of this network: Mixed_7c"):
        inception_pool()
