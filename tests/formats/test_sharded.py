"""State dicts in several files: the index is checked, and never leads out of its folder."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptaudit.errors import CkptauditError, FormatError
from ckptaudit.formats import Limits, open_checkpoint
from ckptaudit.formats.base import Remark

AGAIN = "download the index and its shards again, from one place"
ONE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(3, dtype=torch.bfloat16)}
TWO = {"c.scale": torch.tensor(2, dtype=torch.int64), "a.bias": torch.zeros(0)}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ORDER = {"a.weight": FIRST, "c.scale": SECOND, "a.bias": SECOND, "b.bias": FIRST}
TOTAL = 24 + 6 + 8


@pytest.fixture
def folder(tmp_path):
    save_file(ONE, tmp_path / FIRST)
    save_file(TWO, tmp_path / SECOND)
    return tmp_path


def write_index(folder, weight_map, metadata=None, name="model.safetensors.index.json"):
    index = {"weight_map": weight_map} if metadata is None else {"metadata": metadata, "weight_map": weight_map}
    (folder / name).write_text(json.dumps(index))
    return folder / name


def error_of(path, **options):
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path, **options)
    return caught.value


def test_keys_keep_the_order_of_the_index_and_bytes_come_from_their_shard(folder):
    path = write_index(folder, ORDER, {"total_size": TOTAL})
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "sharded-safetensors"
    assert checkpoint.path == checkpoint.manifest.source == str(path)
    assert checkpoint.size == sum((folder / name).stat().st_size for name in (FIRST, SECOND))
    assert list(checkpoint.manifest) == list(ORDER)
    assert checkpoint.manifest.versions is None
    for key, name in ORDER.items():
        tensor, raw = load_file(folder / name)[key], checkpoint.tensor(key)
        assert (raw.spec.shape, f"torch.{raw.spec.dtype}") == (tuple(tensor.shape), str(tensor.dtype))
        assert b"".join(raw.storage_chunks()) == bytes(tensor.untyped_storage())
        assert raw.spec == checkpoint.manifest[key]
    assert checkpoint.details == {"shards": "2", "total_size": str(TOTAL)}


def test_storages_of_different_shards_do_not_collide(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"c": torch.ones(2)}, tmp_path / "pytorch_model-2.bin", _use_new_zipfile_serialization=False)
    torch.save({"d": torch.ones(2)}, tmp_path / "pytorch_model-3.bin")
    places = {"d": 3, "a": 1, "b": 1, "c": 2}
    path = write_index(
        tmp_path,
        {key: f"pytorch_model-{number}.bin" for key, number in places.items()},
        name="pytorch_model.bin.index.json",
    )
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "sharded-torch"
    assert list(checkpoint.manifest) == list(places)
    assert checkpoint.manifest.shared_storages() == []
    assert checkpoint.manifest["a"].storage.startswith("pytorch_model-1.bin:")
    members = {found.member.partition(":")[0] for found in checkpoint.globals}
    assert members == {f"pytorch_model-{number}.bin" for number in (1, 2, 3)}
    assert b"".join(checkpoint.tensor("c").storage_chunks()) == bytes(torch.ones(2).untyped_storage())


@pytest.mark.parametrize(
    ("metadata", "facts", "stated"),
    [
        (None, {}, ""),
        ({}, {}, ""),
        ([], {}, ""),
        ({"total_size": TOTAL}, {"total_size": "38"}, ""),
        ({"total_size": float(TOTAL)}, {"total_size": "38.0"}, ""),
        ({"total_size": 4800}, {"total_size": "4800", "total_size_actual": "38"}, "4,800"),
        ({"total_size": "38"}, {"total_size": "38", "total_size_actual": "38"}, "'38'"),
        ({"total_size": "x" * 99}, {"total_size": "x" * 40, "total_size_actual": "38"}, f"'{'x' * 39}"),
        ({"total_size": [38]}, {"total_size": "[38]", "total_size_actual": "38"}, "[38]"),
    ],
)
def test_the_total_size_is_a_fact_and_no_error(folder, metadata, facts, stated):
    checkpoint = open_checkpoint(write_index(folder, ORDER, metadata))
    assert checkpoint.details == {"shards": "2", **facts}
    reason = f"states a total size of {stated} bytes, its tensors have 38"
    assert checkpoint.remarks == ((Remark("CKPT504", reason),) if stated else ())


def test_a_missing_shard_is_named(folder):
    (folder / SECOND).unlink()
    error = error_of(write_index(folder, ORDER))
    assert error.reason == f"names the shard {SECOND!r}, which is not there"
    assert (error.code, error.hint) == ("CKPT501", f"download {SECOND} into {folder}")


def test_a_shard_that_is_a_folder_is_missing(folder):
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()
    assert error_of(write_index(folder, ORDER)).code == "CKPT501"


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "a\\x.safetensors", "C:x.safetensors"],
)
def test_a_shard_name_never_leads_out_of_the_folder(folder, name):
    error = error_of(write_index(folder, {**ORDER, "z": name}))
    assert error.reason == f"names the shard {name!r}, which is not the name of a file in its folder"
    assert (error.code, error.hint) == ("CKPT705", "do not load it; ask where the index comes from")


@pytest.mark.parametrize("name", ["..", ".", "", "x\0.safetensors", "x\x1b[2J.safetensors"])
def test_odd_shard_names_are_refused(folder, name):
    assert error_of(write_index(folder, {**ORDER, "z": name})).code in ("CKPT502", "CKPT705")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(folder):
    inside, outside = folder / "sub", folder / "real.safetensors"
    inside.mkdir()
    save_file(ONE, outside)
    (inside / "x.safetensors").symlink_to(outside)
    error = error_of(write_index(inside, dict.fromkeys(ONE, "x.safetensors")))
    assert error.reason == "names the shard 'x.safetensors', a link to a file outside of its folder"
    assert (error.code, error.hint) == ("CKPT705", f"copy the file itself into {inside}")
    (folder / "y.safetensors").symlink_to("real.safetensors")
    assert len(open_checkpoint(write_index(folder, dict.fromkeys(ONE, "y.safetensors"))).manifest) == 2


@pytest.mark.parametrize("part", ["", "unet"])
def test_the_links_of_a_hugging_face_cache_are_followed(tmp_path, part):
    blobs, revision = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "f00" / part
    blobs.mkdir(parents=True)
    revision.mkdir(parents=True)
    save_file(ONE, blobs / "4d7a")
    index = write_index(blobs, dict.fromkeys(ONE, "model.safetensors"), name="9b1c")
    for link, blob in (("model.safetensors", blobs / "4d7a"), ("model.safetensors.index.json", index)):
        (revision / link).symlink_to(os.path.relpath(blob, revision))
    assert set(open_checkpoint(revision / "model.safetensors.index.json").manifest) == set(ONE)
    (blobs / "4d7a").rename(tmp_path / "models--x" / "4d7a")
    (revision / "model.safetensors").unlink()
    (revision / "model.safetensors").symlink_to(tmp_path / "models--x" / "4d7a")
    assert error_of(revision / "model.safetensors.index.json").code == "CKPT705"


DISAGREEMENTS = {
    "absent": (
        {**ORDER, "z": FIRST, "y": FIRST},
        f"puts 'z' and 1 more into {FIRST}, which does not hold it",
    ),
    "swapped": (
        {**ORDER, "a.weight": SECOND},
        f"puts 'a.weight' into {SECOND}, which does not hold it",
    ),
    "not named": (
        {key: name for key, name in ORDER.items() if key != "b.bias"},
        f"does not fit {FIRST}, which holds 'b.bias': the index does not name it",
    ),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_an_index_that_disagrees_with_a_shard_is_refused(folder, case):
    weight_map, reason = DISAGREEMENTS[case]
    error = error_of(write_index(folder, weight_map))
    assert (error.reason, error.code, error.hint) == (reason, "CKPT502", AGAIN)


def test_a_key_in_two_shards_is_refused(folder):
    save_file({**TWO, "a.weight": torch.zeros(1)}, folder / SECOND)
    error = error_of(write_index(folder, ORDER))
    assert error.reason == f"has the key 'a.weight' in two of its shards, {FIRST} and {SECOND}"
    assert error.code == "CKPT503"


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (
            '{"weight_map": [}',
            "CKPT001",
            "is no index of shards: Expecting value: line 1 column 17 (char 16)",
        ),
        ('["weight_map"]', "CKPT001", "is no index of shards: its weight_map is no object of file names"),
        (
            '{"weight_map": {"a": 1}}',
            "CKPT001",
            "is no index of shards: its weight_map is no object of file names",
        ),
        ('{"weight_map": {}}', "CKPT001", "is an index without a single key"),
        ('{"weight_map": ' + "[" * 99_999, "CKPT001", "is no index of shards: it is nested too deeply"),
        ('{"weight_map": {"a": "x.bin", "a": "y.bin"}}', "CKPT502", "names 'a' twice"),
        ('{"weight_map": {}, "weight_map": {}}', "CKPT502", "names 'weight_map' twice"),
        (
            '{"weight_map": {"a": "x.bin", "b": "x.safetensors"}}',
            "CKPT502",
            "is no index of shards of one kind, .safetensors or .bin: 'x.bin', 'x.safetensors'",
        ),
        (
            '{"weight_map": {"a": "x.pt"}}',
            "CKPT502",
            "is no index of shards of one kind, .safetensors or .bin: 'x.pt'",
        ),
    ],
)
def test_a_broken_index_says_what_is_broken(tmp_path, text, code, reason):
    path = tmp_path / "index.json"
    path.write_text(text)
    error = error_of(path)
    assert (error.reason, error.code, error.subject, error.hint) == (reason, code, str(path), AGAIN)


def test_an_index_of_safetensors_takes_no_pickles(tmp_path):
    torch.save(ONE, tmp_path / FIRST)
    error = error_of(write_index(tmp_path, dict.fromkeys(ONE, FIRST)))
    assert error.reason == f"names the shard {FIRST!r}, which is a torch-zip file in an index of safetensors files"
    assert (error.code, error.hint) == ("CKPT502", AGAIN)
    (tmp_path / FIRST).rename(tmp_path / "x.bin")
    error = error_of(write_index(tmp_path, dict.fromkeys(ONE, "x.bin")))
    assert error.reason == "is no index of shards of one kind, .safetensors or .bin: 'x.bin'"


def test_a_broken_shard_is_the_subject_of_its_own_error(folder):
    os.truncate(folder / SECOND, 40)
    error = error_of(write_index(folder, ORDER))
    assert error.subject == str(folder / SECOND)
    assert error.reason.startswith("ends early: it has 40 bytes")


def test_an_inner_path_is_an_error_that_says_what_there_is(folder):
    path = write_index(folder, ORDER)
    with pytest.raises(FormatError) as caught:
        _ = open_checkpoint(f"{path}#model").manifest
    assert caught.value.code == "CKPT006"
    assert caught.value.reason == "has no state dict at 'model'; it has none below its top level"


def test_limits_hold_for_the_index_and_its_shards(folder):
    path = write_index(folder, ORDER)
    size = path.stat().st_size
    assert error_of(path, limits=Limits(index_bytes=10)).reason == f"is not read: it is a JSON file of {size} bytes"
    assert error_of(path, limits=Limits(json_tokens=4)).reason == "is not read: it has more than 4 JSON tokens"
    assert error_of(path, limits=Limits(shards=1)).reason == "is not read: it names 2 shards"
    assert error_of(path, limits=Limits(key_bytes=2)).reason.startswith("names a key of ")
    assert error_of(path, limits=Limits(safetensors_header_bytes=10)).subject == str(folder / FIRST)


def test_limits_are_for_all_shards_together(folder):
    path = write_index(folder, ORDER)
    headers = [int.from_bytes((folder / name).read_bytes()[:8], "little") + 8 for name in (FIRST, SECOND)]
    for limits, short in (
        (Limits(tensors=len(ORDER)), Limits(tensors=len(ORDER) - 1)),
        (Limits(safetensors_header_bytes=sum(headers)), Limits(safetensors_header_bytes=sum(headers) - 9)),
    ):
        assert len(open_checkpoint(path, limits=limits).manifest) == len(ORDER)
        error = error_of(path, limits=short)
        assert (error.code, error.subject) == ("CKPT703", str(folder / SECOND))


def test_every_truncation_is_an_error(folder):
    path = write_index(folder, ORDER, {"total_size": TOTAL})
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(CkptauditError):
            open_checkpoint(path)
