"""What fingerprints, audits and lints of training cost: python tests/benchmarks/training.py [--write]

Everything is CPU time of one thread. Fingerprints and copies of the same bytes run in turn, in random order; an audit's
share is the time inside its own code, of all the time of the loop around which it stands.
"""

from __future__ import annotations

import gc
import random
import sys
from statistics import median
from time import process_time
from unittest import mock

import torch
from section import write
from torch import nn
from torchvision.models import resnet18, resnet50, vit_b_16

import ckptaudit
from ckptaudit.training.audit import FreezeAudit
from ckptaudit.training.fingerprint import take
from ckptaudit.training.names import named_tensors
from ckptaudit.training.watch import Watch

TITLE = "## Auditing training"
ROUNDS = 30
STEPS = 16

HEAD = f"""{TITLE}

Measured in one run by

    python tests/benchmarks/training.py --write

torch {{version}}, CPU time of one thread. The machine had other work as well: look at the ratios.

Fingerprints of all parameters and buffers, against `copy_` of the same bytes into memory that is there already:

| tensors | bytes | fingerprint, best | copy, best | ratio of the best | median of the ratios | target |
|---|---|---|---|---|---|---|
"""
AUDITS = """
An audit around {steps} steps of a ResNet-50 (AdamW, batches of 8 images of 96 by 96): the share of its code, with both its ends, in
the time of the loop.

| trains | a step | share | with `every=1` | target |
|---|---|---|---|---|
"""
LINTS = """
A lint of a model and its optimizer, against the walks of torch itself over the same tensors:

| model: tensors | optimizer | lint, best | a tensor | `named_parameters` and `named_buffers` | ratio | `state_dict()` | ratio |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
- A lint costs what a look at each module, tensor and group costs, and no more for larger tensors. The target is 3 microseconds a
  tensor, and it is missed: naming the tensors and finding the attributes of the modules, in one walk, takes a third of the time, the
  24 checks another third, the patterns, the two sides of the report and 0.2 ms for every lint the rest. What is left to gain
  would be gained by dropping checks.
- A fingerprint reads each byte once, and copies nothing; 2 microseconds a tensor come on top, twice what `copy_` takes to
  begin. Small tensors cost that, and so a ResNet, four fifths of whose tensors are those of norms, meets the target by a
  little, and in 16 bits, with half the bytes to read, misses it in the median.
- The audit's ends take a fingerprint of everything, and a look at the first gradients is part of its first step. The rest
  is a look at each frozen tensor's version counter and memory, and full fingerprints at steps 1 to 4, 8 and 16. In a
  longer run the share falls: a full fingerprint at each doubling of the steps, and a tenth of one a step.
- Where the head alone trains, a step is four times as short, and 16 of them are over the target; of 64 steps it is 0.9 %.
"""


def measure_all(actions):
    """Run actions in turn, in random order each round; return the CPU times of each."""
    times = {name: [] for name in actions}
    for action in actions.values():
        action()
    gc.disable()
    for _ in range(ROUNDS):
        for name in random.sample(list(actions), len(actions)):
            start = process_time()
            actions[name]()
            times[name].append(process_time() - start)
    gc.enable()
    return times


def fingerprint_rows():
    """Yield the cells of one row per model."""
    models = {
        "ResNet-18": resnet18(),
        "ResNet-50": resnet50(),
        "ViT-B/16": vit_b_16(),
        "one tensor": nn.Linear(8192, 8192, bias=False),
        "ResNet-50, bfloat16": resnet50().bfloat16(),
        "ResNet-50, channels_last": resnet50().to(memory_format=torch.channels_last),
    }
    for name, model in models.items():
        tensors = {key: (one.tensor.detach(), None) for key, one in named_tensors(model).items()}
        copies = {key: torch.empty_like(tensor) for key, (tensor, _) in tensors.items()}

        def copy(tensors=tensors, copies=copies):
            for key, (tensor, _) in tensors.items():
                copies[key].copy_(tensor)

        times = measure_all({"fingerprint": lambda tensors=tensors: take(tensors), "copy": copy})
        ours, theirs = times["fingerprint"], times["copy"]
        size = sum(tensor.nbytes for tensor, _ in tensors.values())
        yield [
            f"{name}: {len(tensors)}",
            f"{size / 2**20:.0f} MiB",
            f"{1000 * min(ours):.2f} ms",
            f"{1000 * min(theirs):.2f} ms",
            f"{min(ours) / min(theirs):.2f}",
            f"{median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}",
            "0.7",
        ]


