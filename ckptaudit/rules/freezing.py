"""Area 8: what is declared frozen and moved, what is declared trainable and did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .base import Contract, Finding, Rule
from .meta import CHECK_SKIPPED
from .verdicts import TensorVerdict, is_statistic

FROZEN_TENSOR_CHANGED = Rule(
    code="CKPT801",
    name="frozen-tensor-changed",
    breaks=Contract.exact,
    silent="yes",
    summary="a tensor that is declared frozen has other bits than before",
    messages={
        "": "{count} frozen {tensors} changed",
        "attribute": "{count} {tensors} changed that frozen modules keep as plain attributes",
    },
    details={
        "": "requires_grad=False only ends the computing of gradients",
        "attribute": "no state dict has them and no flag freezes them; where they are a cache, nothing is wrong",
    },
    columns=("key", "moved", "why"),
    why="requires_grad=False stops the computing of gradients; optimizers, averages and code that writes go on.",
    fix="See the cause; ckptaudit.freeze(model, patterns) sets flags, drops gradients and holds statistics.",
    example="optimizer.zero_grad(set_to_none=False)   # weight decay moves a parameter whose gradient is zeros",
)
TRAINABLE_TENSOR_UNCHANGED = Rule(
    code="CKPT802",
    name="trainable-tensor-unchanged",
    fixed="warning",
    silent="yes",
    summary="a tensor that is meant to train has the bits that it had before",
    messages={
        "": "{count} trainable {tensors} did not change",
        "inconclusive": "{count} trainable {tensors} did not change yet, and that need not mean anything",
        "undeclared": "{count} {tensors} outside of what is frozen did not change",
    },
    details={
        "": "the loss can fall without them",
        "inconclusive": "audit more steps to know",
        "undeclared": "files do not tell buffers from parameters; --trainable PATTERN names what has to change",
    },
    columns=("key", "verdict", "why"),
    why="A layer in no optimizer, or that no gradient reaches, keeps its initial values; the loss falls all the same.",
    fix="See the cause; make the optimizer after the last change to the model, or with ckptaudit.param_groups.",
    example="model.fc = nn.Linear(512, 2)   # after the optimizer was made",
)
FROZEN_STATISTICS_DRIFTED = Rule(
    code="CKPT803",
    name="frozen-statistics-drifted",
    breaks=Contract.exact,
    silent="yes",
    summary="the running statistics of a frozen norm moved",
    messages={
        "": "{count} running statistic{s} of frozen norms moved",
        "evident": "{count} running statistic{s} moved of norms whose weights did not",
    },
    details=dict.fromkeys(
        ("", "evident"), "requires_grad=False does not hold them; eval mode does, and model.train() ends it"
    ),
    columns=("key", "moved", "why"),
    why="A frozen backbone then computes other features than the pretrained one, in eval mode too.",
    fix="Freeze with ckptaudit.freeze(model, patterns), or call eval() on the frozen part after each model.train().",
    example="for p in backbone.parameters(): p.requires_grad = False   # and then model.train()",
)
FREEZE_SAVES_NOTHING = Rule(
    code="CKPT851",
    name="freeze-saves-nothing",
    fixed="warning",
    silent="yes",
    summary="a way of freezing under which every gradient is still computed",
    messages={"": "no gradient is saved by {count} way{s} of freezing"},
    details={"": "autograd asks requires_grad alone; set it to False, as ckptaudit.freeze(model, patterns) does"},
    columns=("variant", "speed-up", "why"),
    why="A learning rate of zero, or leaving parameters out of the optimizer, stops the update and not the gradients: "
    "the backward pass and the saved activations are those of full fine-tuning.",
    fix="Set requires_grad=False: ckptaudit.freeze(model, patterns) also holds running statistics.",
    example="torch.optim.AdamW([{'params': backbone, 'lr': 0.0}, {'params': head}])",
)
SPEED_UP_BELOW_PREDICTION = Rule(
    code="CKPT852",
    name="speed-up-below-prediction",
    fixed="warning",
    silent="yes",
    summary="freezing makes the step far less fast than its operations explain",
    messages={"": "{variant} is slower than its operations explain"},
    details={"": "predicted from the time that each operation of the step takes on this machine on its own"},
    columns=("variant", "speed-up", "predicted", "probable cause"),
    why="Something else than the operations takes the time: hooks, copies, Python between them, or an optimizer that "
    "still has everything. It is there with and without freezing, and weighs more the faster the rest is.",
    fix="See the phase that is named; profile that one.",
    example="model.register_forward_hook(log_every_activation)",
)
SPEED_UP_MISSED = Rule(
    code="CKPT853",
    name="speed-up-missed",
    breaks=Contract.exact,
    summary="a speed-up that was asked for is not reached, by the whole of its interval",
    messages={"": "{variant} is {ratio} times as fast, and {least} was asked for"},
    details={"": "the 95 % interval ends at {high}"},
    columns=(),
    why="--min-speedup and min_speedup= ask for it: a change that thaws a part, or breaks a freeze, shows here first.",
    fix="Compare the plans before and after (ckptaudit bench --plan).",
    example="ckptaudit bench model.py --input 8,3,224,224 --min-speedup 2",
)


FREEZE_PATTERN_UNMATCHED = Rule(
    code="CKPT804",
    name="freeze-pattern-unmatched",
    fixed="error",
    summary="a pattern of what is frozen or trainable matches no tensor: exit status 2",
    messages={"": "no tensor matches {count} pattern{s}"},
    details={"": "what was meant by it is held to nothing"},
    columns=("pattern", "given as", "closest"),
    why="A misspelt pattern, or a layer that was renamed, freezes and checks nothing, in silence.",
    fix="Write the names without those of wrappers; ckptaudit inspect shows them. Layers in a Python list have none.",
    example="ckptaudit frozen base.pth tuned.pth 'bakbone.*'",
)


def findings(judged: Iterable[TensorVerdict], *, declared: bool, of_files: bool = False) -> list[Finding]:
    """Put verdicts into findings; ``declared`` says that the user named the trainable tensors, and holds them to it.

    ``of_files`` says that whatever is not frozen may be a buffer, where nothing is declared.
    """
    judged = list(judged)
    moved = [one for one in judged if one.verdict == "moved"]
    statistics = [one for one in moved if is_statistic(one.name)]
    attributes = [one for one in moved if one.kind == "attribute"]
    rest = [one for one in moved if one not in statistics and one not in attributes]
    found = [_moved(FROZEN_TENSOR_CHANGED, rest)] if rest else []
    if attributes:
        found.append(_moved(FROZEN_TENSOR_CHANGED, attributes, case="attribute", breaks=Contract.resume))
    if statistics:
        found.append(_moved(FROZEN_STATISTICS_DRIFTED, statistics))
    stuck = [one for one in judged if one.expected == "trainable" and one.verdict not in ("trained", "inconclusive")]
    if stuck:
        guessed = of_files and not declared
        case, breaks = ("undeclared", Contract.resume) if guessed else ("", Contract.exact if declared else None)
        found.append(_stuck(stuck, case, breaks=breaks))
    if open_ := [one for one in judged if one.verdict == "inconclusive"]:
        found.append(_stuck(open_, case="inconclusive", breaks=Contract.resume))
    if unread := [one for one in judged if one.verdict == "not checked" and one.expected == "frozen"]:
        data = {"reason": f"{unread[0].name} {unread[0].cause.text if unread[0].cause else ''}"}
        found.append(Finding(CHECK_SKIPPED, tuple(one.name for one in unread), "unread", data))
    return found


def _moved(rule: Rule, moved: list[TensorVerdict], **rest: Any) -> Finding:
    """Word tensors that moved at one time for one cause alike, by the largest change of all, so that they fold."""
    groups: dict[tuple[str, str, bool], list[TensorVerdict]] = {}
    for one in moved:
        counts = one.difference is not None and one.difference.max_ulp is None  # num_batches_tracked
        groups.setdefault((one.when, _why(one), counts), []).append(one)
    how = {id(one): text for (when, *_), group in groups.items() for text in [_how(when, group)] for one in group}
    rows = tuple((one.name, how[id(one)], _why(one)) for one in moved)
    data = {"verdicts": [one.to_json() for one in moved]}
    return Finding(rule, tuple(one.name for one in moved), data=data, rows=rows, **rest)


def _how(when: str, group: list[TensorVerdict]) -> str:
    known = [one.difference for one in group if one.difference is not None and one.difference.looked]
    if not known:
        return when
    if len(group) == 1:
        return ", ".join(filter(None, (when, known[0].text)))
    largest = max(known, key=lambda one: (one.max_abs or 0.0, one.max_ulp or 0))
    return ", ".join(filter(None, (when, largest.size)))


def _why(one: TensorVerdict) -> str:
    text = one.cause.text if one.cause else ""
    return f"{text}; {one.blame.text}" if one.blame else text


def _stuck(stuck: list[TensorVerdict], case: str = "", breaks: Contract | None = None) -> Finding:
    rows = tuple((one.name, one.verdict, one.cause.text if one.cause else "") for one in stuck)
    data = {"verdicts": [one.to_json() for one in stuck]}
    return Finding(TRAINABLE_TENSOR_UNCHANGED, tuple(one.name for one in stuck), case, data, rows, breaks=breaks)
