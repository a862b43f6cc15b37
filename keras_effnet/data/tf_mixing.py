"""MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of the images of a batch, as EfficientNetV2 was trained.

Source: datasets.py of github.com/google/automl, efficientnetv2. There, a batch with CutMix has one share of labels, the
mean over its images; here each image has its own.
"""

from typing import Any


def mix(images: Any, labels: Any, *, mixup: float, cutmix: float, seed: Any) -> tuple[Any, Any]:
    """Mix each image with its partner, the image at the same place from the end, and their labels alike.

    Args:
        images: (batch, size, size, 3), of known shape and any real dtype.
        labels: float32 (batch, classes), each of which adds up to 1.
        mixup: alpha of MixUp: each image is blended with its partner at a share drawn from Beta(alpha, alpha), of
            which it keeps the larger part. 0 for none.
        cutmix: alpha of CutMix: a rectangle of each image comes from its partner; its area is drawn from the same
            distribution, and the rectangle is cut off at the edges. 0 for none. With both, the first half of the batch
            gets MixUp and the second half CutMix.
        seed: int32 or int64 vector of two; the same seed gives the same result.

    Returns:
        Images and labels as float32, of the same shapes.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32")
        >>> mix(images, labels, mixup=0.2, cutmix=0.2, seed=[1, 2])[1].numpy().sum(axis=1)
        array([1., 1., 1., 1.], dtype=float32)
    """
    import tensorflow as tf

    images, labels = tf.cast(images, tf.float32), tf.convert_to_tensor(labels)
    blended, pasted = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    count = images.shape[0]
    half = count // 2 if mixup and cutmix else count if mixup else 0
    parts = []
    if half:
        parts.append(_mixup(images[:half], labels[:half], mixup, blended))
    if half < count:
        parts.append(_cutmix(images[half:], labels[half:], cutmix, pasted))
    return tuple(tf.concat(each, axis=0) for each in zip(*parts, strict=True))


def _mixup(images: Any, labels: Any, alpha: float, seed: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    share = beta(alpha, images.shape[0], seed)
    share = tf.maximum(share, 1 - share)[:, None]
    return _blend(images, share[:, None, None]), _blend(labels, share)


def _cutmix(images: Any, labels: Any, alpha: float, seed: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    count, height, width, _ = images.shape
    draw, vertical, horizontal = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    side = tf.sqrt(1 - beta(alpha, count, draw))

    def inside(length: int, seed: Any) -> Any:
        middle = tf.random.stateless_uniform([count, 1], seed, 0, length, tf.int32)
        half = tf.cast(side * length, tf.int32)[:, None] // 2
        places = tf.range(length)[None]
        return (places >= middle - half) & (places < middle + half)

    pasted = inside(height, vertical)[:, :, None] & inside(width, horizontal)[:, None, :]
    kept = 1 - tf.cast(pasted, tf.float32)
    return _blend(images, kept[..., None]), _blend(labels, tf.reduce_mean(kept, axis=(1, 2))[:, None])


def _blend(values: Any, share: Any) -> Any:
    return values * share + values[::-1] * (1 - share)


def beta(alpha: float, count: int, seed: Any) -> Any:
    """Draw from Beta(alpha, alpha), float32 of shape (count,).

    Example:
        >>> beta(0.2, 3, [1, 2]).shape
        TensorShape([3])
    """
    import tensorflow as tf

    # In float32, the draws of a small alpha would often be too small to be told from 0.
    draws = tf.random.stateless_gamma([2, count], seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    return tf.cast(tf.math.divide_no_nan(draws[0], draws[0] + draws[1]), tf.float32)
