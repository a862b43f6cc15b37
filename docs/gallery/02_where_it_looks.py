"""
See where the network looks
===========================

A class activation map shows which parts of a photo speak for a class. Lite0 ends in average pooling and a dense layer,
so its map is exact: the map's mean, plus the bias, is the class's logit.
"""

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from keras_effnet import EfficientNetLite0, explain
from keras_effnet.images import center_crop_and_resize, sample

# %%
# One call for a photo and the classes that interest us.

model = EfficientNetLite0(weights="imagenet")
photo = sample("chelsea")
[seen] = explain(model, [photo], classes=["tabby", "Egyptian_cat"])
for found in seen.maps:
    print(f"{seen.method}  {found.label:14} {found.values.shape}")

# %%
# The maps have 7 x 7 values. They are enlarged and drawn over the pixels that the network saw.

pixels = center_crop_and_resize(photo, 224).clip(0, 255).astype("uint8")
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
axes[0].imshow(pixels)
axes[0].set_title("photo")
for axis, found in zip(axes[1:], seen.maps, strict=True):
    small = Image.fromarray(found.values.astype("float32"))
    smooth = np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC))
    axis.imshow(pixels)
    axis.imshow(np.maximum(smooth, 0), cmap="inferno", alpha=0.55)
    axis.set_title(found.label)
for axis in axes:
    axis.axis("off")
plt.show()
