"""Area 8, before the first step: what is declared frozen, and what will move it all the same."""

from __future__ import annotations

from .base import Contract, Rule

_COLUMNS = ("key", "found", "why")

FROZEN_REQUIRES_GRAD = Rule(
    code="CKPT806",
    name="frozen-requires-grad",
    breaks=Contract.exact,
    silent="yes",
    summary="a frozen parameter has requires_grad=True",
    messages={
        "": "{count} frozen {tensors} {have} requires_grad=True and an optimizer",
        "omitted": "{count} frozen {tensors} {have} requires_grad=True and no optimizer",
    },
    details={
        "": "the next step trains them",
        "omitted": "they hold, at the price of training; zero_grad() passes over their gradients",
    },
    columns=_COLUMNS,
    why="An optimizer trains what has a gradient, whatever it was called.",
    fix="Freeze with ckptaudit.freeze(model, patterns), after the last change to the model.",
    example="model.backbone[0] = nn.Linear(4, 4)   # after freezing: a new layer requires gradients",
)
FROZEN_NORM_IN_TRAIN_MODE = Rule(
    code="CKPT807",
    name="frozen-norm-in-train-mode",
    breaks=Contract.exact,
    silent="yes",
    summary="a frozen norm with running statistics is in train mode",
    messages={"": "{count} running statistic{s} of frozen norms will move"},
    details={"": "in train mode each forward pass updates them, whatever requires_grad says"},
    columns=_COLUMNS,
    why="The frozen part then computes other features than the pretrained one, in eval mode too.",
    fix="Freeze with ckptaudit.freeze(model, patterns), or call eval() on the frozen part after each model.train().",
    example="for p in backbone.parameters(): p.requires_grad = False   # and then model.train()",
)
FROZEN_HAS_GRADIENT = Rule(
    code="CKPT808",
    name="frozen-has-gradient",
    fixed="warning",
    silent="yes",
    summary="a frozen parameter in an optimizer still has a gradient",
    messages={"": "{count} frozen {tensors} still {have} a gradient"},
    details={"": "the next step applies it; zero_grad(set_to_none=False) leaves zeros, which are applied as well"},
    columns=_COLUMNS,
    why="Weight decay, momentum and moments move a parameter whose gradient is there, be it zeros.",
    fix="Set p.grad = None when you freeze; ckptaudit.freeze(model, patterns) does.",
    example="loss.backward(); backbone.requires_grad_(False); optimizer.step()",
)
FROZEN_IN_OPTIMIZER = Rule(
    code="CKPT809",
    name="frozen-in-optimizer",
    fixed="note",
    silent="yes",
    summary="an optimizer keeps state for a frozen parameter, or has decay for frozen rows",
    messages={
        "": "{count} frozen {tensors} {have} state in an optimizer",
        "history": "{count} frozen {tensors} {are} in the history of an optimizer",
        "rows": "{count} {tensors} with frozen rows will move in them",
    },
    details={
        "": "without a gradient nothing comes of it, until they are thawed",
        "history": "LBFGS steps along its history, gradient or not",
        "rows": "masked gradients do not keep an optimizer's decay from the masked rows",
    },
    columns=_COLUMNS,
    why="State from before freezing costs memory and acts again after thawing; a history acts at once.",
    fix="Make the optimizer anew when the frozen part changes; give partly frozen tensors a group without decay.",
    example="optimizer = LBFGS(model.parameters())   # some steps, then backbone.requires_grad_(False)",
)
LEARNING_RATE_ZERO = Rule(
    code="CKPT813",
    name="learning-rate-zero",
    fixed="warning",
    silent="yes",
    summary="a learning rate of 0 stands in for freezing, or keeps a trainable parameter from training",
    messages={
        "": "{count} frozen {tensors} {are} held by lr=0 alone",
        "raised": "{count} frozen {tensors} at lr=0 will train when the schedule raises it",
        "trainable": "{count} trainable {tensors} {are} in a group with lr=0",
    },
    details={
        "": "it costs as much as training; one gradient that is not finite makes them NaN, and -0.0 becomes 0.0",
        "raised": "the schedule was run on a copy",
        "trainable": "nothing that was given raises it",
    },
    columns=_COLUMNS,
    why="lr=0 is a factor, not a freeze: schedules overwrite it, and 0 times infinity is NaN.",
    fix="Use requires_grad=False for what is frozen, and give the schedulers to the lint.",
    example="SGD([{'params': backbone, 'lr': 0.0}, {'params': head}]) and OneCycleLR(optimizer, max_lr=0.1)",
)
MEMORY_SHARED = Rule(
    code="CKPT814",
    name="memory-shared-with-trainable",
    breaks=Contract.exact,
    silent="yes",
    summary="a frozen tensor and one that is not lie in the same memory",
    messages={"": "{count} frozen {tensors} {have} memory in common with one that is not frozen"},
    details={"": "they are different parameters with flags of their own, and a write to one is a write to both"},
    columns=_COLUMNS,
    why="requires_grad belongs to a tensor, values to the memory behind it.",
    fix="Clone the values of one, or tie the weights by assigning the same parameter.",
    example="head.weight = nn.Parameter(emb.weight.data)",
)
TIED_NAMES_DISAGREE = Rule(
    code="CKPT815",
    name="tied-names-disagree",
    breaks=Contract.exact,
    silent="yes",
    summary="one tensor is declared frozen under one name, and otherwise under another",
    messages={
        "": "{count} frozen {tensors} will train under another name",
        "claimed": "{count} {tensors} {are} declared both frozen and trainable",
    },
    details={
        "": "tied weights are one tensor: requires_grad and the optimizer know it once",
        "claimed": "tied weights are one tensor: requires_grad and the optimizer know it once",
    },
    columns=_COLUMNS,
    why="named_parameters() gives a tied tensor once, so that a loop over names sees one of them only.",
    fix="Declare all names of a tensor alike, or untie the weights.",
    example="head.weight = emb.weight   # and then frozen='head'",
)
FLAG_WITHOUT_EFFECT = Rule(
    code="CKPT816",
    name="flag-without-effect",
    breaks=Contract.exact,
    silent="yes",
    summary="requires_grad is set on a module, or misspelt on a parameter",
    messages={"": "{count} {tensors} {have} a flag that does nothing"},
    details={"": "Python takes any attribute; autograd asks each parameter for requires_grad"},
    columns=_COLUMNS,
    why="module.requires_grad = False makes an attribute of the module and changes no parameter.",
    fix="Call module.requires_grad_(False), with the underscore, or ckptaudit.freeze(model, patterns).",
    example="model.backbone.requires_grad = False",
)
WRAPPER_PREFIX = Rule(
    code="CKPT823",
    name="wrapper-prefix",
    breaks=Contract.exact,
    silent="yes",
    summary="nothing of the frozen part is frozen, and a wrapper has changed its names",
    messages={"": "{count} frozen {tensors} {have} requires_grad=True, behind names that a wrapper begins"},
    details={"": 'a loop with name.startswith("backbone") finds nothing where a wrapper begins each name'},
    columns=_COLUMNS,
    why="DataParallel, DistributedDataParallel and torch.compile put a prefix before every name.",
    fix="Freeze before wrapping, or with ckptaudit.freeze, which leaves out what wrappers add.",
    example="model = nn.DataParallel(model)   # before the loop that freezes by name",
)
EVAL_MODE_ENDS = Rule(
    code="CKPT834",
    name="eval-mode-ends",
    fixed="note",
    silent="yes",
    summary="a frozen norm is in eval mode, and model.train() will end it",
    messages={"": "{count} running statistic{s} of frozen norms hold{v} until the next model.train()"},
    details={"": "a loop that calls eval() on the frozen part after each model.train() is right"},
    columns=_COLUMNS,
    why="model.train() puts every module below it into train mode, those that eval() was called on too.",
    fix="Call eval() on the frozen part after each model.train(), or freeze with ckptaudit.freeze.",
    example="model.backbone.eval()   # once, and model.train() in each epoch",
)
