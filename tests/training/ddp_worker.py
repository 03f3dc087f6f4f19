"""One of two processes that train under DistributedDataParallel: python ddp_worker.py RANK FOLDER CASE.

Writes what its audit says to FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ckptaudit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        return self.fc(self.backbone(images).mean((2, 3)))


def main(rank, folder, case):
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    model = Net()
    if case == "flags":
        model.backbone.requires_grad_(False)
    else:
        ckptaudit.freeze(model, "backbone")
    wrapped = DistributedDataParallel(model)
    if case == "broadcast" and rank == 1:
        model.backbone[1].running_mean.fill_(1)
    optimizer = torch.optim.AdamW((p for p in wrapped.parameters() if p.requires_grad), lr=0.01)
    torch.manual_seed(rank)
    with ckptaudit.audit_training(wrapped, optimizer, frozen="backbone", trainable="fc") as audit:
        for _ in range(3):
            wrapped.train()
            optimizer.zero_grad()
            wrapped(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
    verdicts = {one.name: [one.verdict, one.cause.text if one.cause else ""] for one in audit.verdicts}
    head = model.fc.weight.detach().flatten().tolist()
    said = {"ok": audit.report.ok, "verdicts": verdicts, "steps": audit.steps, "head": head}
    (folder / f"{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
