"""Fine-tune a pretrained network on photos in minutes: first the head on precomputed features, then the last blocks.

Phase 1 computes the features of each photo and of its mirror image once, and trains a new classifier on them. Phase 2
trains the classifier and the last blocks on random crops. Batch normalisation stays in inference mode throughout.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Unpack

from keras_effnet._keras import keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.photo_batches import Photos, read_splits, shrink
from keras_effnet.data.training_photos import TrainingPhotos, listed
from keras_effnet.errors import counted
from keras_effnet.finetuning.inputs import Inputs, open_inputs
from keras_effnet.finetuning.phases import train_phases
from keras_effnet.finetuning.pixels import with_same_pixels
from keras_effnet.finetuning.report import FineTuned
from keras_effnet.finetuning.run_folder import write_or_fall_back
from keras_effnet.finetuning.run_state import Progress, Run
from keras_effnet.finetuning.settings import Settings, SettingsArguments
from keras_effnet.finetuning.tf_graphs import graphs_freed
from keras_effnet.finetuning.transfer import first_block, replace_head
from keras_effnet.forks import check_fork
from keras_effnet.images import View
from keras_effnet.inference.classifier import Classifier, load_classifier
from keras_effnet.inference.rebuild import resized

# Limit for the decoded photos in bytes, half of it for each split; other photos are read again when they are needed.
MEMORY = 2 * 2**30


def finetune(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] = "lite0",
    weights: str | None = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Any] = (),
    **settings: Unpack[SettingsArguments],
) -> FineTuned:
    """Fine-tune a pretrained network on labelled photos.

    Sets the global random seeds of Python, NumPy and the Keras backend: the same photos, settings and machine give the
    same model. Ctrl-C stops the training; once the head has been trained for an epoch, the model is kept.

    Args:
        data: a folder with one folder per class; a folder with train/ and optionally val/ that contain them; a CSV file
            with the columns path, label and optionally split; or "tfds:NAME".
        out: folder for the model, its labels and the reports; None writes nothing.
        model: "lite0", "b0", ..., or a saved model: a `.keras` file or the folder of an earlier run. What a saved model
            does to its pixels before its network is kept.
        weights: for a network given by name: the name of a weight set or the path of a weight file.
        overwrite: whether to write to `out` if it is not empty.
        strict: whether to reject unreadable photos instead of skipping and counting them.
        progress: called with the part of the run, the number of finished steps and the total number of steps.
        callbacks: Keras callbacks for the training of both phases, such as `keras.callbacks.TensorBoard`.
        **settings: the fields of `Settings`: epochs=3, seed=1, ...

    Raises:
        OSError: the disk is full; the message contains the folder to which the results were written instead.
        TypeError: an unknown setting.
        ValueError: the data, the settings or the folder cannot be used, or the loss of the head is not finite. Nothing
            is written in these cases.
        WeightsError: the weights do not exist, do not fit, or cannot be downloaded or read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for i in range(8):
        ...         name = f"{folder}/{('red', 'blue')[i % 2]}/{i}.png"
        ...         os.makedirs(os.path.dirname(name), exist_ok=True)
        ...         Image.new("RGB", (64, 64), ((200 + i, 9, 9), (9, 9, 200 + i))[i % 2]).save(name)
        ...     finetune(folder, resolution=64, epochs=1).val_accuracy
        1.0
    """
    check_fork()
    inputs = open_inputs(data, out, overwrite=overwrite, settings=settings)
    return finetune_inputs(inputs, model=model, weights=weights, strict=strict, progress=progress, callbacks=callbacks)


@graphs_freed()
def finetune_inputs(
    inputs: Inputs,
    *,
    model: str | os.PathLike[str],
    weights: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Any] = (),
) -> FineTuned:
    """Fine-tune a network on inputs that have been checked; the other arguments are those of `finetune`."""
    report, chosen, found = progress or (lambda *_: None), inputs.settings, inputs.photos
    start, cpu_start = time.perf_counter(), time.process_time()
    report("building", 0, 1)
    classifier = _build(model, weights, found.classes, chosen)
    view, built = classifier.view, time.perf_counter()
    report("building", 1, 1)
    train, val, errors = _read(found, view, report)
    labels = train.labels(len(classifier.classes)), val.labels(len(classifier.classes))
    photos = replace(found, train=train.rows, val=val.rows)
    _check_readable(photos, errors, strict=strict)
    seconds = {"building": built - start, "reading": time.perf_counter() - built}
    run = Run(classifier.model, classifier.size, train, val, labels, chosen, report, tuple(callbacks), seconds)
    scores, dropped = train_phases(run)
    result = FineTuned(
        classifier,
        replace(photos, notes=(*photos.notes, *_converted(train.odd), *_replaced(train, val))),
        tuple(run.history),
        scores.argmax(axis=-1),
        {"data": inputs.data, **asdict(chosen)},
        run.seconds,
        time.process_time() - cpu_start,
        errors,
        run.interrupted,
        dropped,
        scores.max(axis=-1),
    )
    if inputs.folder is not None:
        write_or_fall_back(inputs.folder, result)
    return result


def _build(
    model: str | os.PathLike[str], weights: str | None, classes: tuple[str, ...], chosen: Settings
) -> Classifier:
    """A pretrained network with a new, seeded head, at the chosen resolution."""
    keras.utils.set_random_seed(chosen.seed)
    loaded = load_classifier(model, weights)
    network = replace_head(loaded.model, len(classes))
    first_block(network, chosen.unfreeze)
    network = with_same_pixels(network, loaded)
    size = chosen.resolution or loaded.size
    if network.input_shape[1] != size:
        network = resized(network, size)
    return Classifier(network, tuple((None, name) for name in classes), size, loaded.name, loaded.weights)


def _read(found: TrainingPhotos, view: View, report: Progress) -> tuple[Photos, Photos, tuple[str, ...]]:
    # Validation photos are cropped as in `evaluate`.
    prepare = partial(shrink, size=view.size), view.pixels
    return read_splits(found.train, found.val, prepare, memory=MEMORY, report=partial(report, "reading"))


def _check_readable(photos: TrainingPhotos, errors: Sequence[str], *, strict: bool) -> None:
    if strict and errors:
        raise ValueError(
            f"{counted(len(errors), 'photo')} cannot be read, the first: {errors[0]} Expected none, since strict is "
            "set. Remove them, or omit strict to skip them."
        )
    trained = {row.target for row in photos.train}
    lost = [name for i, name in enumerate(photos.classes) if i not in trained]
    if lost or not photos.val:
        purpose = f"to train the classes {listed(lost)}" if lost else "to evaluate on"
        raise ValueError(
            f"No photos are left {purpose}: {len(errors)} cannot be read{', the first: ' if errors else ''}"
            f"{errors[0] if errors else '.'} Expected at least one. Replace them."
        )


def _converted(odd: OddFiles) -> tuple[str, ...]:
    """One note per kind of non-RGB photo, saying how it was converted."""
    return tuple(f"{kind} photos: {row['count']}, {row['done']}." for kind, row in odd.report().items())


def _replaced(*parts: Photos) -> tuple[str, ...]:
    lost = [error for photos in parts for error in photos.lost.values()]
    if not lost:
        return ()
    return (f"{counted(len(lost), 'photo')} could not be read again, replaced by others of their class: {lost[0]}",)
