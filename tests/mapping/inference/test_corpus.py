"""Real conversions between libraries, with the truth traced through the libraries' own code."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from ckptaudit.mapping.inference import infer

from . import corpus

pytestmark = pytest.mark.skipif(not corpus.FOLDER.exists(), reason="the corpus is not beside the checkout")


def test_the_development_set_is_solved_as_well_as_promised():
    score, baselines = corpus.tool("score"), corpus.tool("baselines")
    ours, theirs = defaultdict(Counter), defaultdict(Counter)
    for case in corpus.cases():
        counts = score.score_case(case, corpus.predict(case))
        kinds = {"all", case["kind"], *case["kind_tags"]}
        for kind in kinds:
            ours[kind].update(counts, cases=1)
        for name in ("names", "prefix", "suffix", "order"):
            pairs = getattr(baselines, name)(case["source"], case["target"])
            made = [{"target": key, "sources": [source]} for key, source in pairs.items()]
            rest = [key for key, _, _ in case["target"] if key not in pairs]
            exact = score.score_case(case, {"assignments": made, "uninitialised_target": rest})["exact"]
            for kind in kinds:
                theirs[kind][name] += exact
    total = ours["all"]
    assert total["exact"] >= 0.85 * total["cases"]
    assert ours["library"]["exact"] >= 0.80 * ours["library"]["cases"]
    assert total["wrong"] <= 0.003 * total["counted"]
    assert total["wrong_confident"] <= 0.0005 * total["counted"]
    assert total["right_confident"] >= 0.85 * total["right"]
    assert all(counts["exact"] >= max(theirs[kind].values()) for kind, counts in ours.items())


@pytest.mark.parametrize("case", list(corpus.cases(every=12)), ids=lambda case: case["id"])
def test_an_answer_accounts_for_every_key_and_gives_nothing_twice(case):
    source, target = corpus.manifests(case)
    found = infer(source, target)
    listed = [*(one.target for one in found.assigned), *found.uninitialised, *found.ambiguous]
    assert Counter(listed) == Counter(target.tensors.keys())
    given = Counter(
        (key, one.op)
        for one in found.assigned
        for key in one.sources
        if not one.reason.startswith(("shared", "the only", "a matrix"))
    )
    assert max(given.values()) == 1
