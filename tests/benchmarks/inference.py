"""How well mappings are inferred, and how fast: python tests/benchmarks/inference.py [--write]

The cases are those of the corpus beside the checkout (`../shared/corpus`), and so is the scorer. Scale is CPU time of one
thread on state dicts made for it.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from time import process_time

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mapping"))

from inference import corpus  # noqa: E402
from inference.helpers import manifest  # noqa: E402
from section import write  # noqa: E402

from ckptaudit.mapping.inference import infer  # noqa: E402

TITLE = "## Inferring mappings"
RECIPES = {
    "names": "identical names and shapes",
    "prefix": "one prefix stripped or added",
    "suffix": "longest unique suffix",
    "order": "in order, equal shapes",
}
OURS = "`infer`"

HEAD = f"""{TITLE}

Measured in one run by

    python tests/benchmarks/inference.py --write

on the development half of a corpus of real conversions between libraries (the truth is traced through the libraries' own
code) and of realistic changes before fine-tuning. A case is exact when every tensor of the model is right. *Wrong* would load and
be garbage; the recipes have no confidence, so all that they say counts as confident.

| recipe | cases exact | tensors right | wrong | wrong at 0.9 or more | right ones at 0.9 or more |
|---|---|---|---|---|---|
"""
KINDS = """
Exact cases by kind, each case in all its kinds:

| kind | cases | {ours} | {names} |
|---|---|---|---|
"""
SCALE = """
How the time grows, for state dicts whose names all change (CPU time of one thread):

| tensors | blocks that repeat | blocks that all differ | all of one shape, random names |
|---|---|---|---|
"""
TAIL = """
- Blocks that repeat are folded: what is found for the first and last two of a run holds for all. Blocks that all differ
  have few rivals by shape; where a side has 5,000 modules or more and a shape more than 24 of them, those are compared first whose
  surroundings hold the same.
- Where more than 300 modules have one shape, only those are compared whose paths have something in common. Random names
  have nothing, and are said to be open.
- The weights of the evidence were set with these cases in sight. On libraries that nobody looked at expect less; what is
  meant to carry over is the confidence: [what became of it](explanation/inference.md#how-sure) on families that were left out.
"""


def predictions(case):
    """Yield the name of each recipe and what it says of a case."""
    yield OURS, corpus.predict(case)
    baselines = corpus.tool("baselines")
    for name in RECIPES:
        pairs = getattr(baselines, name)(case["source"], case["target"])
        made = [{"target": key, "sources": [source]} for key, source in pairs.items()]
        yield name, {"assignments": made, "uninitialised_target": [k for k, _, _ in case["target"] if k not in pairs]}


def scored():
    """Return kind -> recipe -> counts over all cases."""
    score = corpus.tool("score")
    counts = defaultdict(lambda: defaultdict(Counter))
    for case in corpus.cases():
        for name, said in predictions(case):
            one = score.score_case(case, said)
            for kind in {"all", case["kind"], *case["kind_tags"]}:
                counts[kind][name].update(one, cases=1)
    return counts


def repeating(n, names):
    """Return n tensors of a language model with experts."""
    attention, expert, lists = names
    tensors, layer = {}, 0
    while len(tensors) < n:
        for part in attention:
            tensors[f"{lists[0]}.{layer}.{part}.weight"] = (512, 512)
        for k in range(32):
            for part, shape in zip(expert, ((1024, 512), (1024, 512), (512, 1024)), strict=True):
                tensors[f"{lists[0]}.{layer}.{lists[1]}.{k}.{part}.weight"] = shape
        layer += 1
    return dict(list(tensors.items())[:n])


def differing(n, names):
    """Return n tensors of a convolutional model in which no two blocks have one width."""
    chance, tensors, block = random.Random(0), {}, 0
    while len(tensors) < n:
        a, b = (chance.randrange(16, 4096, 8) for _ in range(2))
        prefix = f"{names[0]}{block // 50}.{block % 50}."
        tensors |= {f"{prefix}{names[1]}.weight": (a, b, 3, 3), f"{prefix}{names[2]}.weight": (b, a, 1, 1)}
        tensors |= {f"{prefix}{names[3]}.{leaf}": (a,) for leaf in ("weight", "bias", "running_mean", "running_var")}
        block += 1
    return dict(list(tensors.items())[:n])


def uniform(n, seed):
    """Return n tensors of one shape under random names."""
    chance = random.Random(seed)
    return {f"{chance.randbytes(5).hex()}.{chance.randbytes(3).hex()}.weight": (64, 64) for _ in range(n)}


def pairs_of(n):
    """Yield source and target of each column, of n tensors."""
    hf = (
        ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj"),
        ("gate_proj", "up_proj", "down_proj"),
        ("layers", "mlp.experts"),
    )
    other = (("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj"), ("w1", "w3", "w2"), ("h", "moe"))
    yield repeating(n, hf), repeating(n, other)
    yield differing(n, ("stages.", "conv1", "conv2", "norm1")), differing(n, ("body.layer", "conv_a", "conv_b", "bn"))
    yield uniform(n, 1), uniform(n, 2)


def seconds(source, target):
    """Return the CPU time of one inference."""
    source, target = manifest(source), manifest(target)
    start = process_time()
    infer(source, target)
    return process_time() - start


def section():
    """Measure everything and return the section of the document."""
    counts = scored()
    lines = HEAD
    for name, n in counts["all"].items():
        share = f"{n['right_confident'] / max(1, n['right']):.1%}" if name == OURS else ""
        cells = [RECIPES.get(name, name), f"{n['exact'] / n['cases']:.1%}", f"{n['right'] / n['counted']:.2%}"]
        cells += [f"{n['wrong'] / n['counted']:.2%}", f"{n['wrong_confident'] / n['counted']:.3%}", share]
        lines += f"| {' | '.join(cells)} |\n"
    lines += KINDS.format(ours=OURS, names=" | ".join(RECIPES.values())).replace(
        "|---|---|---|---|", "|---|---|---|---|---|---|---|"
    )
    for kind, by_recipe in sorted(counts.items(), key=lambda item: (-item[1][OURS]["cases"], item[0])):
        exact = [str(by_recipe[name]["exact"]) for name in (OURS, *RECIPES)]
        lines += f"| {kind} | {by_recipe[OURS]['cases']} | {' | '.join(exact)} |\n"
    lines += SCALE
    for n in (1_000, 10_000, 100_000):
        lines += f"| {n:,} | {' | '.join(f'{seconds(*pair):.2f} s' for pair in pairs_of(n))} |\n"
    return lines + TAIL


if __name__ == "__main__":
    text = section()
    sys.stdout.write(text)
    if sys.argv[1:] == ["--write"]:
        write(text)
