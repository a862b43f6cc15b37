"""Compare fine-tuning with training only the head, and with training from scratch for the same time.

command   TF_ENABLE_ONEDNN_OPTS=1 python benchmarks/finetune.py DIR [--model lite0] [--seeds 3]
prints    a row per seed: accuracy on the held-out photos, wall time and CPU time in seconds; then the means
data      DIR contains one subfolder per class, or train/ and val/ that contain these
measured  2026-11, 2 cores, 500 + 200 photos of flowers, seeds 0 to 2: fine-tuned 0.880, 0.870,
          0.885, mean 0.878; head alone 0.835; 182, 178 and 177 s, CPU time 282, 278 and 285 s (a slower
          machine took 263 and 439 s for the first; with AVX-512: 0.860, 0.880, 0.880, mean 0.873). From scratch, for
          the time of 20 epochs, seed 0: 0.200, 0.320
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.data.photo_batches import Photos, random_view, read_photos, shrink, training_batches
from keras_effnet.finetuning.report import FineTuned
from keras_effnet.finetuning.tf_generator import as_dataset, predict
from keras_effnet.variants import find_variant


def from_scratch(run: FineTuned, seconds: float) -> float:
    """Accuracy of the same network with random weights, trained on the same crops for the given time."""
    classes, size = len(run.photos.classes), run.classifier.size
    name = find_variant(run.classifier.name).builder
    model = getattr(keras_effnet, name)(weights=None, classes=classes)
    model.compile(keras.optimizers.AdamW(1e-3), "categorical_crossentropy")
    end = time.perf_counter() + seconds

    def stop(batch: int, logs: object = None) -> None:
        model.stop_training = time.perf_counter() > end

    train, _ = read_photos(run.photos.train, partial(shrink, size=size), memory=2**30)
    view = partial(random_view, size=size, smallest=run.settings["smallest_crop"], mirror=run.settings["mirror"])
    batches = training_batches(train, view, classes=classes, batch_size=32, seed=run.settings["seed"])
    # Epochs of one step, since Keras checks `stop_training` at the end of an epoch.
    watch = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    model.fit(as_dataset(batches), steps_per_epoch=1, epochs=10**6, callbacks=[watch], shuffle=False, verbose=0)
    return _accuracy(model, run, size)


def _accuracy(model: object, run: FineTuned, size: int) -> float:
    prepare = partial(keras_effnet.images.center_crop_and_resize, size=size)
    val: Photos = read_photos(run.photos.val, prepare, memory=2**30)[0]
    found = predict(model, val).argmax(axis=-1)
    return float(np.mean(found == [row.target for row in val.rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    print(f"{'seed':>4}{'fine-tuned':>12}{'head alone':>12}{'scratch':>9}{'wall s':>8}{'cpu s':>8}")
    for seed in range(options.seeds):
        run = keras_effnet.finetune(options.data, model=options.model, seed=seed)
        seconds = sum(run.seconds.values())
        rows.append((run.val_accuracy, run.head_val_accuracy, from_scratch(run, seconds), seconds, run.cpu_seconds))
        print("{:4}{:12.3f}{:12.3f}{:9.3f}{:8.0f}{:8.0f}".format(seed, *rows[-1]), flush=True)
    print("mean{:12.3f}{:12.3f}{:9.3f}{:8.0f}{:8.0f}".format(*map(statistics.mean, zip(*rows, strict=True))))


if __name__ == "__main__":
    main()
