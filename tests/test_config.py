"""[tool.ckptaudit]: what it may say, where it is found, and how a fault in it is told."""

from __future__ import annotations

from datetime import date

import pytest

from ckptaudit.config import find_config, load_config, parse_config
from ckptaudit.errors import UsageError
from ckptaudit.records import replace
from ckptaudit.rules import Contract

WHOLE = """[project]
name = "net"

[tool.ckptaudit]
contract = "exact"
baseline = "baseline.json"

[tool.ckptaudit.targets.net]
model = "models.py:Net"
args = { classes = 10, name = "3", sizes = [1, 2] }
checkpoint = ["weights/v*.pth#state_dict", "latest.safetensors"]
manifest = "net.manifest.json"
map = ["module.* -> *"]
drop = ["fc.*"]
contract = "partial"

[tool.ckptaudit.targets."the head"]
model = "models:head"
checkpoint = "head.pth"

[[tool.ckptaudit.accept]]
rule = "shape-mismatch"
key = "fc.*"
reason = "a head for 10 classes"
target = "net"
expires = 2027-01-01

[[tool.ckptaudit.accept]]
rule = "CKPT102"
key = "{a,b}.bias"
reason = "left over"

[tool.ckptaudit.rules]
missing-key = "warning"
CKPT005 = "off"
"""


def test_everything_it_may_say():
    config = parse_config(WHOLE, "pyproject.toml")
    net, head = config.targets
    assert (config.contract, config.baseline, config.folder) == (Contract.exact, "baseline.json", "")
    assert (net.name, net.model, net.manifest, net.contract) == (
        "net",
        "models.py:Net",
        "net.manifest.json",
        Contract.partial,
    )
    assert net.checkpoints == ("weights/v*.pth#state_dict", "latest.safetensors")
    assert net.arguments == ("classes=10", "name='3'", "sizes=[1, 2]")
    assert [str(rule) for rule in net.mapping.rules] == ["module.* -> *", "drop fc.*"]
    assert (net.place, head.place) == ("pyproject.toml:8", "pyproject.toml:17")
    assert (head.name, head.checkpoints, head.contract, head.mapping) == (
        "the head",
        ("head.pth",),
        Contract.exact,
        None,
    )
    first, second = config.accepts
    assert (first.rule, str(first.key), first.reason, first.target) == (
        "CKPT201",
        "fc.*",
        "a head for 10 classes",
        "net",
    )
    assert (first.expires, second.expires, second.place) == (date(2027, 1, 1), None, "pyproject.toml:28")
    assert config.levels == {"CKPT101": "warning", "CKPT005": None}


def test_an_argument_is_read_back_as_it_was_written():
    from ckptaudit.model.spec import parse_model_spec

    (net, _) = parse_config(WHOLE, "pyproject.toml").targets
    assert parse_model_spec(net.model, net.arguments).arguments == {"classes": 10, "name": "3", "sizes": [1, 2]}


def test_an_accept_holds_until_its_day_is_over():
    accept = parse_config(WHOLE, "pyproject.toml").accepts[0]
    assert [accept.expired(date(2027, 1, day)) for day in (1, 2)] == [False, True]


def test_a_file_of_its_own_has_no_prefix():
    whole, own = parse_config(WHOLE, "pyproject.toml"), WHOLE.partition("\n\n")[2]
    own = own.replace("[tool.ckptaudit]\n", "").replace("tool.ckptaudit.", "")
    config = parse_config(own, "ckptaudit.toml")
    assert [replace(one, place="") for one in config.targets] == [replace(one, place="") for one in whole.targets]
    assert [replace(one, place="") for one in config.accepts] == [replace(one, place="") for one in whole.accepts]
    assert (config.levels, config.baseline, config.targets[0].place) == (
        whole.levels,
        whole.baseline,
        "ckptaudit.toml:4",
    )


TARGET = '[tool.ckptaudit.targets.net]\nmodel = "m.py"\n'
ACCEPT = '[[tool.ckptaudit.accept]]\nrule = "CKPT201"\nkey = "fc.*"\n'


