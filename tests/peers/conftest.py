"""Fixtures for the peers: missing operators of CPU builds of torch, and random values in every tensor."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    """Declare the operators that torchvision's compiled extension would register; classifiers do not call them."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library


@pytest.fixture
def randomise_torch() -> Callable[[Any], Any]:
    """Fill a torch model with seeded statistics and biases, so that every tensor affects the output."""

    torch = pytest.importorskip("torch", reason="torch is not installed")

    def fill(model: Any, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 1.5)
                elif name.endswith(("running_mean", "bias")):
                    tensor.normal_(0, 0.1)
                elif tensor.ndim == 1:
                    tensor.uniform_(0.5, 1.0)
        return model.eval()

    return fill


@pytest.fixture(params=["zip", "legacy", "safetensors"])
def save(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[Any], Any]:
    """Save the state dict of a torch model in each file format."""

    torch = pytest.importorskip("torch", reason="torch is not installed")

    def write(model: Any) -> Any:
        path = tmp_path / "file"
        if request.param == "safetensors":
            safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
            safetensors.save_file(model.state_dict(), path)
        else:
            torch.save(model.state_dict(), path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return write
