"""
Find similar photos
===================

The vector before the classifier describes a photo. Photos with similar content have similar vectors, also for things
that are not among the network's classes.
"""

import matplotlib.pyplot as plt
import numpy as np

from keras_effnet import EfficientNetLite0
from keras_effnet.images import center_crop_and_resize, sample

# %%
# Without a classifier and with average pooling, the network returns 1,280 numbers.

names = ["chelsea", "coffee", "astronaut", "rocket"]
photos = {name: sample(name) for name in names}
backbone = EfficientNetLite0(weights="imagenet", include_top=False, pooling="avg", input_shape=(224, 224, 3))


def features(images):
    pixels = np.stack([center_crop_and_resize(image, 224) for image in images])
    vectors = backbone.predict(pixels, verbose=0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# %%
# Each photo is compared with mirrored, cropped versions of all of them: the cosine of the angle between the vectors.

known = features(photos.values())
changed = features([image[20:-20, 30:-10][:, ::-1] for image in photos.values()])
cosines = changed @ known.T

figure, axis = plt.subplots(figsize=(4.8, 4), layout="constrained")
shown = axis.imshow(cosines, vmin=0, vmax=1, cmap="Blues")
axis.set_xticks(range(len(names)), names)
axis.set_yticks(range(len(names)), [f"{name}, changed" for name in names])
for i, j in np.ndindex(*cosines.shape):
    axis.text(j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", color="white" if cosines[i, j] > 0.6 else "black")
figure.colorbar(shown, label="cosine")
plt.show()

# %%
# Every changed photo is most similar to its original.

for name, row in zip(names, cosines, strict=True):
    print(f"{name:10} -> {names[int(row.argmax())]}")
