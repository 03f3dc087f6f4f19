from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from ckptaudit.dtypes import DTYPES
from ckptaudit.formats.pickles.globals import (
    ALLOWED,
    DENSE_CLASSES,
    DTYPE_NAMES,
    INERT,
    STORAGES,
    TENSOR_CLASSES,
    classify,
    full_name,
)


def test_allowed_is_the_table_of_torch() -> None:
    gone_in_2_15 = {"torch._utils._rebuild_nested_tensor"}
    assert set(_get_allowed_globals()) - gone_in_2_15 == ALLOWED
    assert len(ALLOWED) == 144


def test_dtype_names_are_our_dtypes() -> None:
    assert {name.removeprefix("torch.") for name in DTYPE_NAMES} == set(DTYPES) & {
        str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)
    }


def test_storage_classes_have_the_dtype_of_torch() -> None:
    of_torch = torch.storage._storage_type_to_dtype_map()
    for name, dtype in STORAGES.items():
        if dtype is not None:
            assert str(of_torch[name.rpartition(".")[2]]) == f"torch.{dtype}"
    untyped = [name for name, dtype in STORAGES.items() if dtype is None]
    assert untyped == ["torch.storage.TypedStorage", "torch.storage.UntypedStorage"]


def test_tensor_classes_are_those_of_torch() -> None:
    named = {f"{cls.__module__}.{cls.__name__}" for cls in torch._tensor_classes}
    assert named | {"torch.Tensor"} == TENSOR_CLASSES
    for name, dtype in DENSE_CLASSES.items():
        if not name.startswith("torch.cuda"):
            assert str(getattr(torch, name.removeprefix("torch.")).dtype) == f"torch.{dtype}"


def test_no_listed_name_means_something_else_in_python_2() -> None:
    for name in ALLOWED | INERT:
        module, _, attribute = name.rpartition(".")
        assert (module, attribute) not in NAME_MAPPING
        assert module not in IMPORT_MAPPING


def test_lists_are_disjoint() -> None:
    assert not ALLOWED & INERT
    assert all(classify(name) == "allowed" for name in ALLOWED)
    assert all(classify(name) == "inert" for name in INERT)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("posix.system", "dangerous"),
        ("os.path.join", "dangerous"),
        ("subprocess.Popen", "dangerous"),
        ("builtins.eval", "dangerous"),
        ("builtins.getattr", "refused"),
        ("torch.storage._load_from_bytes", "dangerous"),
        ("distutils.spawn.spawn", "dangerous"),
        ("torch.nn.modules.linear.Linear", "refused"),
        ("collections.OrderedDict2", "refused"),
        ("torch._utils._rebuild_tensor_v2.x", "refused"),
        ("Torch.Size", "refused"),
        ("omegaconf.listconfig.ListConfig", "refused"),
        ("functools.partial", "refused"),
        ("numpy._core.multiarray.scalar", "inert"),
        ("argparse.Namespace", "inert"),
        ("torch.FloatStorage", "allowed"),
    ],
)
def test_verdicts(name: str, verdict: str) -> None:
    assert classify(name) == verdict


@pytest.mark.parametrize(
    ("module", "attribute", "name"),
    [
        ("torch", "Size", "torch.Size"),
        ("__builtin__", "set", "builtins.set"),
        ("__builtin__", "xrange", "builtins.range"),
        ("copy_reg", "_reconstructor", "copyreg._reconstructor"),
        ("commands", "getoutput", "subprocess.getoutput"),
        ("torch", "os.system", "torch:os.system"),
        ("torch", "_utils._rebuild_tensor", "torch:_utils._rebuild_tensor"),
        ("builtins", "eval.__call__", "builtins:eval.__call__"),
    ],
)
def test_full_names(module: str, attribute: str, name: str) -> None:
    assert full_name(module, attribute) == name


def test_dotted_attributes_are_never_allowed() -> None:
    assert classify(full_name("torch", "_utils._rebuild_tensor_v2")) == "refused"
    assert classify(full_name("os", "path.join")) == "dangerous"
