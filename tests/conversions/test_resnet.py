"""torchvision's ResNet and timm's: two libraries, the same names, and nothing to map but what was left off."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from pairs import seeded
from torchvision.models.feature_extraction import create_feature_extractor

import ckptaudit
from ckptaudit.mapping.execute import map_state

STAGES = {f"layer{i}": f"layer{i}" for i in range(1, 5)}


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, dtype=torch.float64)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_the_checkpoint_of_either_loads_into_the_other_as_it_is(name, images, tmp_path):
    ours = seeded(lambda: getattr(torchvision.models, name)(num_classes=5), 1)
    theirs = seeded(lambda: timm.create_model(name, num_classes=5), 2)
    torch.save(ours.state_dict(), tmp_path / "torchvision.pth")
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    assert ckptaudit.diff(theirs, tmp_path / "torchvision.pth").ok
    assert ckptaudit.diff(ours, tmp_path / "timm.pth").ok
    with torch.no_grad():
        expected = ours(images)
        assert not torch.allclose(theirs(images), expected)
        theirs.load_state_dict(torch.load(tmp_path / "torchvision.pth"))
        # timm takes the mean over positions another way
        assert (theirs(images) - expected).abs().max() <= 1e-14 * expected.abs().max()


def test_the_feature_maps_of_timm_are_those_of_torchvision_bit_for_bit(images, tmp_path):
    """``features_only`` has no head: the one thing to leave out."""
    ours = seeded(lambda: torchvision.models.resnet18(num_classes=5), 1)
    theirs = seeded(lambda: timm.create_model("resnet18", features_only=True), 2)
    torch.save(ours.state_dict(), tmp_path / "torchvision.pth")
    assert not ckptaudit.diff(theirs, tmp_path / "torchvision.pth").ok
    assert ckptaudit.diff(theirs, tmp_path / "torchvision.pth", mapping="drop fc.*").ok
    state = torch.load(tmp_path / "torchvision.pth")
    theirs.load_state_dict(map_state(ckptaudit.KeyMapping.parse(["drop fc.*"]), state))
    with torch.no_grad():
        expected = create_feature_extractor(ours, {"relu": "relu", **STAGES})(images)
        found = theirs(images)
    assert len(found) == 5
    assert all(torch.equal(a, b) for a, b in zip(found, expected.values(), strict=True))