@pytest.mark.parametrize(
    ("text", "place", "reason", "hint"),
    [
        ("[tool.ckptaudit]\ncontrakt = 1\n", "2", "has the unknown key 'contrakt'; did you mean 'contract'?", "accept, baseline, contract, rules, targets"),
        ('[tool.ckptaudit]\ncontract = "strickt"\n', "2", "contract is 'strickt', which is no contract; did you mean 'strict'?", "open, partial"),
        ("[tool.ckptaudit]\ncontract = 3\n", "2", "contract is 3, which is no text", ""),
        ('[tool.ckptaudit.targets.net]\nmodle = "m.py"\n', "2", "targets.net has the unknown key 'modle'; did you mean 'model'?", "model"),
        ('[tool.ckptaudit.targets.net]\ncheckpoint = "x"\n', "1", "targets.net names no model", 'model = "model.py:Net"'),
        (TARGET, "1", "targets.net names neither a checkpoint nor a manifest: there is nothing to check the model against", "net.manifest.json"),
        (TARGET + "checkpoint = [1]\n", "3", "targets.net.checkpoint is no text, and no list of texts", ""),
        (TARGET + 'checkpoint = "x"\nmap = "a -> b -> c"\n', "4", "a -> b -> c: ", ""),
        (TARGET + 'checkpoint = "x"\ndrop = "fc.{"\n', "4", "fc.{: ", ""),
        (TARGET + 'checkpoint = "x"\nargs = "n=1"\n', "4", "targets.net.args is 'n=1', which is no table", ""),
        ("[tool.ckptaudit]\ntargets = 3\n", "2", "targets is 3, which is no table", ""),
        (ACCEPT, "1", "accept has no reason", "reason = "),
        (ACCEPT + 'reason = "  "\n', "4", "accept.reason is '  ', which is no text", ""),
        (ACCEPT + 'reason = "r"\nexpires = "2027-01-01"\n', "5", "accept.expires is '2027-01-01', which is no date", "expires = 2027-01-01"),
        (ACCEPT + 'reason = "r"\nexpires = 2027-01-01T00:00:00\n', "5", "accept.expires is datetime.datetime(2027, 1, 1, 0, 0), which is no date", ""),
        (ACCEPT + 'reason = "r"\ntarget = "nett"\n' + TARGET + 'checkpoint = "x"\n', "5", "accept.target is 'nett', which is no target; did you mean 'net'?", ""),
        (ACCEPT + 'reason = "r"\n\n' + ACCEPT + 'reasn = "r"\n', "9", "accept has the unknown key 'reasn'; did you mean 'reason'?", ""),
        (ACCEPT.replace("CKPT201", "shape-mismach") + 'reason = "r"\n', "2", "shape-mismach: is no rule", "ckptaudit explain shape-mismatch"),
        (ACCEPT.replace("CKPT201", "CKPT905") + 'reason = "r"\n', "2", "accept.rule is CKPT905: what was not checked cannot be accepted", ""),
        (ACCEPT.replace("fc.*", "fc.{") + 'reason = "r"\n', "3", "fc.{: ", ""),
        ("[tool.ckptaudit]\naccept = 1\n", "2", "accept is no array of tables", ""),
        ('[tool.ckptaudit.rules]\nmissing-kee = "off"\n', "2", "missing-kee: is no rule", "ckptaudit explain missing-key"),
        ('[tool.ckptaudit.rules]\nmissing-key = "loud"\n', "2", "rules.missing-key is 'loud', which is no level", "error, warning, note, off"),
        ('[tool.ckptaudit.rules]\ncheck-skipped = "off"\n', "2", "rules.check-skipped grades CKPT905, but what was not checked has not passed", ""),
        ("[tool.ckptaudit\n", "1", "is not valid TOML: ", "targets.net"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line(text, place, reason, hint):
    with pytest.raises(UsageError) as error:
        parse_config(text, "pyproject.toml")
    assert error.value.subject == f"pyproject.toml:{place}"
    assert error.value.reason.startswith(reason)
    assert hint in (error.value.hint or "")


class TestDiscovery:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        (tmp_path / "project" / "deep" / "er").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "project" / "deep" / "er")
        (tmp_path / "pyproject.toml").write_text("[tool.ckptaudit]\n")
        return tmp_path

    def test_the_nearest_one_upwards_that_has_the_table(self, folder):
        (folder / "project" / "pyproject.toml").write_text("[tool.other]\nckptaudit = 1\n")
        assert find_config() == "../../../pyproject.toml"
        (folder / "project" / "pyproject.toml").write_text("[tool.ckptaudit]\n")
        assert find_config() == "../../pyproject.toml"
        (folder / "project" / "deep" / "ckptaudit.toml").write_text("")
        assert find_config() == "../ckptaudit.toml"
        assert load_config().folder == ".."

    def test_where_there_is_none(self, folder):
        (folder / "pyproject.toml").unlink()
        if find_config() is not None:
            pytest.skip("a folder above the temporary one has a configuration")
        with pytest.raises(UsageError, match=r"a folder above has a pyproject\.toml with \[tool\.ckptaudit\]"):
            load_config()


def test_targets_are_chosen_by_name():
    config = parse_config(WHOLE, "pyproject.toml")
    assert [t.name for t in config.choose(["the head"])] == ["the head"]
    assert [t.name for t in config.choose([])] == ["net", "the head"]
    with pytest.raises(UsageError, match="ned: is no target; did you mean 'net'") as error:
        config.choose(["ned"])
    assert error.value.hint == "the targets of pyproject.toml: net, the head"


def test_a_mapping_of_a_file_is_read_beside_the_configuration(tmp_path):
    (tmp_path / "map.toml").write_text('[[rule]]\nrename = "module.* -> *"\n')
    text = TARGET + 'checkpoint = "x"\nmap = "map.toml"\n'
    (target,) = parse_config(text, str(tmp_path / "pyproject.toml")).targets
    assert [str(rule) for rule in target.mapping.rules] == ["module.* -> *"]
