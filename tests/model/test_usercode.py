"""The user's code is imported as if run from its folder, and its failures become sentences."""

from __future__ import annotations

import sys

from workshop import NET, built, failure


def test_a_misspelt_attribute(write):
    write(NET)
    assert failure("model.py:Nett") == (
        "model.py:Nett",
        "model.py has no attribute 'Nett'; the closest is 'Net'",
        "ckptaudit diff model.py:Net CHECKPOINT",
    )


def test_an_attribute_like_no_other(write):
    write(NET)
    assert failure("model.py:completely_other") == (
        "model.py:completely_other",
        "model.py has no attribute 'completely_other'",
        "ckptaudit diff model.py CHECKPOINT",
    )


def test_a_missing_file(write):
    write(NET, "models.py")
    assert failure("model.py:Net") == (
        "model.py:Net",
        "there is no file model.py; the closest is models.py",
        "ckptaudit diff models.py:Net CHECKPOINT",
    )
    assert failure("a/b.py") == (
        "a/b.py",
        "there is no file a/b.py",
        "give the path of the file that defines the model, from the current folder",
    )


def test_a_syntax_error(write):
    write("x = 1\nclass Net(:\n")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", "python -m py_compile model.py")
    assert reason == "line 2 of model.py is not valid Python: invalid syntax"


def test_a_syntax_error_in_an_imported_file(write):
    write("import broken_part\n")
    path = write("def f(:\n", "broken_part.py")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", f"python -m py_compile {path}")
    assert reason.startswith(f"line 1 of {path} is not valid Python: ")


def test_a_module_that_is_not_there(write):
    write("import no_such_package.part\n")
    assert failure("model.py") == (
        "model.py",
        "imports 'no_such_package', which was not found",
        "pip install no_such_package, or run from the folder that holds it",
    )
    assert failure("no_such_module.inner:Net") == (
        "no_such_module.inner:Net",
        "there is no module 'no_such_module'",
        "pip install no_such_module, or run from the folder that holds it",
    )


def test_a_name_that_cannot_be_imported(write):
    write("from textwrap import nothing_like_it\n")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", "for the traceback: ckptaudit diff model.py CHECKPOINT --debug")
    assert reason.startswith("cannot be imported: ImportError: cannot import name 'nothing_like_it' from 'textwrap'")


def test_a_module_that_imports_lazily(write):
    write("def __getattr__(name):\n    import no_such_package\n")
    assert failure("model.py:Net")[1] == "imports 'no_such_package', which was not found"


def test_an_exception_at_import(write):
    write("x = 1\nraise ValueError('no weights\\nhere')\n")
    assert failure("model.py:Net") == (
        "model.py:Net",
        "cannot be imported: ValueError: no weights",
        "for the traceback: ckptaudit diff model.py:Net CHECKPOINT --debug",
    )


def test_sys_exit_at_import(write):
    write("import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n")
    assert failure("model.py") == (
        "model.py",
        "ends the program when it is imported (SystemExit: 2)",
        "put what it runs as a script under: if __name__ == '__main__':",
    )


def test_a_script_is_not_run_and_sees_no_arguments_of_ours(write):
    write(NET + "import sys\nassert sys.argv == ['model.py']\nif __name__ == '__main__':\n    raise SystemExit\n")
    assert built("model.py:Net").facts.device == "meta"


def test_neighbours_can_be_imported(write):
    write("from neighbour_of_the_model import Net\n", "sub/model.py")
    write(NET, "sub/neighbour_of_the_model.py")
    model = built("sub/model.py:Net")
    assert (model.facts.name, model.facts.line) == ("sub/model.py:Net", 6)
    assert model.facts.file == str(sys.modules["neighbour_of_the_model"].__file__)


def test_the_projects_folder_can_be_imported_from_too(write):
    write("from project_part.net import Net\n", "sub/model.py")
    write(NET, "project_part/net.py")
    assert built("sub/model.py:Net").facts.device == "meta"


def test_a_file_inside_a_package_may_import_relatively(write):
    write("", "packaged_zoo/__init__.py")
    write("from ..base import Net\n", "packaged_zoo/nets/big.py")
    write("", "packaged_zoo/nets/__init__.py")
    write(NET, "packaged_zoo/base.py")
    assert built("packaged_zoo/nets/big.py:Net").facts.name == "packaged_zoo/nets/big.py:Net"


def test_a_file_named_like_a_known_module(write):
    write(NET, "json.py")
    import json

    assert built("json.py").module.fc.weight.is_meta
    assert sys.modules["json"] is json


def test_a_module_of_the_current_folder(write):
    write(NET, "zoo_of_here/nets.py")
    model = built("zoo_of_here.nets:Net")
    assert (model.facts.name, model.facts.line) == ("zoo_of_here.nets:Net", 6)
    assert model.facts.file == str(sys.modules["zoo_of_here.nets"].__file__)


def test_dataclasses_and_string_annotations_work_in_the_file(write):
    write(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass C:\n    n: int = 1\n" + NET
    )
    assert built("model.py").facts.name == "model.py:Net"
