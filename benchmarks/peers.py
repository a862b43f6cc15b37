"""What the benchmarks need to run the peers."""

import sys
from importlib.util import find_spec
from typing import Any


def import_timm() -> Any:
    """timm, or None where it or torch is not installed.

    To be called before TensorFlow is imported: torchvision's compiled part, loaded after it, ends the process. Where
    that part does not load at all, being made for another torch, what timm asks of it is declared; it is not called.
    """
    if find_spec("timm") is None or find_spec("torch") is None:
        return None
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    import timm

    return timm


# A library that is let go takes its operators with it.
_kept: list[Any] = []
