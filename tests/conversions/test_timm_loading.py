"""Other input channels and image sizes: the same bits as timm's own loading of pretrained weights makes of a file."""

from __future__ import annotations

import pytest
import timm
import torch
from pairs import MAPPINGS

import ckptaudit
from ckptaudit.mapping.execute import map_state


def pretrained(name, **options):
    """Build a model of random weights as if they were trained."""
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **options).eval()


def loaded_by_timm(name, path, **options):
    """Let timm load the file as its pretrained weights, filters and adaptation included."""
    return timm.create_model(
        name, num_classes=5, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **options
    ).eval()


CASES = {
    "rgb-to-grey": ("resnet18", {}, {"in_chans": 1}, (2, 1, 64, 64), "conv1.weight"),
    "vit-224-to-384": ("vit_tiny_patch16_224", {}, {"img_size": 384}, (1, 3, 384, 384), "pos_embed"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mapping_makes_what_timm_makes(case, tmp_path):
    name, options, changes, shape, changed = CASES[case]
    path = tmp_path / "pretrained.pth"
    torch.save(pretrained(name, **options).state_dict(), path)
    expected = loaded_by_timm(name, path, **changes)
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=5, **changes).eval()
    as_is = ckptaudit.diff(model, path)
    assert [graded.finding.rule.code for graded in as_is.findings if graded.level == "error"] == ["CKPT201"]
    assert as_is.findings[0].finding.keys == (changed,)
    mapped = ckptaudit.diff(model, path, mapping=MAPPINGS / f"{case}.toml")
    assert mapped.ok
    assert mapped.outcome.strict
    model.load_state_dict(map_state(ckptaudit.KeyMapping.load(MAPPINGS / f"{case}.toml"), torch.load(path)))
    assert {key: value.numpy().tobytes() for key, value in model.state_dict().items()} == {
        key: value.numpy().tobytes() for key, value in expected.state_dict().items()
    }
    images = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(model(images), expected(images))


@pytest.mark.parametrize("case", CASES)
def test_there_is_no_way_back(case):
    name, options, _, _, _ = CASES[case]
    mapping = ckptaudit.KeyMapping.load(MAPPINGS / f"{case}.toml")
    with pytest.raises(ckptaudit.UsageError, match=r"cannot be inverted: the values of .* do not come back"):
        mapping.invert(ckptaudit.Manifest.of(pretrained(name, **options)))


def test_a_grey_image_gives_what_its_rgb_copy_gave(tmp_path):
    """The reason for the sum: the same image on all three channels is the same input, up to rounding."""
    rgb = pretrained("resnet18").double()
    grey = timm.create_model("resnet18", num_classes=5, in_chans=1).double().eval()
    grey.load_state_dict(map_state(ckptaudit.KeyMapping.load(MAPPINGS / "rgb-to-grey.toml"), rgb.state_dict()))
    image = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = rgb(image.expand(-1, 3, -1, -1))
        # the operation sums in float32, as timm's does
        assert (grey(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
