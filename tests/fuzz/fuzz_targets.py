"""One target for each reader, and one for each that torch or safetensors can be asked about."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import fuzz_judge as judge
import fuzz_program_seeds as programs
import fuzz_seeds as seeds
from fuzz_archives import mutate_distributed, mutate_stream, mutate_tar, mutate_zip
from fuzz_bytes import mutate_bytes
from fuzz_engine import Files, Target
from fuzz_json import mutate_json, mutate_safetensors
from fuzz_opcodes import mutate_pickle

Mutator = Callable[[Random, bytes, list[bytes]], bytes]
_DONORS = 4


def alone(mutate: Mutator) -> Callable[[Random, Files, list[Files]], Files]:
    """Change an input of one file; a few of the other seeds are what parts are taken from."""

    def change(rng: Random, files: Files, others: list[Files]) -> Files:
        (name, data), *_ = files.items()
        donors = [next(iter(other.values())) for other in rng.sample(others, min(_DONORS, len(others)))]
        return {name: mutate(rng, data, donors)}

    return change


def _first(mutate: Callable[[Random, bytes, bytes], bytes]) -> Mutator:
    return lambda rng, data, others: mutate(rng, data, others[0] if others else b"")


def mutate_shards(rng: Random, files: Files, others: list[Files]) -> Files:
    """Change an index, mostly; or one of its shards, or which shard has which name."""
    changed = dict(files)
    index, *shards = files
    drawn = rng.random()
    if not shards or drawn < 0.75:
        changed[index] = mutate_json(rng, files[index], next(iter(rng.choice(others).values())))
    elif drawn < 0.8:
        changed[shards[0]], changed[shards[-1]] = files[shards[-1]], files[shards[0]]
    elif drawn < 0.85:
        del changed[rng.choice(shards)]
    else:
        name = rng.choice(shards)
        donor = [data for other in others for data in list(other.values())[1:]]
        mutate = mutate_safetensors if name.endswith("safetensors") else _zip_with_one
        changed[name] = mutate(rng, files[name], rng.choice(donor))
    return changed


def _zip_with_one(rng: Random, data: bytes, other: bytes) -> bytes:
    return mutate_zip(rng, data, [other])


def anything() -> list[Files]:
    """Return one seed of each kind, and files that are none of ours."""
    kinds = (seeds.torch_zip, seeds.torch_legacy, seeds.torch_tar, seeds.safetensors, seeds.manifests, seeds.pickles)
    found = [next(iter(kind()[0].values())) for kind in kinds]
    found += [
        next(iter(seeds.sharded()[0].values())),
        b"",
        b"\0" * 600,
        b"<!doctype html><html>",
        b"PK\5\6" + bytes(18),
    ]
    found += [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        b"GGUF\3\0\0\0",
        b'{"error": "no"}',
    ]
    found += [
        b"\x1f\x8b\x08",
        b"\x08\x07\x12\x07pytorch",
        b"\x81\xa6params\x80",
        b"(lp0\nS'a'\np1\na.",
        b"text",
        b"\x80\x02N.",
    ]
    return [{"x": data} for data in found]


def _readers() -> list[Target]:
    zipped, streamed, tarred = alone(mutate_zip), alone(mutate_stream), alone(mutate_tar)
    safe, pickled = alone(_first(mutate_safetensors)), alone(mutate_pickle)
    return [
        Target("torch-zip", seeds.torch_zip, zipped, judge.examine),
        Target("torch-legacy", seeds.torch_legacy, streamed, judge.examine),
        Target("torch-tar", seeds.torch_tar, tarred, judge.examine),
        Target("torchscript", seeds.torchscript, zipped, judge.examine),
        Target("safetensors", seeds.safetensors, safe, judge.examine),
        Target("sharded", seeds.sharded, mutate_shards, judge.examine),
        Target("torch-export", programs.exported, zipped, judge.examine),
        Target("distributed", programs.distributed, mutate_distributed, judge.examine),
        Target("bare-pickle", seeds.pickles, pickled, judge.examine),
        Target("pickle-machine", seeds.pickles, pickled, judge.examine_pickle),
        Target("zip-directory", seeds.torch_zip, zipped, judge.examine_directory),
        Target("manifest", seeds.manifests, alone(_first(mutate_json)), judge.examine_manifest),
        Target("identify", anything, alone(_first(mutate_bytes)), judge.examine),
        Target("torch-zip=torch", seeds.torch_zip, zipped, judge.compared("torch", judge.documented)),
        Target("torch-zip=mapped", seeds.torch_zip, zipped, judge.compared("mapped", judge.documented)),
        Target("torch-legacy=torch", seeds.torch_legacy, streamed, judge.compared("torch", judge.documented)),
        Target("torch-tar=torch", seeds.torch_tar, tarred, judge.compared("tar", judge.documented)),
        Target("torchscript=torch", seeds.torchscript, zipped, judge.compared("torch", judge.documented)),
        Target("safetensors=library", seeds.safetensors, safe, judge.compared("safetensors", judge.documented)),
        Target("pickle-machine=torch", seeds.pickles, pickled, judge.compare_pickle),
    ]


def targets() -> dict[str, Target]:
    """Return the targets by name; seeds are made once, on first use."""
    found = {}
    for target in _readers():
        found[target.name] = Target(target.name, _once(target.seeds), target.mutate, target.check)
    return found


def _once(make: Callable[[], list[Files]]) -> Callable[[], list[Files]]:
    def made() -> list[Files]:
        if make not in _MADE:
            _MADE[make] = seeds.quietly(make)
        return _MADE[make]

    return made


_MADE: dict[Callable[[], list[Files]], list[Files]] = {}
