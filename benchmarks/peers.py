"""What the benchmarks need to run the peers."""

from functools import cache
from typing import Any


@cache
def declare_operators() -> Any:
    """Register what torchvision's compiled part would, which does not load beside a CPU build of torch.

    Call it before timm is imported, which asks for these operators and does not call them here.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