class Meter:
    """Adds up the CPU time inside the functions that it is put around."""

    def __init__(self):
        self.spent = 0.0

    def around(self, function):
        def timed(*arguments):
            start = process_time()
            try:
                return function(*arguments)
            finally:
                self.spent += process_time() - start

        return timed


def share(trains, every):
    """Return the seconds of one step, and the share of the audit in the loop."""
    torch.manual_seed(0)
    model, meter = resnet50(), Meter()
    ckptaudit.freeze(model, [f"!{part}" for part in trains])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    images = torch.randn(8, 3, 96, 96)

    def step():
        model.train()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    step()
    with (
        mock.patch.object(FreezeAudit, "__enter__", meter.around(FreezeAudit.__enter__)),
        mock.patch.object(FreezeAudit, "__exit__", meter.around(FreezeAudit.__exit__)),
        mock.patch.object(Watch, "_before_step", meter.around(Watch._before_step)),
        mock.patch.object(Watch, "_after_step", meter.around(Watch._after_step)),
    ):
        audit = ckptaudit.audit_training(model, optimizer, frozen=[f"!{part}" for part in trains], every=every)
        start = process_time()
        with audit:
            for _ in range(STEPS):
                step()
        spent = process_time() - start
    assert audit.report.ok, str(audit)
    return (spent - meter.spent) / STEPS, meter.spent / spent


def audit_rows():
    """Yield the cells of one row per part that trains."""
    parts = {
        "all but the first convolution": ["layer*", "bn1", "fc"],
        "the last stage and the head": ["layer4", "fc"],
        "the head": ["fc"],
    }
    for name, trains in parts.items():
        seconds, part = share(trains, None)
        _, each = share(trains, 1)
        yield [name, f"{1000 * seconds:.0f} ms", f"{100 * part:.2f} %", f"{100 * each:.2f} %", "2 %"]


def lint_rows():
    """Yield the cells of one row per model."""
    for name, model, head in (
        ("ResNet-18", resnet18(), "fc"),
        ("ResNet-50", resnet50(), "fc"),
        ("ViT-B/16", vit_b_16(), "heads"),
    ):
        ckptaudit.freeze(model, f"!{head}")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        assert not ckptaudit.lint_training(model, optimizer, frozen=f"!{head}").findings
        times = measure_all(
            {
                "lint": lambda model=model, optimizer=optimizer, head=head: ckptaudit.lint_training(
                    model, optimizer, frozen=f"!{head}"
                ),
                "walk": lambda model=model: [*model.named_parameters(), *model.named_buffers()],
                "state": model.state_dict,
            }
        )
        lint, walk, state = (min(times[key]) for key in ("lint", "walk", "state"))
        count = len(named_tensors(model))
        yield [
            f"{name}: {count}",
            "AdamW over all",
            f"{1000 * lint:.2f} ms",
            f"{1e6 * lint / count:.1f} µs",
            f"{1000 * walk:.2f} ms",
            f"{lint / walk:.1f}",
            f"{1000 * state:.2f} ms",
            f"{lint / state:.1f}",
        ]


def section():
    """Measure everything and return the section of the document."""
    torch.set_num_threads(1)
    lines = HEAD.format(version=torch.__version__.partition("+")[0])
    lines += "".join(f"| {' | '.join(cells)} |\n" for cells in fingerprint_rows())
    lines += AUDITS.format(steps=STEPS)
    lines += "".join(f"| {' | '.join(cells)} |\n" for cells in audit_rows())
    lines += LINTS + "".join(f"| {' | '.join(cells)} |\n" for cells in lint_rows())
    return lines + TAIL


if __name__ == "__main__":
    text = section()
    sys.stdout.write(text)
    if sys.argv[1:] == ["--write"]:
        write(text)
