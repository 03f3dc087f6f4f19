"""What freezing buys, measured and predicted: python tests/benchmarks/steps.py [--itself] [--write]

The commands of the document are run as they stand there. Then the method is tried on itself, or that alone: steps built
alike, and a step that is slower by a tenth, are compared twenty times. All is processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from statistics import median
from time import process_time

import torch
from section import DOCUMENT, write
from torch import nn

import ckptaudit

TITLE, SECOND = "## Training steps", "### The method on itself"
WITHIN = 0.25  # of the measured speed-up
REPEATS, ROUNDS = 20, 80

VIT = (
    "--arg image_size=64 --arg patch_size=8 --arg num_layers=6 --arg num_heads=3 --arg hidden_dim=192 --arg mlp_dim=768"
)
MODELS = {
    "ResNet-18": "torchvision.models:resnet18 --input 8,3,96,96",
    "ResNet-50": "torchvision.models:resnet50 --input 4,3,96,96",
    "ViT, 6 layers of width 192": f"torchvision.models:VisionTransformer {VIT} --input 16,3,64,64",
}
OPTIONS = "--threads 1 --clock cpu --rounds 20"

HEAD = f"""{TITLE}

Each model measured in one run, by

    python tests/benchmarks/steps.py --write

torch {{version}}, {{device}}, processor time of one thread. The machine had other work as well: look at the ratios.
"""
MODEL = """
{name}: `ckptaudit bench {command}`, {rounds} rounds. Ratios from {resolvable:.2f} up can be told from 1.

| variant | speed-up | 95 % interval | predicted | off by | by FLOPs | samples/s | peak | saved activations |
|---|---|---|---|---|---|---|---|---|
"""
OUTCOME = "\nPredictions within 25 % of the measured speed-up, cached features left out: {within} of {count}.\n"
TAIL = """
- Predictions add up the times of the single operations of a step. FLOPs alone leave out what an optimizer and a norm
  cost, which move bytes and hardly compute: by them, only cached features make a ResNet three times as fast.
- `lr=0` saves nothing. `not optimized` saves the optimizer's share of the step, and no gradient.
- Cached features are a step of a few milliseconds: what is around its operations counts as much as they do.
"""
ITSELF = """
{title}

A small convolutional network, {repeats} times {rounds} rounds: `python tests/benchmarks/steps.py --itself --write`.

| compared with `full` | told from 1 | median of the speed-ups | smallest ratio that could be told, median |
|---|---|---|---|
"""
REFUSED = """
Of the {repeats} benchmarks, {refused} said themselves that nothing was measured.
"""


def benchmark(command):
    """Run a command as a user does; return its JSON."""
    words = ["bench", *shlex.split(command), "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "ckptaudit", *words], capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def rows(data):
    """Yield the cells of each variant, and how far its prediction is off: None where nothing is predicted."""
    for variant in data["variants"]:
        measured, cost = variant["measured"], variant["cost"]
        if measured is None or variant["kind"] == "again":
            continue
        ratio, predicted = measured["speed_up"], variant["predicted"]
        off = None if variant["kind"] == "full" else predicted / ratio["point"] - 1
        yield (
            off if variant["kind"] != "cached" else None,
            [
                variant["name"],
                f"{ratio['point']:.2f}",
                "" if off is None else f"{ratio['low']:.2f} to {ratio['high']:.2f}",
                "" if off is None else f"{predicted:.2f}",
                "" if off is None else f"{off:+.0%}".replace("%", " %"),
                "" if off is None else f"{variant['speed_up_by_flops']:.2f}",
                f"{measured['samples_per_second']:.1f}",
                f"{measured['peak_bytes'] / 2**20:.1f} MiB",
                f"{cost['activations'] / 2**20:.1f} MiB",
            ],
        )


class Slower(ckptaudit.TrainStep):
    """A step that takes a share longer than it needs to: the processor spins at its end."""

    share = 0.1

    def forward(self):
        self.began = process_time()
        return super().forward()

    def update(self):
        super().update()
        now = process_time()
        while process_time() < now + self.share * (now - self.began):
            pass


def small(kind):
    """Return what makes a step of a small network, of a class of steps."""

    def make():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
        images, optimizer = torch.randn(8, 3, 40, 40), torch.optim.AdamW(model.parameters(), lr=1e-5)
        return kind(lambda: model(images).square().mean(), optimizer, 8)

    return make


def itself():
    """Try the method on steps that are built alike and on a slower one; return that part of the section."""
    makers = {"full": small(ckptaudit.TrainStep), "alike": small(ckptaudit.TrainStep), "slower": small(Slower)}
    runs = [ckptaudit.bench_train_step(makers, rounds=ROUNDS, threads=1, clock="cpu") for _ in range(REPEATS)]
    text = ITSELF.format(title=SECOND, repeats=REPEATS, rounds=ROUNDS)
    for name, words in {"alike": "built alike", "slower": "slower by 10 %"}.items():
        ratios = [one.speed_up(name) for one in runs]
        told = sum(one.noise.tells(ratio) for one, ratio in zip(runs, ratios, strict=True))
        point, resolvable = median(ratio.point for ratio in ratios), median(one.noise.resolvable for one in runs)
        text += f"| {words} | {told} of {REPEATS} | {point:.3f} | {resolvable:.3f} |\n"
    return text + REFUSED.format(repeats=REPEATS, refused=sum(bool(one.trouble) for one in runs))


def models():
    """Measure the models; return that part of the section."""
    text, offs, device = "", [], ""
    for name, arguments in MODELS.items():
        command = f"{arguments} {OPTIONS}"
        data = benchmark(command)
        device = data["environment"]["device_name"]
        facts = {"rounds": data["rounds"], "resolvable": data["noise"]["resolvable"]}
        text += MODEL.format(name=name, command=command, **facts)
        for off, cells in rows(data):
            text += f"| {' | '.join(cells)} |\n"
            offs += [] if off is None else [off]
        if data["trouble"]:
            text += f"\n{data['trouble']}\n"
    within = sum(abs(off) <= WITHIN for off in offs)
    text += OUTCOME.format(within=within, count=len(offs)) + TAIL
    return HEAD.format(version=torch.__version__.partition("+")[0], device=device) + text


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--itself", action="store_true", help="try the method on itself and leave the models")
    parser.add_argument("--write", action="store_true", help=f"write the section of {DOCUMENT.name}")
    options = parser.parse_args()
    text = itself() if options.itself else models() + itself()
    sys.stdout.write(text)
    if options.write:
        document = DOCUMENT.read_text()
        kept = document[document.index(TITLE) :].partition(SECOND)[0] if options.itself else ""
        write(kept + text.lstrip("\n"))
