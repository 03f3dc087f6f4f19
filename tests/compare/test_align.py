from ckptaudit.compare.align import align
from ckptaudit.compare.predict import predict
from ckptaudit.manifest import Manifest, TensorSpec


def spec(*shape, dtype="float32", **rest):
    return TensorSpec(shape, dtype, **rest)


def test_every_key_has_one_place_and_lists_keep_their_sides_order():
    checkpoint = Manifest(
        {"z.weight": spec(2), "fc.weight": spec(10, 3), "a.weight": spec(4), "old": spec(1)}, {"epoch": "int"}
    )
    model = Manifest({"fc.weight": spec(5, 3), "new": spec(1), "a.weight": spec(4), "z.weight": spec(2)})
    alignment = align(checkpoint, model)
    assert alignment.matched_keys == ("a.weight", "z.weight")
    assert alignment.missing_keys == ("new",)
    assert alignment.unexpected_keys == ("old", "epoch")
    assert alignment.mismatched_keys == ("fc.weight",)
    assert alignment.to_json()["mismatched_keys"] == [{"key": "fc.weight", "checkpoint": [10, 3], "model": [5, 3]}]


def test_a_dtype_difference_still_matches_and_is_listed():
    alignment = align(Manifest({"w": spec(2, dtype="float64")}), Manifest({"w": spec(2)}))
    assert alignment.matched_keys == ("w",)
    assert alignment.to_json()["dtype_mismatches"] == [{"key": "w", "checkpoint": "float64", "model": "float32"}]


def test_a_number_where_the_model_has_a_tensor_is_no_match():
    alignment = align(Manifest({}, {"w": "list"}), Manifest({"w": spec(2)}))
    assert alignment.non_tensor_keys == ("w",)
    outcome = predict(alignment)
    assert not outcome.non_strict
    assert outcome.errors == (
        'While copying the parameter named "w", expected torch.Tensor, the checkpoint holds list',
    )


def test_extra_state_may_hold_anything():
    alignment = align(Manifest({}, {"m._extra_state": "dict"}), Manifest({"m._extra_state": spec(3)}))
    assert alignment.matched_keys == ("m._extra_state",)


def test_one_element_fits_a_scalar_but_not_the_reverse():
    assert align(Manifest({"s": spec(1)}), Manifest({"s": spec()})).matched_keys == ("s",)
    assert align(Manifest({"s": spec()}), Manifest({"s": spec(1)})).mismatched_keys == ("s",)


def test_a_lazy_parameter_takes_any_shape():
    lazy = TensorSpec((), "float32", layout="uninitialized")
    assert align(Manifest({"w": spec(3, 4)}), Manifest({"w": lazy})).matched_keys == ("w",)


def _batch_norm(versions, *, with_counter):
    tensors = {"bn.running_mean": spec(2, kind="buffer")}
    if with_counter:
        tensors["bn.num_batches_tracked"] = spec(dtype="int64", kind="buffer")
    return Manifest(tensors, versions=versions)


def test_the_counter_of_a_batch_norm_is_forgiven_only_to_old_or_bare_state_dicts():
    model = _batch_norm({"bn": 2}, with_counter=True)
    for versions, forgiven in [(None, True), ({"bn": 1}, True), ({"bn": 2}, False)]:
        alignment = align(_batch_norm(versions, with_counter=False), model)
        assert predict(alignment).strict is forgiven
