"""
Train a classifier of your own
==============================

`finetune` does this with folders of photos. Here it is in a few lines of Keras: features of a pretrained network, and a
new classifier on them.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_effnet import EfficientNetLite0, unfreeze
from keras_effnet.images import center_crop_and_resize, sample

# %%
# Three classes, 24 crops each, cut at random from three photos. (Use photos of your own: crops of one photo are easy.)

rng = np.random.default_rng(0)
names = ["chelsea", "coffee", "rocket"]


def crop(image):
    height, width = (int(side * rng.uniform(0.5, 0.8)) for side in image.shape[:2])
    top, left = rng.integers(image.shape[0] - height), rng.integers(image.shape[1] - width)
    return center_crop_and_resize(image[top : top + height, left : left + width], 128)


photos = {name: sample(name) for name in names}
images = np.stack([crop(photos[name]) for name in names for _ in range(24)])
labels = np.repeat(np.arange(3), 24)
train = np.arange(72) % 4 != 0

# %%
# The new classifier starts at chance: the first loss is ln 3 = 1.10.

model = EfficientNetLite0(weights="imagenet", classes=3, input_shape=(128, 128, 3))
unfreeze(model, 0)
model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
print(f"before: loss {model.evaluate(images, labels, verbose=0)[0]:.2f}")

history = model.fit(
    images[train], labels[train], validation_data=(images[~train], labels[~train]), epochs=6, batch_size=16, verbose=0
)
print(f"after:  accuracy {history.history['val_accuracy'][-1]:.2f} on crops that were held out")

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.plot(history.history["loss"], "o-", label="training", color="#3b6ea5")
axis.plot(history.history["val_loss"], "o-", label="held out", color="#b7791f")
axis.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
plt.show()
