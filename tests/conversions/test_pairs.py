"""Real conversions, both ways: strict loads under a mapping file, equal bits of weights, equal outputs."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from pairs import MAPPINGS, PAIRS, seeded

import ckptaudit
from ckptaudit.mapping.execute import map_state


@pytest.fixture(params=PAIRS, scope="module")
def pair(request):
    return PAIRS[request.param]


@pytest.fixture
def saved(pair, tmp_path):
    """Return the source and the path of its checkpoint."""
    source = seeded(pair.source, 1)
    torch.save(source.state_dict(), tmp_path / "source.pth")
    return source, tmp_path / "source.pth"


def outputs(model, inputs):
    with torch.no_grad():
        return model(inputs)


def bits(state):
    return {key: (value.dtype, value.shape, value.numpy().tobytes()) for key, value in state.items()}


def test_without_the_mapping_the_load_fails(pair, saved):
    target = seeded(pair.target, 2)
    report = ckptaudit.diff(target, saved[1])
    assert not report.ok
    assert not report.outcome_as_is.strict
    with pytest.raises(RuntimeError, match="Missing key"):
        target.load_state_dict(torch.load(saved[1]))


def test_with_it_a_strict_load_succeeds_and_the_outputs_are_those_of_the_source(pair, saved):
    source, path = saved
    target = seeded(pair.target, 2)
    report = ckptaudit.diff(target, path, mapping=pair.path)
    assert report.ok
    assert report.outcome.strict
    assert report.outcome.loaded == len(target.state_dict())
    mapping = ckptaudit.KeyMapping.load(pair.path)
    inputs = pair.inputs()
    expected, before = outputs(pair.runs(source), inputs), outputs(target, inputs)
    assert not torch.allclose(before, expected)
    target.load_state_dict(map_state(mapping, torch.load(path)))
    after = outputs(target, inputs)
    assert (after - expected).abs().max() <= pair.tolerance * expected.abs().max()


def test_the_way_back_gives_the_same_bits_and_the_same_outputs(pair, saved):
    source, path = saved
    state = torch.load(path)
    mapping = ckptaudit.KeyMapping.load(pair.path)
    back = mapping.invert(ckptaudit.Manifest.of(state))
    target = seeded(pair.target, 2)
    target.load_state_dict(map_state(mapping, state))
    returned = map_state(back, target.state_dict())
    assert bits(returned) == bits(state)
    again = seeded(pair.source, 3)
    assert ckptaudit.diff(again, target.state_dict(), mapping=back).ok
    again.load_state_dict(returned)
    inputs = pair.inputs()
    assert torch.equal(outputs(again, inputs), outputs(source, inputs))


def test_the_way_back_can_be_kept_as_a_file(pair, saved, tmp_path):
    back = ckptaudit.KeyMapping.load(pair.path).invert(ckptaudit.Manifest.of(saved[0]))
    back.save(tmp_path / "back.toml")
    assert ckptaudit.KeyMapping.load(tmp_path / "back.toml") == back


FULL_SIZE = {
    "torchvision-vit-to-timm": {
        "vit_b_16": "vit_base_patch16_224",
        "vit_b_32": "vit_base_patch32_224",
        "vit_l_16": "vit_large_patch16_224",
        "vit_h_14": "vit_huge_patch14_224",
    },
    "torchvision-convnext-to-timm": {
        f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")
    },
}


@pytest.mark.parametrize(
    ("mapping", "ours", "theirs"), [(m, *names) for m, models in FULL_SIZE.items() for names in models.items()]
)
def test_the_mapping_holds_for_the_published_sizes(mapping, ours, theirs):
    with torch.device("meta"):
        source, target = getattr(torchvision.models, ours)(), timm.create_model(theirs, num_classes=1000)
    report = ckptaudit.diff(target, ckptaudit.Manifest.of(source), mapping=PAIRS[mapping].path)
    assert report.outcome.strict
    assert report.outcome.loaded == len(target.state_dict())
    back = ckptaudit.KeyMapping.load(PAIRS[mapping].path).invert(ckptaudit.Manifest.of(source))
    assert ckptaudit.diff(source, ckptaudit.Manifest.of(target), mapping=back).outcome.strict


def test_every_mapping_file_reads_and_is_written_about():
    page = (MAPPINGS.parents[1] / "docs" / "reference" / "mapping.md").read_text()
    for path in MAPPINGS.glob("*.toml"):
        assert ckptaudit.KeyMapping.load(path).rules
        assert f"fixtures/mappings/{path.name})" in page
    assert len(list(MAPPINGS.glob("*.toml"))) >= 7
