"""Draw the README's picture, `docs/_static/chelsea.png`: a photo, its activation map and its labels, by Lite0."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from keras_effnet import EfficientNetLite0, decode_predictions, explain
from keras_effnet.images import center_crop_and_resize, sample


def main() -> None:
    model = EfficientNetLite0(weights="imagenet")
    photo = sample("chelsea")
    pixels = center_crop_and_resize(photo, 224)
    top = decode_predictions(model.predict(pixels[None], verbose=0), top=5)[0]
    [seen] = explain(model, [photo])
    map_ = Image.fromarray(seen.maps[0].values.astype("float32")).resize((224, 224), Image.Resampling.BICUBIC)

    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained", width_ratios=(1, 1, 1.15))
    for axis in axes[:2]:
        axis.imshow(pixels.clip(0, 255).astype("uint8"))
        axis.axis("off")
    axes[1].imshow(np.maximum(np.asarray(map_), 0), cmap="inferno", alpha=0.55)
    labels, scores = [label.replace("_", " ") for _, label, _ in top], [score for _, _, score in top]
    bars = axes[2].barh(labels, scores, color="#3b6ea5")
    axes[2].bar_label(bars, fmt="%.2f", padding=3)
    axes[2].invert_yaxis()
    axes[2].set_xticks([])
    axes[2].set_xlim(0, 0.5)
    axes[2].spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "_static" / "chelsea.png", dpi=100)


if __name__ == "__main__":
    main()
