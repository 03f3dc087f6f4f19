"""``@pytest.mark.ckptaudit``: the contract and the accepts of a test."""

from __future__ import annotations

import pytest

TEST = """
    import pytest

    {}
    def test_loads(ckptaudit):
        ckptaudit.assert_loads("net.json", "v1.json")
"""


@pytest.mark.parametrize(
    ("marker", "passes"),
    [
        ("", False),
        ('@pytest.mark.ckptaudit(contract="open")', True),
        ('@pytest.mark.ckptaudit(accept=[("shape-mismatch", "fc.*", "a new head")])', True),
        ('@pytest.mark.ckptaudit(accept=[("shape-mismatch", "fc.bias", "a new head")])', False),
    ],
)
def test_what_it_holds(run, pytester, manifest, marker, passes):
    manifest("net.json"), manifest("v1.json", 7)
    pytester.makepyfile(TEST.format(marker))
    run("--strict-markers").assert_outcomes(passed=int(passes), failed=int(not passes))


def test_the_nearest_marker_decides(run, pytester, manifest):
    manifest("net.json"), manifest("v1.json", 7)
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.ckptaudit(contract="open")

        def test_loads(ckptaudit):
            ckptaudit.assert_loads("net.json", "v1.json")

        @pytest.mark.ckptaudit(contract="strict")
        def test_is_stricter(ckptaudit):
            with pytest.raises(AssertionError):
                ckptaudit.assert_loads("net.json", "v1.json")
    """)
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        ('@pytest.mark.ckptaudit("open")', "takes contract and accept, and not 'open'"),
        ("@pytest.mark.ckptaudit(contrakt=1)", "takes contract and accept, and not 'contrakt'"),
        ('@pytest.mark.ckptaudit(contract="loose")', "loose: is no contract; choose one of open, partial*"),
        ('@pytest.mark.ckptaudit(accept=["CKPT201"])', "'CKPT201' is no rule, key and reason"),
        ('@pytest.mark.ckptaudit(accept=[("CKPT2", "*", "r")])', "CKPT2: is no rule"),
    ],
)
def test_a_faulty_marker_is_a_sentence(run, pytester, manifest, marker, reason):
    manifest("net.json")
    pytester.makepyfile(TEST.format(marker))
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*UsageError: ckptaudit: *{reason}".replace("[", "[[]")])


def test_it_is_shown(run):
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.ckptaudit(contract=None, accept=()): *"])
