"""A training step in its parts: what computes the loss, and the optimizer that applies its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import UsageError
from ...records import dataclass

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]
MakeStep = Callable[[nn.Module, Groups], "TrainStep"]

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,  # with momentum
}


@dataclass(eq=False)
class TrainStep:
    """One optimizer step on one batch that stays where it is.

    ``loss`` runs the model and returns a scalar; ``optimizer`` has the parameters that train; ``samples`` is the
    number of samples in the batch. Gradients are set to None after each step.
    """

    loss: Callable[[], Tensor]
    optimizer: Optimizer
    samples: int = 1

    def forward(self) -> Tensor:
        """Run the model and return the loss."""
        return self.loss()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()

    def update(self) -> None:
        """Apply the gradients and drop them."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def run(self) -> None:
        """Run the whole step."""
        self.backward(self.forward())
        self.update()


@dataclass(frozen=True)
class InputSpec:
    """The shape and dtype of one positional argument of the model, as in ``8,3,224,224`` and ``8,128:int64``.

    Without a dtype it is the model's. Floats are normal, integers 0 or 1, and Booleans True.
    """

    shape: tuple[int, ...]
    dtype: str = ""

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Read the text form. Raises UsageError."""
        numbers, _, dtype = text.partition(":")
        parts = numbers.split(",")
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UsageError(f"--input {text}", "is no shape", "write it as --input 8,3,224,224 or 8,128:int64")
        if dtype and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise UsageError(
                f"--input {text}", f"{dtype} is no dtype of torch", "one of float32, bfloat16, int64, bool"
            )
        return cls(tuple(map(int, parts)), dtype)

    def make(self, dtype: torch.dtype) -> Tensor:
        """Return a batch on torch's current default device, in ``dtype`` where the spec has none of its own."""
        own: torch.dtype = getattr(torch, self.dtype) if self.dtype else dtype
        if own.is_floating_point or own.is_complex:
            return torch.randn(self.shape, dtype=own)
        return torch.ones(self.shape, dtype=own) if own is torch.bool else torch.randint(0, 2, self.shape, dtype=own)


def default_step(inputs: Iterable[InputSpec], optimizer: str = "adamw") -> MakeStep:
    """Return the maker of a plain step: a fixed batch, the mean of the outputs' squares as loss, one optimizer.

    The loss is there to send a gradient to every output, at no cost of its own.
    """
    specs = tuple(inputs)

    def make_step(model: nn.Module, parameters: Groups) -> TrainStep:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        batch = [spec.make(dtype) for spec in specs]
        options = {"lr": 1e-5} | ({"momentum": 0.9} if optimizer == "sgd" else {})
        return TrainStep(
            lambda: squares(model(*batch)), OPTIMIZERS[optimizer](parameters, **options), specs[0].shape[0]
        )

    return make_step


def squares(output: Any) -> Tensor:
    """Return the mean square of every floating-point tensor of an output that carries a gradient."""
    leaves = [leaf for leaf in tree_leaves(_opened(output)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not leaves:
        raise UsageError("the model's output", "carries no gradient", "a loss of your own: --step train.py:make_step")
    return torch.stack([leaf.float().square().mean() for leaf in leaves]).sum()


def _opened(output: Any) -> Any:
    """Return the values of an output that is a mapping of its own class, as those of transformers are."""
    return dict(output) if isinstance(output, Mapping) else output
