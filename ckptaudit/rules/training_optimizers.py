"""Area 8, before the first step: what optimizers, schedulers and wrappers have, and what they lack."""

from __future__ import annotations

from .base import Contract, Rule

_COLUMNS = ("key", "found", "why")

TRAINABLE_IN_NO_OPTIMIZER = Rule(
    code="CKPT810",
    name="trainable-in-no-optimizer",
    fixed="warning",
    silent="yes",
    summary="a trainable parameter is in no optimizer",
    messages={"": "{count} trainable {tensors} {are} in no optimizer"},
    details={"": "the loss can fall without them"},
    columns=_COLUMNS,
    why="It gets gradients, and nothing applies them.",
    fix="Make the optimizer after the last change to the model, or with ckptaudit.param_groups.",
    example="optimizer = SGD(model.fc.parameters())   # and a new layer beside fc",
)
STALE_PARAMETERS = Rule(
    code="CKPT811",
    name="stale-parameters",
    fixed="warning",
    silent="yes",
    summary="an optimizer holds tensors that the model has no longer, and the model others that no optimizer has",
    messages={"": "{count} trainable {tensors} {are} in no optimizer, which was made for other tensors"},
    details={"": "a replaced layer, load_state_dict(assign=True), deepcopy and FSDP2 make new parameters"},
    columns=_COLUMNS,
    why="The optimizer goes on to train the tensors that it was given, which nobody uses any more.",
    fix="Make the optimizer after the last change to the model.",
    example="optimizer = SGD(model.parameters()); model.fc = nn.Linear(512, 2)",
)
PARAMETER_HELD_TWICE = Rule(
    code="CKPT812",
    name="parameter-held-twice",
    breaks=Contract.exact,
    silent="yes",
    summary="a parameter is in a group twice, or in two groups or optimizers",
    messages={
        "": "{count} {tensors} {are} updated more than once in each step",
        "optimizers": "{count} {tensors} {are} in more than one optimizer",
    },
    details={"optimizers": "each has moments of its own, and undoes some of what the other did"},
    columns=_COLUMNS,
    why="Each entry is an update: a parameter that is there twice moves twice as far.",
    fix="Collect each parameter once; ckptaudit.param_groups does.",
    example="SGD([*model.fc.parameters(), model.fc.weight])",
)
EMPTY_GROUP = Rule(
    code="CKPT824",
    name="empty-group",
    fixed="warning",
    silent="yes",
    summary="a parameter group of an optimizer is empty",
    messages={
        "": "{count} parameter group{s} {have} no tensor",
        "missing": "{count} trainable {tensors} {are} in no optimizer, one of whose groups is empty",
    },
    details={
        "": "a generator that was used up, or a filter that matches nothing, makes such a group",
        "missing": "a generator that was used up, or a filter that matches nothing, makes such a group",
    },
    columns=_COLUMNS,
    why="torch refuses an empty list of parameters, but takes an empty group beside others.",
    fix="Make lists of generators, list(model.fc.parameters()), and look at what a filter lets through.",
    example="head = model.fc.parameters(); count(head); SGD([{'params': backbone}, {'params': head}])",
)
GRADIENT_OUTSIDE_OPTIMIZERS = Rule(
    code="CKPT827",
    name="gradient-outside-optimizers",
    fixed="warning",
    silent="yes",
    summary="a parameter that no optimizer has collects gradients",
    messages={"": "{count} {tensors} in no optimizer {have} a gradient, to which each backward pass adds"},
    details={"": "optimizer.zero_grad() passes over them; clip_grad_norm_(model.parameters()) does not"},
    columns=_COLUMNS,
    why="The sum grows, scales the gradients of all others down when clipped, and is applied at once when thawed.",
    fix="Set requires_grad=False for what does not train, and call model.zero_grad().",
    example="optimizer = SGD(model.fc.parameters())   # and the backbone has requires_grad=True",
)
STALE_GRADIENT_IN_NORM = Rule(
    code="CKPT828",
    name="stale-gradient-in-norm",
    fixed="warning",
    silent="yes",
    summary="a parameter without requires_grad, in no optimizer, has a gradient left",
    messages={"": "{count} {tensors} that {are} not to train {have} a gradient left"},
    details={"": "clip_grad_norm_(model.parameters()) counts them in the norm, for as long as they are there"},
    columns=_COLUMNS,
    why="A norm that counts stale gradients scales the true ones down; one NaN among them makes all NaN.",
    fix="Set p.grad = None when you freeze, as ckptaudit.freeze does, or clip what the optimizer has.",
    example="loss.backward(); backbone.requires_grad_(False); optimizer = SGD(head)",
)
UPDATE_BELOW_PRECISION = Rule(
    code="CKPT829",
    name="update-below-precision",
    fixed="warning",
    silent="yes",
    summary="updates are too small for the 16-bit floats of a trainable parameter",
    messages={"": "the updates of {count} trainable {tensors} may round away"},
    details={"": "judged by a few values and the learning rate; weights in float32 (AMP) hold small updates"},
    columns=_COLUMNS,
    why="bfloat16 has 8 bits of precision: what is less than 1/512 of a value is lost when added to it.",
    fix="Keep trainable weights in float32 and compute in bfloat16 (torch.autocast).",
    example="SGD(model.bfloat16().parameters(), lr=1e-6)",
)
AVERAGED_COPY_DIFFERS = Rule(
    code="CKPT830",
    name="averaged-copy-differs",
    breaks=Contract.exact,
    silent="yes",
    summary="a frozen tensor has other bits in the averaged copy of the model",
    messages={"": "{count} frozen {tensors} {have} other bits in the averaged copy"},
    details={"": "d*e + (1-d)*p of two equal values is off by rounding, at each update; e.lerp(p, 1-d) is not"},
    columns=_COLUMNS,
    why="The average is what is saved in the end, and its frozen part is no longer the pretrained one.",
    fix="Average with swa_utils.AveragedModel or lerp, or pass over frozen parameters.",
    example="ema.copy_(0.999 * ema + (1 - 0.999) * p)   # for all parameters",
)
REDUCER_OUT_OF_DATE = Rule(
    code="CKPT831",
    name="reducer-out-of-date",
    breaks=Contract.exact,
    silent="yes",
    summary="flags changed after DistributedDataParallel was made",
    messages={"": "{count} wrapper{s} {have} other parameters to reduce than those that train"},
    details={"": "a parameter thawed since is never averaged over the processes, and they drift apart"},
    columns=_COLUMNS,
    why="DistributedDataParallel notes which parameters require gradients once, when it is made.",
    fix="Set flags first, and make DistributedDataParallel anew when they change.",
    example="ddp = DistributedDataParallel(model); model.layer4.requires_grad_(True)",
)
SCHEDULE_OUT_OF_DATE = Rule(
    code="CKPT832",
    name="schedule-out-of-date",
    breaks=Contract.exact,
    silent="",
    summary="a scheduler was made for another optimizer, or before a group was added",
    messages={
        "": "{count} parameter group{s} came after the scheduler, whose next step raises",
        "other": "{count} scheduler{s} drive{v} an optimizer that is not one of those given",
    },
    details={
        "": "a scheduler knows the groups that were there when it was made",
        "other": "it changes learning rates that nothing here uses",
    },
    columns=_COLUMNS,
    why="A scheduler notes the groups of its optimizer once, when it is made.",
    fix="Make the scheduler after the last add_param_group, and anew with each optimizer.",
    example="scheduler = OneCycleLR(optimizer, ...); optimizer.add_param_group({'params': layer4})",
)
TRAINABLE_WITHOUT_GRADIENT = Rule(
    code="CKPT833",
    name="trainable-without-grad",
    fixed="warning",
    silent="yes",
    summary="a trainable parameter has requires_grad=False",
    messages={"": "{count} trainable {tensors} {have} requires_grad=False"},
    details={"": "they keep the values that they have now"},
    columns=_COLUMNS,
    why="No gradient is computed for it, and optimizers pass over it.",
    fix="Call requires_grad_(True) on what is to train, or declare it frozen.",
    example="model.requires_grad_(False)   # and the head with it",
)
