"""DistributedDataParallel: what it noted when it was made, against what trains now."""

from __future__ import annotations

from collections.abc import Iterator

from torch.nn.parallel import DistributedDataParallel

from ...rules import Finding
from ...rules.training_optimizers import REDUCER_OUT_OF_DATE
from ...words import plural
from .findings import Row, finding
from .setup import Setup


def check_reducers(setup: Setup) -> Iterator[Finding]:
    """Find reducers made for another number of parameters, or of bytes, than require gradients now."""
    rows: list[Row] = []
    for path, module in setup.modules:
        if isinstance(module, DistributedDataParallel):
            noted = module._get_ddp_logging_data()
            count, size = noted.get("num_parameter_tensors"), noted.get("total_parameter_size_bytes")
            train = [
                parameter
                for name, parameter in module.module.named_parameters()
                if parameter.requires_grad and name not in module.parameters_to_ignore
            ]
            if count is not None and (len(train), sum(one.nbytes for one in train)) != (count, size):
                where = path or type(module).__name__
                rows.append((where, f"reduces {plural(int(count), 'tensor')}", f"{len(train):,} require gradients now"))
    if rows:
        yield finding(setup, REDUCER_OUT_OF_DATE, rows, explains=False)
