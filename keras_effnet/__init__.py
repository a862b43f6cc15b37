"""EfficientNet as a table, and everything a person does with it (arXiv:1905.11946).

Names are imported when they are first used: `import keras_effnet` alone imports neither Keras nor a backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "inference.activation_maps": ["explain"],
    "design.budget": ["fit_budget"],
    "blocks": ["B0_BLOCKS", "LITE_BLOCKS", "BlockArgs", "decode_blocks", "encode_blocks"],
    "training.ema": ["EMA"],
    "errors": ["WeightsError"],
    "serving.exporting": ["export"],
    "finetuning.run": ["finetune"],
    "inference.fusion": ["fuse"],
    "design.grid": ["grid_search"],
    "imagenet": ["check_input_range", "decode_predictions", "preprocess_input"],
    "models": [
        "EfficientNet",
        *(f"EfficientNet{name}" for name in ("B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "L2")),
        *(f"EfficientNetLite{i}" for i in range(5)),
    ],
    "training.optimizers": ["NesterovL2", "RMSpropTF1"],
    "serving.predictor": ["Predictor"],
    "training.recipes": ["RECIPES", "Recipe"],
    "weights.saving": ["save_weights"],
    "scaling": ["CompoundScaling", "flops_ratio"],
    "weights.published": ["list_weights"],
    "design.search": ["search"],
    "training.run": ["train"],
    "training.speed_up": ["speed_up"],
    "finetuning.transfer": ["replace_head", "unfreeze"],
    "variants": ["VARIANTS", "Variant", "list_models"],
    "weights.loading": ["load_weights"],
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

_MODULES = (
    *_ROOMS,
    "complexity",
    "images",
    "latency",
    "mnas",
    "normalization",
    "paper",
    "registry",
    "rivals",
)

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from keras_effnet.blocks import *
    from keras_effnet.models import *


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
