"""Which trap of loading checkpoints is tested where: each is a fact about torch or another library that was verified.

The numbers are those of the study that the design rests on; INDEX says what each trap is.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

TRAPS = "mapping/test_traps_of_mapping.py"
LOADING = "loading/test_traps_of_loading.py"
INDEX = {
    1: (
        "torch copies what fits before it raises",
        f"{LOADING}::test_torch_copies_before_it_raises_and_this_does_not",
        "loading/test_faults.py::test_a_fault_at_any_line_leaves_the_model",
    ),
    2: ("a deep copy on the meta device unties", f"{LOADING}::test_ties_are_those_of_the_model_and_not_of_a_copy"),
    3: (
        "strict=False raises on shapes, and returns quietly where nothing matched",
        f"{LOADING}::test_what_torch_calls_not_strict",
        "loading/test_load.py::test_a_lost_prefix_loads_nothing_and_says_so",
    ),
    4: (
        "on the meta device all keys match and nothing is loaded",
        "loading/test_load.py::test_a_model_on_meta_needs_assign",
    ),
    5: (
        "assign=True takes dtype and device of the checkpoint, breaks ties and shares memory",
        f"{LOADING}::test_assign_as_torch_does_it_and_as_this_does",
        "loading/test_load.py::test_assign_takes_the_tensors_and_keeps_ties_and_flags",
        "loading/test_load.py::test_assigned_memory_is_neither_the_files_nor_the_callers",
    ),
    6: (
        "assign=True is written into the caller's _metadata",
        "loading/test_load.py::test_the_callers_metadata_is_left_alone",
    ),
    7: (
        "a copy casts in silence: overflow, floats to integers, complex to real",
        f"{TRAPS}::test_a_cast_keeps_to_the_kind_of_the_values",
        "loading/test_load.py::test_a_cast_that_loses_values",
        "mapping/test_ops.py::test_a_cast_is_torchs",
        "rules/test_tensors.py::test_casts_that_lose_something",
        "rules/test_tensors.py::test_a_cast_is_named_where_values_do_not_survive_it",
    ),
    8: (
        "one element loads into a scalar, and not the reverse",
        f"{TRAPS}::test_a_scalar_goes_into_one_element_by_a_reshape",
        "compare/test_align.py::test_one_element_fits_a_scalar_but_not_the_reverse",
        "rules/test_tensors.py::test_one_element_goes_into_a_scalar_and_not_back",
    ),
    9: (
        "a parameter registered as None makes its key unexpected",
        f"{TRAPS}::test_a_bias_that_the_model_registers_as_none_is_unexpected_and_dropped",
        "model/test_trial.py::test_known_traps",
    ),
    10: (
        "extra state need be no tensor, and is a key like others",
        f"{TRAPS}::test_extra_state_moves_with_its_module_and_no_operation_takes_it",
        "mapping/test_execute.py::test_entries_keep_their_place_and_metadata_moves",
        "rules/test_modules.py::test_extra_state_on_one_side",
    ),
    11: (
        "lazy modules take any shape; buffers that are not persistent are in no file",
        f"{TRAPS}::test_a_lazy_model_takes_what_a_mapping_makes",
        "loading/test_load.py::test_what_stays_on_meta_is_said",
        f"{TRAPS}::test_an_operation_takes_no_parameter_without_a_shape",
        "rules/test_tensors.py::test_a_lazy_model_takes_any_shape_and_says_so",
        "rules/test_modules.py::test_a_buffer_that_left_the_state_dict",
    ),
    12: (
        "without its version a batch norm's counter is forgiven: dropping _metadata changes the verdict",
        "test_audit.py::test_a_mapping_keeps_the_module_versions",
        f"{LOADING}::test_versions_are_those_of_the_file",
        "compare/test_align.py::test_the_counter_of_a_batch_norm_is_forgiven_only_to_old_or_bare_state_dicts",
    ),
    13: (
        "load hooks bridge disjoint keys: weight_g and weight_v",
        f"{TRAPS}::test_load_hooks_see_the_names_that_a_mapping_makes",
        "rules/test_modules.py::test_what_hooks_bridge_is_a_note_and_no_error",
        "rules/test_modules.py::test_another_parametrization_is_one_finding",
    ),
    14: (
        "tied weights have two names, a strict load needs both, and of two values the last one wins",
        f"{TRAPS}::test_a_tie_gives_the_alias_that_a_strict_load_asks_for",
        "loading/test_load.py::test_tied_names_with_other_values",
        "rules/test_modules.py::test_values_of_a_tie_are_compared_in_the_file",
        "rules/test_modules.py::test_values_of_a_tie_are_found_under_a_mapping",
        "conversions/test_gpt2.py::test_a_tie_that_the_mapping_makes_is_one_tensor",
    ),
    17: (
        "wrappers add segments anywhere in a key, and a submodule may bear such a name",
        f"{TRAPS}::test_wrappers_are_stripped_at_any_depth",
        f"{TRAPS}::test_a_checkpoint_wrapper_leaves_no_trace_in_the_keys",
        f"{TRAPS}::test_plain_weights_go_into_a_wrapper",
        f"{TRAPS}::test_a_submodule_called_module_beside_its_own_name_is_a_collision",
    ),
    18: (
        "equal shapes say nothing: transposed and swapped tensors load",
        f"{TRAPS}::test_tensors_of_equal_shape_are_not_paired_by_their_order",
        "conversions/test_gpt2.py::"
        "test_a_square_weight_that_is_not_transposed_loads_in_silence_and_computes_something_else",
    ),
    19: (
        "a view is saved with its whole storage",
        "mapping/test_execute.py::test_views_are_not_kept_alive",
        "rules/test_files.py::test_a_view_of_a_large_storage",
    ),
    20: (
        "a file that is mapped into memory and overwritten kills the process",
        f"{LOADING}::test_the_file_may_be_overwritten_afterwards",
    ),
    21: (
        "safetensors sorts its keys and has no _metadata",
        f"{TRAPS}::test_a_mapping_does_not_depend_on_the_order_of_the_file",
        "formats/test_safetensors.py::test_keys_keep_the_order_of_the_header_not_of_the_offsets",
    ),
    22: (
        "conjugate and negative bits are no values",
        "mapping/test_execute.py::test_conjugate_and_negative_views_become_values",
        "model/test_describe.py::test_conjugate_and_negative_views",
    ),
    24: (
        "rows that are folded by name alone show what is not there",
        "test_keys.py::test_folding_loses_nothing_and_names_no_key_twice",
        "test_keys.py::test_a_ragged_set_is_not_filled_up",
    ),
    25: (
        "a tied name that a library left out of the file is no loss",
        "rules/test_modules.py::test_a_missing_tie_is_no_missing_key",
        f"{TRAPS}::test_a_tie_gives_the_alias_that_a_strict_load_asks_for",
    ),
    30: (
        "two sources on one target lose a tensor in silence; a rule acts again on its own result",
        "mapping/test_execute.py::test_what_would_lose_a_tensor_or_do_nothing_is_an_error",
        "mapping/test_mapping.py::test_two_keys_on_one_are_reported_and_the_first_stays",
        "mapping/test_execute.py::test_what_does_not_act_again_is_idempotent",
        "mapping/test_execute.py::test_the_rules_that_would_act_again_are_named",
        "rules/test_keys.py::test_a_collision_is_an_error_whatever_the_contract",
    ),
}

INDEX[33] = (
    "a state dict has no requires_grad, and loading keeps the model's",
    f"{LOADING}::test_requires_grad_is_the_models",
)
# The others belong to parts whose own tests name them: readers, conversion, values, freezing.
ELSEWHERE = {15, 16, 23, 26, 27, 28, 29, 31, 32}


def test_every_trap_has_one_place():
    assert sorted([*INDEX, *ELSEWHERE]) == list(range(1, 34))


def named_in(path):
    """Return the names of the tests of a file, those in classes included."""
    nodes = ast.walk(ast.parse((TESTS / path).read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("number", INDEX)
def test_the_tests_of_a_trap_are_there(number):
    _, *tests = INDEX[number]
    assert tests
    for path, name in (test.split("::") for test in tests):
        assert name in named_in(path), f"{path} has no {name}"


def test_every_test_of_traps_is_in_the_index():
    listed = {test.partition("::")[2] for _, *tests in INDEX.values() for test in tests if test.startswith(TRAPS)}
    assert listed == named_in(TRAPS)
