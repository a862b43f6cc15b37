"""What the peers need: operators that a CPU build of torch does not know, and random numbers in every tensor."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    """Declare the operators that torchvision's compiled part would register; no classifier calls them."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library


@pytest.fixture
def randomise_torch() -> Callable[[Any], Any]:
    """Give a torch model seeded statistics and biases in which every tensor matters; its kernels keep their scale."""

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
    """Save a torch model's state as its library does, in every layout in turn."""

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
