"""EfficientNet as a table, and everything a person does with it (arXiv:1905.11946).

Names are imported when they are first used: `import keras_effnet` alone imports neither Keras nor a backend.
"""

import typing as _typing

__version__ = "0.1.0"

# The public names by the module that defines them; `tests/test_types.py` compares them with the imports below.
_NAMES = {
    "inference.activation_maps": ["explain"],
    "curation.features": ["embed"],
    "curation.inspection": ["inspect_photos"],
    "design.budget": ["fit_budget"],
    "blocks": ["B0_BLOCKS", "LITE_BLOCKS", "BlockArgs", "decode_blocks", "encode_blocks"],
    "training.ema": ["EMA"],
    "errors": ["WeightsError"],
    "serving.exporting": ["export"],
    "finetuning.run": ["finetune"],
    "inference.fusion": ["fuse"],
    "design.grid": ["grid_search"],
    "imagenet": ["check_input_range", "decode_predictions", "normalize", "preprocess_input"],
    "models": [
        "EfficientNet",
        *(f"EfficientNet{name}" for name in ("B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "L2")),
        *(f"EfficientNetLite{i}" for i in range(5)),
        *(f"EfficientNetV2{name}" for name in ("B0", "B1", "B2", "B3", "S", "M", "L", "XL")),
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
_HOME = {name: module for module, names in _NAMES.items() for name in names}

# The documented modules, and where they are.
_MODULES = {
    **{name: name for name in ("blocks", "complexity", "errors", "imagenet", "images", "models", "normalization")},
    **{name: name for name in ("paper", "scaling", "variants")},
    "latency": "design.latency",
    "mnas": "design.mnas",
    "registry": "weights.registry",
    "rivals": "design.rivals",
}

__all__ = sorted(_HOME)

# Type checkers and editors read the imports; Python reads the table when a name is first used.
if _typing.TYPE_CHECKING:
    from keras_effnet import blocks as blocks
    from keras_effnet import complexity as complexity
    from keras_effnet import errors as errors
    from keras_effnet import imagenet as imagenet
    from keras_effnet import images as images
    from keras_effnet import models as models
    from keras_effnet import normalization as normalization
    from keras_effnet import paper as paper
    from keras_effnet import scaling as scaling
    from keras_effnet import variants as variants
    from keras_effnet.blocks import B0_BLOCKS as B0_BLOCKS
    from keras_effnet.blocks import LITE_BLOCKS as LITE_BLOCKS
    from keras_effnet.blocks import BlockArgs as BlockArgs
    from keras_effnet.blocks import decode_blocks as decode_blocks
    from keras_effnet.blocks import encode_blocks as encode_blocks
    from keras_effnet.curation.features import embed as embed
    from keras_effnet.curation.inspection import inspect_photos as inspect_photos
    from keras_effnet.design import latency as latency
    from keras_effnet.design import mnas as mnas
    from keras_effnet.design import rivals as rivals
    from keras_effnet.design.budget import fit_budget as fit_budget
    from keras_effnet.design.grid import grid_search as grid_search
    from keras_effnet.design.search import search as search
    from keras_effnet.errors import WeightsError as WeightsError
    from keras_effnet.finetuning.run import finetune as finetune
    from keras_effnet.finetuning.transfer import replace_head as replace_head
    from keras_effnet.finetuning.transfer import unfreeze as unfreeze
    from keras_effnet.imagenet import check_input_range as check_input_range
    from keras_effnet.imagenet import decode_predictions as decode_predictions
    from keras_effnet.imagenet import normalize as normalize
    from keras_effnet.imagenet import preprocess_input as preprocess_input
    from keras_effnet.inference.activation_maps import explain as explain
    from keras_effnet.inference.fusion import fuse as fuse
    from keras_effnet.models import EfficientNet as EfficientNet
    from keras_effnet.models import EfficientNetB0 as EfficientNetB0
    from keras_effnet.models import EfficientNetB1 as EfficientNetB1
    from keras_effnet.models import EfficientNetB2 as EfficientNetB2
    from keras_effnet.models import EfficientNetB3 as EfficientNetB3
    from keras_effnet.models import EfficientNetB4 as EfficientNetB4
    from keras_effnet.models import EfficientNetB5 as EfficientNetB5
    from keras_effnet.models import EfficientNetB6 as EfficientNetB6
    from keras_effnet.models import EfficientNetB7 as EfficientNetB7
    from keras_effnet.models import EfficientNetB8 as EfficientNetB8
    from keras_effnet.models import EfficientNetL2 as EfficientNetL2
    from keras_effnet.models import EfficientNetLite0 as EfficientNetLite0
    from keras_effnet.models import EfficientNetLite1 as EfficientNetLite1
    from keras_effnet.models import EfficientNetLite2 as EfficientNetLite2
    from keras_effnet.models import EfficientNetLite3 as EfficientNetLite3
    from keras_effnet.models import EfficientNetLite4 as EfficientNetLite4
    from keras_effnet.models import EfficientNetV2B0 as EfficientNetV2B0
    from keras_effnet.models import EfficientNetV2B1 as EfficientNetV2B1
    from keras_effnet.models import EfficientNetV2B2 as EfficientNetV2B2
    from keras_effnet.models import EfficientNetV2B3 as EfficientNetV2B3
    from keras_effnet.models import EfficientNetV2L as EfficientNetV2L
    from keras_effnet.models import EfficientNetV2M as EfficientNetV2M
    from keras_effnet.models import EfficientNetV2S as EfficientNetV2S
    from keras_effnet.models import EfficientNetV2XL as EfficientNetV2XL
    from keras_effnet.scaling import CompoundScaling as CompoundScaling
    from keras_effnet.scaling import flops_ratio as flops_ratio
    from keras_effnet.serving.exporting import export as export
    from keras_effnet.serving.predictor import Predictor as Predictor
    from keras_effnet.training.ema import EMA as EMA
    from keras_effnet.training.optimizers import NesterovL2 as NesterovL2
    from keras_effnet.training.optimizers import RMSpropTF1 as RMSpropTF1
    from keras_effnet.training.recipes import RECIPES as RECIPES
    from keras_effnet.training.recipes import Recipe as Recipe
    from keras_effnet.training.run import train as train
    from keras_effnet.training.speed_up import speed_up as speed_up
    from keras_effnet.variants import VARIANTS as VARIANTS
    from keras_effnet.variants import Variant as Variant
    from keras_effnet.variants import list_models as list_models
    from keras_effnet.weights import registry as registry
    from keras_effnet.weights.loading import load_weights as load_weights
    from keras_effnet.weights.published import list_weights as list_weights
    from keras_effnet.weights.saving import save_weights as save_weights
else:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _HOME:
            value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        elif name in _MODULES:
            value = import_module(f"{__name__}.{_MODULES[name]}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted([*__all__, *_MODULES])
