"""``assert_manifest`` and ``--ckptaudit-update``: one committed file for each test."""

from __future__ import annotations

from ckptaudit import Manifest

TEST = """
    from models import Net

    def test_layout(ckptaudit):
        ckptaudit.assert_manifest(Net({}))
"""


def files(pytester):
    folder = pytester.path / "__manifests__"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_without_the_option_a_missing_one_fails_and_nothing_is_written(run, pytester):
    pytester.makepyfile(test_net=TEST.format(""))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "*test_layout.json: no such manifest",
        "*hint: write it, look at it, commit it: pytest test_net.py::test_layout --ckptaudit-update",
    ])  # fmt: skip
    assert not (pytester.path / "__manifests__").exists()


def test_the_option_writes_what_differs_and_says_so(run, pytester):
    pytester.makepyfile(test_net=TEST.format(""))
    result = run("--ckptaudit-update")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*ckptaudit: manifests written*", "__manifests__/test_net/test_layout.json"])
    assert Manifest.load(pytester.path / "__manifests__/test_net/test_layout.json")["fc.weight"].shape == (10, 4)
    before = (pytester.path / "__manifests__/test_net/test_layout.json").stat().st_mtime_ns
    result = run("--ckptaudit-update")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*manifests written*")
    assert (pytester.path / "__manifests__/test_net/test_layout.json").stat().st_mtime_ns == before
    run().assert_outcomes(passed=1)
    assert files(pytester) == ["test_net/test_layout.json"]


def test_a_model_that_changed_fails_until_it_is_meant(run, pytester):
    pytester.makepyfile(test_net=TEST.format(""))
    run("--ckptaudit-update")
    pytester.makepyfile(test_net=TEST.format("7"))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E *fc.weight *(10, 4) *(7, 4)*",
        "E *reproduce: ckptaudit diff *model.manifest.json __manifests__/test_net/test_layout.json*",
    ])  # fmt: skip
    run("--ckptaudit-update").assert_outcomes(passed=1)
    run().assert_outcomes(passed=1)


def test_a_compatible_change_is_a_change(run, pytester):
    test = """
        from models import Net

        def test_layout(ckptaudit):
            net = Net()
            net.register_buffer("seen", net.fc.bias.data.clone(), persistent={})
            ckptaudit.assert_manifest(net)
    """
    pytester.makepyfile(test_net=test.format("False").replace("net.reg", "0 and net.reg"))
    run("--ckptaudit-update").assert_outcomes(passed=1)
    pytester.makepyfile(test_net=test.format("False"))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *error[[]CKPT904[]] manifest-outdated*", "E *seen *- *persistent=False*"])


def test_frozen_manifests_are_written_once(run, pytester):
    test = """
        from models import Net

        def test_layout(ckptaudit):
            ckptaudit.assert_manifest(Net({}), frozen="v1")
    """
    pytester.makepyfile(test_net=test.format(""))
    run().assert_outcomes(failed=1)
    run("--ckptaudit-update").assert_outcomes(passed=1)
    assert files(pytester) == ["test_net/test_layout.v1.frozen.json"]
    before = (pytester.path / "__manifests__/test_net/test_layout.v1.frozen.json").read_bytes()
    pytester.makepyfile(test_net=test.format("7"))
    result = run("--ckptaudit-update")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*manifests written*")
    assert (pytester.path / "__manifests__/test_net/test_layout.v1.frozen.json").read_bytes() == before


def test_what_is_frozen_has_to_load_and_not_to_be_equal(run, pytester):
    test = """
        from models import Net

        def test_layout(ckptaudit):
            net = Net()
            net.register_buffer("seen", net.fc.bias.data.clone(), persistent=False)
            ckptaudit.assert_manifest(net, frozen="v1")
    """
    pytester.makepyfile(test_net=test.replace("net.reg", "0 and net.reg"))
    run("--ckptaudit-update").assert_outcomes(passed=1)
    pytester.makepyfile(test_net=test)
    run().assert_outcomes(passed=1)


def test_every_call_and_every_parameter_has_its_own_file(run, pytester):
    pytester.makepyfile(
        test_net="""
        import pytest
        from models import Net

        class TestNet:
            @pytest.mark.parametrize("classes", [2, 3])
            def test_both(self, ckptaudit, classes):
                ckptaudit.assert_manifest(Net(classes))
                ckptaudit.assert_manifest(Net(classes + 1))
                ckptaudit.assert_manifest(Net(classes + 2), name="head")

        @pytest.mark.parametrize("name", ["a/b", "a b", "x" * 300])
        def test_strange(ckptaudit, name):
            ckptaudit.assert_manifest(Net())
    """
    )
    run("--ckptaudit-update").assert_outcomes(passed=5)
    names = files(pytester)
    assert names[:6] == [
        "test_net/TestNet.test_both[2].2.json",
        "test_net/TestNet.test_both[2].head.json",
        "test_net/TestNet.test_both[2].json",
        "test_net/TestNet.test_both[3].2.json",
        "test_net/TestNet.test_both[3].head.json",
        "test_net/TestNet.test_both[3].json",
    ]
    assert len(names) == 9
    assert all(len(name) < 130 and "/" not in name.partition("/")[2] for name in names)
    run().assert_outcomes(passed=5)


def test_many_tests_at_once(run, pytester):
    pytester.makepyfile(
        test_net="""
        import pytest
        from models import Net

        @pytest.mark.parametrize("number", range(40))
        def test_layout(ckptaudit, number):
            ckptaudit.assert_manifest(Net(number + 1))
    """
    )
    result = run("--ckptaudit-update")
    result.assert_outcomes(passed=40)
    assert sum("test_layout[" in line and line.endswith("].json") for line in result.outlines) == 40
    assert len(files(pytester)) == 40
    for number in range(40):
        path = pytester.path / f"__manifests__/test_net/test_layout[{number}].json"
        assert Manifest.load(path)["fc.bias"].shape == (number + 1,)
