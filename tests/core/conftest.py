"""The devices the core is checked on."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(params=["cpu"] + ["cuda"] * torch.cuda.is_available())
def device(request) -> str:
    """Every device of this machine."""
    return request.param
