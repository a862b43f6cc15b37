"""
Classify a photo
================

From pixels to labels with real weights, and the scores as bars.
"""

import matplotlib.pyplot as plt

from keras_effnet import EfficientNetLite0, decode_predictions
from keras_effnet.images import center_crop_and_resize, sample

# %%
# The sample is a photo as it comes from a file: uint8, any size. The crop is the one with which the published
# accuracies were measured.

photo = sample("chelsea")
pixels = center_crop_and_resize(photo, 224)
print(photo.shape, "->", pixels.shape, pixels.dtype)

# %%
# The network takes pixels 0..255 and normalises them itself.

model = EfficientNetLite0(weights="imagenet")
scores = model.predict(pixels[None], verbose=0)
top = decode_predictions(scores, top=5)[0]

# %%
# What the network saw, and what it answered.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.imshow(pixels.clip(0, 255).astype("uint8"))
left.axis("off")
right.barh([label for _, label, _ in top], [score for _, _, score in top], color="#3b6ea5")
right.invert_yaxis()
right.set_xlabel("score")
right.spines[["top", "right"]].set_visible(False)
plt.show()
