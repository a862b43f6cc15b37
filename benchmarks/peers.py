"""What the benchmarks need to run the peers."""

import sys
from functools import cache
from importlib.util import find_spec
from typing import Any


def import_timm() -> Any:
    """timm, or None where it or torch is not installed.

    To be called before TensorFlow is imported: torchvision's compiled part, loaded after it, ends the process.
    """
    if find_spec("timm") is None or find_spec("torch") is None:
        return None
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # its compiled part was made for another torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
    import timm

    return timm


@cache  # a library that is let go takes its operators with it
def _declare_operators() -> Any:
    """Register what timm asks of torchvision's compiled part; it is not called here."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
