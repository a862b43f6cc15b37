"""Fine-tune on batches of this package, augmented with layers of keras-cv that Keras does not have.

command   python examples/with_keras_cv.py
expected  batches of pixels 0..255 with mixed labels; all 8 held-out crops are classified correctly (1.00)
hardware  any; 60 seconds on 2 CPU cores
needs     pip install ".[quickstart]" keras-cv==0.9.0
"""

import argparse
from typing import Any

import keras
import keras_cv
import numpy as np
import tensorflow as tf

import keras_effnet
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.tf_batches import Batches, training_batches, validation_batches
from keras_effnet.data.tf_sources import from_rows
from keras_effnet.finetuning.transfer import unfreeze
from keras_effnet.images import sample


def augmented(images: Any, labels: Any) -> tuple[Any, Any]:
    """One batch: mask a grid or a square in each image, then swap squares and labels between images."""
    # Pixels of the bicubic crop may be slightly outside the range that the layers expect.
    batch = {"images": tf.clip_by_value(images, 0.0, 255.0), "labels": labels}
    for layer in LAYERS:
        batch = layer(batch, training=True)
    return batch["images"], batch["labels"]


LAYERS = (
    keras_cv.layers.RandomChoice([keras_cv.layers.GridMask((0.1, 0.4)), keras_cv.layers.RandomCutout(0.4, 0.4)]),
    keras_cv.layers.CutMix(),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small images")
    size = 96 if parser.parse_args().smoke else 224
    keras.utils.set_random_seed(1)

    photos = [sample("chelsea"), sample("coffee")]
    crops = np.stack([photos[i % 2][:200, 6 * i : 6 * i + 200] for i in range(40)])
    names, labels = [f"crop {i}" for i in range(40)], np.arange(40) % 2
    train = from_rows(names[:32], crops[:32], labels[:32])
    plan = Batches(batch_size=8, size=size, classes=2)
    batches = training_batches(train, plan, steps=4, odd=OddFiles(32)).map(augmented)
    images, mixed = next(iter(batches))
    print(f"a batch: {images.shape}, {np.min(images):.0f}..{np.max(images):.0f}; first label {np.asarray(mixed[0])}")

    model = keras_effnet.EfficientNetLite0(classes=2, input_shape=(size, size, 3))
    unfreeze(model, 1)
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches, steps_per_epoch=4, epochs=8, shuffle=False, verbose=0)
    held_out = validation_batches(from_rows(names[32:], crops[32:], labels[32:]), plan, odd=OddFiles(8))
    _, accuracy = model.evaluate(held_out, steps=1, verbose=0)
    print(f"accuracy on 8 crops held out: {accuracy:.2f}")


if __name__ == "__main__":
    main()
