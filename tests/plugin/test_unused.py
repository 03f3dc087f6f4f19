"""``--ckptaudit-unused``: manifests that no test uses, after a run of all tests and no other."""

from __future__ import annotations

import pytest

TESTS = """
    from models import Net

    def test_one(ckptaudit):
        ckptaudit.assert_manifest(Net())

    def test_two(ckptaudit):
        {}
"""
UNUSED = "*ckptaudit: manifests that no test uses*"


@pytest.fixture
def project(run, pytester):
    """Two tests with a manifest each, of which one has gone."""
    pytester.makepyfile(test_net=TESTS.format("ckptaudit.assert_manifest(Net(2))"))
    run("--ckptaudit-update").assert_outcomes(passed=2)
    run().stdout.no_fnmatch_line(UNUSED)
    pytester.makepyfile(test_net=TESTS.format("pass"), test_other="def test_other(): pass\n")
    return run


def test_they_are_named(project):
    result = project()
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    result.stdout.fnmatch_lines([UNUSED, "__manifests__/test_net/test_two.json"])
    result.stdout.no_fnmatch_line("*test_one.json")


def test_as_an_error(project):
    result = project("--ckptaudit-unused=error")
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([UNUSED, "__manifests__/test_net/test_two.json"])


def test_ignored(project):
    result = project("--ckptaudit-unused=ignore")
    assert result.ret == 0
    result.stdout.no_fnmatch_line(UNUSED)


@pytest.mark.parametrize(
    "choice", [("-k", "two or other"), ("test_net.py::test_two",), ("--deselect", "test_net.py::test_one")]
)
def test_a_part_of_the_tests_says_nothing(project, choice):
    result = project(*choice, "--ckptaudit-unused=error")
    assert result.ret == 0
    result.stdout.no_fnmatch_line(UNUSED)


def test_a_test_that_did_not_end_says_nothing_about_its_file(project, pytester):
    pytester.makepyfile(test_net=TESTS.format("import pytest; pytest.skip('not today')"))
    project("--ckptaudit-unused=error").stdout.no_fnmatch_line(UNUSED)
    pytester.makepyfile(test_net=TESTS.format("assert 0"))
    project("--ckptaudit-unused=error").stdout.no_fnmatch_line(UNUSED)


def test_those_of_a_file_that_is_gone(project, pytester):
    (pytester.path / "test_net.py").unlink()
    result = project()
    result.stdout.fnmatch_lines(
        [UNUSED, "__manifests__/test_net/test_one.json", "__manifests__/test_net/test_two.json"]
    )


def test_a_file_that_was_not_asked_for_says_nothing(project):
    result = project("test_other.py", "--ckptaudit-unused=error")
    assert result.ret == 0


def test_a_module_that_uses_the_fixture_no_more(project, pytester):
    pytester.makepyfile(test_net="def test_nothing(): pass\n")
    project().stdout.fnmatch_lines([UNUSED, "__manifests__/test_net/test_one.json"])
