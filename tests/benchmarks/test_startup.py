"""Whole processes under pytest-benchmark: a report, never a gate. Run with --benchmark-only."""

from __future__ import annotations

import pytest
from workload import FLOOR, TORCH_META, ckptaudit, make_files, measure, python


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    make_files(folder)
    return folder


COMMANDS = {
    "bare python": lambda f: python("pass"),
    "inspect 100MB": lambda f: ckptaudit("inspect", f / "100MB.pth", "--format", "json"),
    "inspect 2GB": lambda f: ckptaudit("inspect", f / "2GB.pth", "--format", "json"),
    "diff 100MB 100MB": lambda f: ckptaudit("diff", f / "100MB.pth", f / "100MB.pth", "--format", "json"),
    "diff 2GB 2GB": lambda f: ckptaudit("diff", f / "2GB.pth", f / "2GB.pth", "--format", "json"),
    "torch.load meta 100MB": lambda f: python(TORCH_META, f / "100MB.pth"),
    "torch.load meta 2GB": lambda f: python(TORCH_META, f / "2GB.pth"),
    "diff model.py 100MB": lambda f: ckptaudit("diff", f / "net.py", f / "100MB.pth"),
    "floor of diff model.py": lambda f: python(FLOOR, f),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_whole_process(benchmark, files, name):
    command = COMMANDS[name](files)
    usage = benchmark.pedantic(measure, args=(command,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["peak_mib"] = round(usage.peak, 1)
    benchmark.extra_info["cpu_seconds"] = round(usage.cpu, 3)
