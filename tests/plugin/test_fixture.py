"""The fixture ``ckptaudit``: the assertions of ckptaudit.testing, and what a failure says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from ckptaudit import testing


def test_a_checkpoint_that_loads_and_one_that_does_not(run_plainly, manifest, pytester):
    manifest("net.json"), manifest("v1.json"), manifest("v2.json", 7)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("version", ["v1", "v2"])
        def test_loads(ckptaudit, version):
            ckptaudit.assert_loads("net.json", f"{version}.json")
    """)
    result = run_plainly()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        "E *  checkpoint  v2.json*",
        "E *  fc.weight  (7, 4) *  (10, 4)*",
        'E *1 error. Contract "strict": broken.*',
        "E *reproduce: ckptaudit diff net.json v2.json*",
    ])  # fmt: skip
    assert "pytest_session.py" not in result.stdout.str()  # the plugin's own frames are hidden
    assert "testing.py" not in result.stdout.str()


def test_a_live_model_is_reproduced_from_its_manifest(run_apart, manifest, pytester):
    manifest("v2.json", 7)
    pytester.makepyfile("""
        from networks import Net

        def test_loads(ckptaudit):
            ckptaudit.assert_loads(Net(), "v2.json", contract="partial", mapping=["module.* -> *"])
    """)
    result = run_apart()
    result.assert_outcomes(failed=1)
    command = re.search(r"reproduce: ckptaudit (diff .*)", result.stdout.str()).group(1)
    assert command.endswith("--contract partial --map 'module.* -> *'")
    again = subprocess.run(
        [sys.executable, "-m", "ckptaudit", *shlex.split(command)], capture_output=True, text=True, cwd=pytester.path
    )
    assert again.returncode == 1
    assert "error[CKPT201] shape-mismatch" in again.stdout


def test_it_has_every_assertion(run_apart, pytester):
    names = [name for name in dir(testing) if name.startswith("assert_")]
    assert "assert_frozen" in names
    pytester.makepyfile(f"""
        import pytest

        def test_names(ckptaudit):
            assert set({names!r}) <= set(dir(ckptaudit))
            for name in {names!r}:
                assert getattr(ckptaudit, name).__doc__
            with pytest.raises(AttributeError, match="has no 'diff'"):
                ckptaudit.diff
    """)
    run_apart().assert_outcomes(passed=1)


def test_the_configuration_is_read_as_the_command_reads_it(run_plainly, manifest, pytester):
    manifest("net.json"), manifest("v1.json", fc__extra=(1,))
    pytester.makefile(".toml", ckptaudit="""
        contract = "partial"

        [[accept]]
        rule = "CKPT201"
        key = "fc.*"
        reason = "a new head"
    """)  # fmt: skip
    manifest("v2.json", 7)
    pytester.makepyfile("""
        import pytest

        def test_the_contract(ckptaudit):
            ckptaudit.assert_loads("net.json", "v1.json")
            with pytest.raises(AssertionError):
                ckptaudit.assert_loads("net.json", "v1.json", contract="strict")

        def test_the_accept(ckptaudit):
            ckptaudit.assert_loads("net.json", "v2.json")
    """)
    run_plainly().assert_outcomes(passed=2)


def test_a_fault_in_the_configuration_is_a_sentence(run_plainly, manifest, pytester):
    manifest("net.json")
    pytester.makefile(".toml", ckptaudit='contrakt = "strict"\n')
    pytester.makepyfile("def test_it(ckptaudit):\n    ckptaudit.assert_loads('net.json', 'net.json')\n")
    result = run_plainly()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*UsageError: ckptaudit: ckptaudit.toml:1: has the unknown key 'contrakt'*did you mean 'contract'*"]
    )


def test_training_is_audited(run_apart, pytester):
    pytester.makepyfile("""
        import torch
        from networks import Net

        def test_frozen(ckptaudit):
            torch.manual_seed(0)
            net = Net()
            optimizer = torch.optim.SGD(net.fc.parameters(), lr=0.1)

            def step():
                optimizer.zero_grad()
                net.fc(torch.randn(2, 4)).sum().backward()
                optimizer.step()

            ckptaudit.assert_frozen(net, "norm", step)
            ckptaudit.assert_frozen(net, "fc", step)
    """)
    result = run_apart("--ckptaudit-report", "concise=found.txt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *CKPT801*"])
    assert (pytester.path / "found.txt").read_text().count("CKPT801") == 1


def test_two_manifests_that_differ_are_explained(run_plainly, pytester, manifest):
    manifest("a.json"), manifest("b.json", 7)
    pytester.makepyfile("""
        from ckptaudit import Manifest

        def test_equal():
            assert Manifest.load("a.json") == Manifest.load("b.json")

        def test_other_values():
            assert {"a": 1} == {"a": 2}
    """)
    result = run_plainly()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["E *the manifests differ", "E *what *left *right", "E *fc.weight *(10, 4) *(7, 4)"])
