"""A pretrained network fine-tuned on photos in minutes: the head on features computed once, then the blocks.

Phase 1 trains a new classifier on what the frozen network sees in each photo and its mirror image. Phase 2 trains the
last stages of blocks with it, on random crops; batch normalisation stays in inference mode throughout.
"""

import os
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Unpack

from keras_effnet._keras import keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.photo_batches import Photos, read_photos, shrink
from keras_effnet.data.training_photos import TrainingPhotos, check_parts, open_training_photos
from keras_effnet.finetuning.phases import keep_the_better, train_phases
from keras_effnet.finetuning.progress import Progress, Run
from keras_effnet.finetuning.report import FineTuned
from keras_effnet.finetuning.run_folder import claim, write_somewhere
from keras_effnet.finetuning.settings import Settings, SettingsArguments, make_settings
from keras_effnet.finetuning.transfer import first_block, replace_head
from keras_effnet.images import center_crop_and_resize
from keras_effnet.inference.classifier import Classifier, load_classifier
from keras_effnet.inference.rebuild import resized

# Bytes of decoded photos, half for each part; what does not fit is read again when it is needed.
ROOM = 2 * 2**30


def finetune(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] = "lite0",
    weights: str | None = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[SettingsArguments],
) -> FineTuned:
    """Fine-tune a pretrained network on labelled photos.

    It sets Keras's random seed: the same photos, settings and machine give the same model. Ctrl-C ends the training and
    keeps what has been learnt, once the head is trained.

    Args:
        data: a folder with a folder for each class; a folder with train/ and perhaps val/ that hold these; a CSV file
            with the columns path, label and perhaps split; or "tfds:NAME".
        out: folder for the model, its labels and the reports; None writes nothing.
        model: "lite0", "b0", ..., or a saved model: a `.keras` file or the folder of an earlier run.
        weights: for a network by name: the name of a weight set or the path of a weight file.
        overwrite: write to `out` even if it holds something.
        strict: refuse photos that cannot be read, instead of leaving them out and counting them.
        progress: called with the part of the run, how far it is and how far it goes.
        **settings: the fields of `Settings`: epochs=3, seed=1, ...

    Raises:
        OSError: there is no room for the results; the message says where they are instead.
        TypeError: a setting that does not exist.
        ValueError: data, settings or a folder that cannot be used, or a head whose loss is no number; nothing has been
            written then.
        WeightsError: weights that do not exist, cannot be fetched or read, or do not fit.

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
    cpu_start = time.process_time()
    chosen = make_settings(settings)
    folder = None if out is None else claim(out, overwrite=overwrite)
    found = open_training_photos(data, val_share=chosen.val_share, seed=chosen.seed)
    run = Run(chosen, progress or (lambda *_: None))
    with run.part("building"):
        keras.utils.set_random_seed(chosen.seed)
        classifier = _build(model, weights, found.classes, chosen)
    with run.part("reading"):
        odd = OddFiles(len(found.train) + len(found.val))
        train, val, errors = _read(found, classifier.size, odd, run)
    photos = replace(found, train=train.rows, val=val.rows)
    check_parts(photos, errors, strict=strict)
    train_phases(classifier.model, train, val, classifier.size, run)
    with run.part("measuring"):
        predicted, dropped = keep_the_better(classifier.model, val, run)
    photos = replace(photos, notes=(*photos.notes, *_converted(odd), *_stand_ins(train, val)))
    result = FineTuned(
        classifier,
        photos,
        tuple(run.history),
        predicted,
        {"data": os.fspath(data), **asdict(chosen)},
        run.seconds,
        time.process_time() - cpu_start,
        errors,
        run.interrupted,
        dropped,
    )
    if folder is not None:
        write_somewhere(folder, result)
    return result


def _build(
    model: str | os.PathLike[str], weights: str | None, classes: tuple[str, ...], chosen: Settings
) -> Classifier:
    """A pretrained network under a new head, for images of the resolution that is wanted."""
    loaded = load_classifier(model, weights)
    network = replace_head(loaded.model, len(classes))
    first_block(network, chosen.unfreeze)
    size = chosen.resolution or loaded.size
    if network.input_shape[1] != size:
        network = resized(network, size)
    return Classifier(network, tuple((None, name) for name in classes), size, loaded.name, loaded.weights)


def _read(found: TrainingPhotos, size: int, odd: OddFiles, run: Run) -> tuple[Photos, Photos, tuple[str, ...]]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        run.tell("reading", done, odd.total)

    train, bad = read_photos(found.train, partial(shrink, size=size), room=ROOM // 2, tick=tick, odd=odd)
    # Exactly as `evaluate` sees them.
    val, worse = read_photos(found.val, partial(center_crop_and_resize, size=size), room=ROOM // 2, tick=tick, odd=odd)
    return train, val, (*bad, *worse)


def _converted(odd: OddFiles) -> tuple[str, ...]:
    """One note per kind of non-RGB photo, saying how it was converted."""
    return tuple(f"{row['count']} photos are {kind}: {row['done']}." for kind, row in odd.report().items())


def _stand_ins(*parts: Photos) -> tuple[str, ...]:
    lost = [why for photos in parts for why in photos.lost.values()]
    if not lost:
        return ()
    return (f"{len(lost)} photos could not be read again, for which others of their class stand: {lost[0]}",)
