"""A Lightning checkpoint, built as the trainer writes it, into the plain module inside; real ones: tests/real."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from pairs import MAPPINGS, seeded
from torch import nn
from torchvision.models import resnet18

import ckptaudit
from ckptaudit.mapping.execute import map_state

MAPPING = MAPPINGS / "lightning-to-module.toml"


class Classifier(nn.Module):
    """What a LightningModule holds: the network, and a loss whose class weights are a buffer."""

    def __init__(self, weighted: bool) -> None:
        super().__init__()
        self.model = resnet18(num_classes=5)
        self.criterion = nn.CrossEntropyLoss(torch.ones(5) if weighted else None)


def checkpoint(module):
    """Return what Trainer.save_checkpoint writes, after a step of AdamW."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
    progress = {"ready": 1, "completed": 1, "started": 1, "processed": 1}
    return {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": module.state_dict(),
        "loops": {
            "fit_loop": {
                "state_dict": {},
                "epoch_loop.batch_progress": {"total": progress, "current": progress, "is_last_batch": True},
                "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": {"total": progress}}},
            }
        },
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min', 'every_n_epochs': 1}": {
                "monitor": "val_loss",
                "best_model_score": torch.tensor(0.5),
                "best_model_path": "epoch=0-step=1.ckpt",
                "best_k_models": {"epoch=0-step=1.ckpt": torch.tensor(0.5)},
            }
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": OrderedDict(lr=1e-3, num_classes=5),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_the_module_inside_gets_the_weights_of_the_network(weighted, tmp_path):
    trained = seeded(lambda: Classifier(weighted), 1)
    torch.save(checkpoint(trained), tmp_path / "last.ckpt")
    plain = seeded(lambda: resnet18(num_classes=5), 2)
    assert not ckptaudit.diff(plain, tmp_path / "last.ckpt").ok
    report = ckptaudit.diff(plain, tmp_path / "last.ckpt", mapping=MAPPING)
    assert report.ok
    assert report.outcome.strict
    assert report.outcome.loaded == 122
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    plain.load_state_dict(map_state(ckptaudit.KeyMapping.load(MAPPING), state))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(plain(images), trained.model(images))


def test_the_way_back_is_the_prefix_unless_something_was_left_out():
    mapping = ckptaudit.KeyMapping.load(MAPPING)
    back = mapping.invert(ckptaudit.Manifest.of(Classifier(weighted=False)))
    assert back.to_json() == ["add_prefix model."]
    with pytest.raises(ckptaudit.UsageError) as caught:
        mapping.invert(ckptaudit.Manifest.of(Classifier(weighted=True)))
    assert str(caught.value) == "select_prefix model.: cannot be inverted: it drops criterion.weight"


def test_the_wrapped_state_dict_goes_back_into_the_lightning_module():
    plain, wrapper = seeded(lambda: resnet18(num_classes=5), 1), seeded(lambda: Classifier(weighted=False), 2)
    back = ckptaudit.KeyMapping.parse(["add_prefix model."])
    assert ckptaudit.diff(wrapper, plain.state_dict(), mapping=back).ok
    wrapper.load_state_dict(map_state(back, plain.state_dict()))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(plain(images), wrapper.model(images))
