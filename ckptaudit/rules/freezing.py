"""Area 8: what is declared frozen and moved, what is declared trainable and did not."""

from __future__ import annotations

from .base import Contract, Rule

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
    },
    details={"": "the loss can fall without them", "inconclusive": "audit more steps to know"},
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
    messages={"": "{count} running statistic{s} of frozen norms moved"},
    details={"": "requires_grad=False does not hold them; eval mode does, and model.train() ends it"},
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
    messages={"": "{count} way{s} of freezing that save no time"},
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
