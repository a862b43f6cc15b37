"""The input pipeline of training: images are cropped, augmented and batched by tf.data.

Source: imagenet_input.py and preprocessing.py of github.com/tensorflow/tpu, models/official/efficientnet. Every random
draw is a function of the seed, the epoch and the place in the epoch, so every epoch can be reproduced.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.data.augment_policies import Policy
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import BEGIN, Position, Share
from keras_effnet.data.tf_augment import augment
from keras_effnet.data.tf_crops import Element, crop, random_window, resize_to, window_of
from keras_effnet.data.tf_mixing import mix
from keras_effnet.data.tf_sources import Source, ordered_rows
from keras_effnet.images import View


@dataclass(frozen=True)
class Batches:
    """How batches are made from a source.

    Args:
        batch_size: images per batch, over all replicas.
        size: side of the images in pixels.
        classes: number of outputs of the model; labels become one-hot vectors.
        seed: of order, crops and augmentation.
        policy: augmentation after crop and flip; None for no augmentation.
        threads: images processed in parallel; None for the number of available processors.
        crop: of validation, as in `View`. Images that are not cropped there are resized bilinearly in training too.
        smallest_crop: area of the smallest random crop, as a share of the image.
        mixup, cutmix: alpha of MixUp and CutMix; 0 for none.
    """

    batch_size: int
    size: int
    classes: int
    seed: int = 0
    policy: Policy | None = None
    threads: int | None = None
    crop: str | None = "center"
    smallest_crop: float = 0.08
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def parallel(self) -> int:
        """Number of images processed in parallel."""
        if self.threads is None and hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return self.threads or os.cpu_count() or 1


def training_batches(
    source: Source,
    batches: Batches,
    *,
    steps: int,
    odd: OddFiles,
    start: Position = BEGIN,
    share: Share = Share(),  # noqa: B008  # frozen
) -> Any:
    """Endless batches from a position on, `steps` per epoch. The content of an epoch depends only on seed and epoch.

    An epoch reads the source once. If that is not enough for `steps` batches, or images are skipped, it starts over
    with different crops. With several processes, each produces its own part of the same batches.

    Returns:
        tf.data.Dataset of (images, labels): uint8 with a policy and without mixing, else float32, (batch, size, size,
        3), values about 0..255; and float32 (batch, classes).
    """
    import tensorflow as tf

    def epoch(number: Any) -> Any:
        rows = _of_share(ordered_rows(source, batches.seed, number, start), share, batches.batch_size)
        images = rows.map(lambda place, row: make(number, place, *row), num_parallel_calls=batches.parallel)
        images = images.filter(_is_valid).map(_without_flag)
        made = images.batch(share.size(batches.batch_size), drop_remainder=True)
        done = tf.where(number == start.epoch, tf.constant(start.step, tf.int64), 0)
        rest = made.skip(done * share.pieces) if start.place is None else made
        rest = rest.take((steps - done) * share.pieces)
        return _mixed(rest.enumerate(done * share.pieces), number, batches, share) if batches.mixes else rest

    def make(number: Any, place: Any, name: Any, data: Any, label: Any) -> tuple[Any, Any, Any]:
        seed = tf.stack([tf.constant(batches.seed, tf.int64), number])
        seeds = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), place)
        where, mirror, policy = tf.unstack(tf.random.experimental.stateless_split(seeds, 3))
        window = random_window(where, batches.size, batches.smallest_crop)
        element = Element(name, data, source.is_path)
        image, valid = crop(
            element, window, resize_to(View(batches.size, batches.crop)), odd=odd, method="INTEGER_FAST"
        )
        image = tf.image.stateless_random_flip_left_right(image, mirror)
        if batches.policy is not None:
            image = augment(tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8), batches.policy, seed=policy)
        valid = valid & _has_class(name, label, batches.classes, odd)
        return image, tf.one_hot(label, batches.classes), _note_gap(valid, number, place, odd)

    epochs = tf.data.Dataset.range(start.epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(epoch).prefetch(2).with_options(_options())


def _mixed(numbered: Any, epoch: Any, batches: Batches, share: Share) -> Any:
    """MixUp and CutMix in each batch, with a seed for its place in the epoch."""
    import tensorflow as tf

    def mixed(place: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        seed = tf.cast(tf.stack([tf.constant(batches.seed, tf.int64), epoch]), tf.int32)
        # Places of images are not negative.
        for number in (-1 - tf.cast(place, tf.int32), share.index):
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return mix(*batch, mixup=batches.mixup, cutmix=batches.cutmix, seed=seed)

    return numbered.map(mixed, num_parallel_calls=batches.parallel)


def _note_gap(valid: Any, epoch: Any, place: Any, odd: OddFiles) -> Any:
    """Record the place of a skipped image; returns the flag unchanged."""
    import tensorflow as tf

    def note(epoch: np.int64, place: np.int64) -> np.bool_:
        odd.gaps.add(int(epoch), int(place))
        return np.bool_(False)

    def gap() -> Any:
        return tf.ensure_shape(tf.numpy_function(note, [epoch, place], tf.bool), ())

    return tf.cond(valid, lambda: True, gap)


def validation_batches(source: Source, batches: Batches, *, odd: OddFiles, share: Share = Share()) -> Any:  # noqa: B008
    """Batches of what a network sees of each image, once, in order, in the format of `training_batches`.

    The last batch may be smaller. If `share.replicas` requires batches of the same shape, an incomplete last batch is
    dropped, and unreadable images are replaced by images from the beginning, so that all processes have equally many.
    """
    import tensorflow as tf

    def make(name: Any, data: Any, label: Any) -> tuple[Any, Any, Any]:
        element = Element(name, data, source.is_path)
        view = View(batches.size, batches.crop)
        image, valid = crop(element, window_of(view), resize_to(view), odd=odd, method="INTEGER_ACCURATE")
        return image, tf.one_hot(label, batches.classes), valid & _has_class(name, label, batches.classes, odd)

    size, count = share.held_out(source.total, batches.batch_size)
    piece = share.size(size)
    rows = _of_share(source.read(None).enumerate(), share, size).map(lambda place, row: row)
    images = rows.map(make, num_parallel_calls=batches.parallel)
    images = images.filter(_is_valid).map(_without_flag)
    made = images.batch(piece) if count is None else images.repeat().batch(piece, drop_remainder=True).take(count)
    return made.prefetch(2).with_options(_options())


def _of_share(rows: Any, share: Share, batch_size: int) -> Any:
    # Before anything is decoded.
    return rows if share.count == 1 else rows.filter(lambda place, row: share.holds(place, batch_size))


def _is_valid(image: Any, label: Any, valid: Any) -> Any:
    return valid


def _without_flag(image: Any, label: Any, valid: Any) -> tuple[Any, Any]:
    return image, label


def _has_class(name: Any, label: Any, classes: int, odd: OddFiles) -> Any:
    """Whether a label is a class of the model; if not, it is counted."""
    import tensorflow as tf

    def note(name: bytes, label: np.int64) -> np.bool_:
        odd.note(name.decode("utf-8", "replace"), "wrong label", f"It is {label}, not one of 0 to {classes - 1}.")
        return np.bool_(False)

    known = (label >= 0) & (label < classes)
    return tf.cond(known, lambda: True, lambda: tf.ensure_shape(tf.numpy_function(note, [name, label], tf.bool), ()))


def _options() -> Any:
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
