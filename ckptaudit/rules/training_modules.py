"""Area 8, before the first step: modules that write their own tensors, or hide them."""

from __future__ import annotations

from .base import Contract, Rule

_COLUMNS = ("key", "found", "why")

FROZEN_EMBEDDING_RENORMALISED = Rule(
    code="CKPT817",
    name="frozen-embedding-renormalised",
    fixed="warning",
    silent="yes",
    summary="a frozen embedding has max_norm, and renormalises its rows",
    messages={"": "{count} frozen embedding{s} will renormalise longer rows in place"},
    details={"": "each forward pass does so with the rows it looks up, in eval mode too"},
    columns=_COLUMNS,
    why="max_norm writes the weight in the forward pass, without gradient or optimizer.",
    fix="Set max_norm to None for a frozen embedding, and renormalise once before freezing.",
    example="nn.Embedding(32000, 512, max_norm=1.0)",
)
FROZEN_REPARAMETRIZED = Rule(
    code="CKPT818",
    name="frozen-reparametrized",
    breaks=Contract.exact,
    silent="yes",
    summary="a frozen weight is computed from others, which are not frozen",
    messages={
        "": "{count} frozen {tensors} behind a computed weight {have} requires_grad=True",
        "iterates": "{count} {tensors} of a frozen spectral norm will move",
    },
    details={
        "": "module.weight is a result there; the parameters have other names, and are new",
        "iterates": "in train mode each forward pass iterates u and v, and the weight is computed from them",
    },
    columns=_COLUMNS,
    why="weight_norm, spectral_norm and parametrizations replace a weight by what it is computed from.",
    fix="Freeze by module, not by a name that ends in .weight, and after the last reparametrization.",
    example="parametrizations.weight_norm(layer); layer.weight.requires_grad_(False)",
)
FROZEN_OBSERVER = Rule(
    code="CKPT819",
    name="frozen-observer",
    breaks=Contract.exact,
    silent="yes",
    summary="an observer of quantization in a frozen part goes on observing",
    messages={"": "{count} {tensors} of frozen observers will move"},
    details={"": "each forward pass updates the ranges, in train and eval mode"},
    columns=_COLUMNS,
    why="Observers are no norms: neither eval() nor requires_grad stops them.",
    fix="Call module.apply(torch.ao.quantization.disable_observer) on the frozen part, or remove the observers.",
    example="prepare_qat(model)   # and then freeze the backbone",
)
UNREGISTERED = Rule(
    code="CKPT820",
    name="unregistered-tensors",
    fixed="warning",
    silent="yes",
    summary="a module keeps tensors or layers where torch does not find them",
    messages={
        "": "{count} {tensors} in the frozen part {are} plain attribute{s}, neither parameter nor buffer",
        "modules": "{count} Python list{s} of layers that are not part of the model",
    },
    details={
        "": "no flag freezes them, no state dict has them, and model.to() leaves them behind",
        "modules": "their parameters are in no parameters() and in no state dict",
    },
    columns=_COLUMNS,
    why="torch finds parameters, buffers and modules that are attributes; not tensors, lists and dicts.",
    fix="Use register_buffer, nn.Parameter, nn.ModuleList and nn.ModuleDict.",
    example="self.heads = [nn.Linear(4, 2)]",
)
NOT_INITIALISED = Rule(
    code="CKPT821",
    name="lazy-not-initialised",
    fixed="warning",
    silent="yes",
    summary="a lazy layer has no values yet",
    messages={"": "{count} {tensors} of lazy layers {have} no values yet"},
    details={"": "the first forward pass draws them at random: a frozen one keeps what it draws"},
    columns=_COLUMNS,
    why="What has no values cannot be held against anything, and module.requires_grad_ refuses it.",
    fix="Run one forward pass, then load the checkpoint, freeze, and lint again.",
    example="nn.LazyLinear(10)",
)
DROPOUT_IN_FROZEN = Rule(
    code="CKPT822",
    name="dropout-in-frozen",
    fixed="note",
    silent="yes",
    summary="dropout is active in a frozen part",
    messages={"": "{count} layer{s} of the frozen part drop{v} values at random"},
    details={"": "its features then differ from pass to pass; that may be meant"},
    columns=_COLUMNS,
    why="A frozen part in train mode computes noisy features; eval mode is as fast and the same each time.",
    fix="Call eval() on the frozen part after each model.train(), or freeze with ckptaudit.freeze.",
    example="backbone.requires_grad_(False); model.train()",
)
INFERENCE_TENSORS = Rule(
    code="CKPT825",
    name="inference-tensors",
    fixed="warning",
    silent="",
    summary="a model that is to train was made under torch.inference_mode",
    messages={"": "{count} {tensors} {are} made under inference_mode, and cannot train"},
    details={"": "autograd cannot save them for the backward pass, and an optimizer cannot write them"},
    columns=_COLUMNS,
    why="Tensors made in that mode stay outside of autograd for good.",
    fix="Make or load the model outside of it, or clone the parameters.",
    example="with torch.inference_mode(): model = Net()",
)
REENTRANT_CHECKPOINT = Rule(
    code="CKPT826",
    name="reentrant-checkpoint",
    fixed="warning",
    silent="yes",
    summary="a part is checkpointed reentrantly, and its inputs may need no gradient",
    messages={"": "{count} trainable {tensors} may get no gradient behind a reentrant checkpoint"},
    details={"": "nothing that comes before it trains; where no input requires a gradient, none comes out"},
    columns=_COLUMNS,
    why="checkpoint(use_reentrant=True) asks its inputs, not the parameters inside, whether to compute gradients.",
    fix="Use use_reentrant=False, or let the inputs require gradients.",
    example="checkpoint_wrapper(block, checkpoint_impl=CheckpointImpl.REENTRANT)   # after a frozen backbone",
)
