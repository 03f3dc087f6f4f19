"""What the tests of user code share: a model file, and how to build one or fail to."""

from __future__ import annotations

import pytest

from ckptaudit.errors import ModelError
from ckptaudit.model.build import build
from ckptaudit.model.spec import parse_model_spec

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(4, num_classes)
"""


def built(text, *arguments):
    return build(parse_model_spec(text, arguments))


def failure(text, *arguments):
    with pytest.raises(ModelError) as caught:
        built(text, *arguments)
    return caught.value.subject, caught.value.reason, caught.value.hint
