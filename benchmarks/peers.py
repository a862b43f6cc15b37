"""Import other libraries for the benchmarks."""

import sys
from functools import cache
from importlib.util import find_spec
from typing import Any


def import_timm() -> Any:
    """timm, or None if timm or torch is not installed.

    Call this before TensorFlow is imported: loading torchvision's compiled extension after it crashes the process.
    """
    if find_spec("timm") is None or find_spec("torch") is None:
        return None
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # its compiled extension was built for another version of torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
    import timm

    return timm


@cache  # keep a reference: a deleted library unregisters its operators
def _declare_operators() -> Any:
    """Declare the operators of torchvision's compiled extension that timm looks up; they are never called here."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
