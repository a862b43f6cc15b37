"""MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of the images of a batch, in NumPy, as in `tf_mixing`."""

import numpy as np


def mix(
    images: np.ndarray, labels: np.ndarray, *, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image with its partner, the image at the same place from the end, and their labels alike.

    Args:
        images: float32 (batch, size, size, 3).
        labels: float32 (batch, classes), each of which adds up to 1.
        mixup, cutmix: alpha of MixUp and CutMix, 0 for none. With both, the first half of the batch gets MixUp and the
            second half CutMix.
        rng: random generator.

    Returns:
        Images and labels, of the same shapes and dtypes.

    Example:
        >>> images, labels = np.zeros((4, 8, 8, 3), "float32"), np.eye(4, dtype="float32")
        >>> mix(images, labels, mixup=0.2, cutmix=0.2, rng=np.random.default_rng(0))[1].sum(axis=1).round(5)
        array([1., 1., 1., 1.], dtype=float32)
    """
    half = len(images) // 2 if mixup and cutmix else len(images) if mixup else 0
    kept = np.ones((len(images), *images.shape[1:3], 1), np.float32)
    if half:
        share = rng.beta(mixup, mixup, half)
        kept[:half] = np.maximum(share, 1 - share)[:, None, None, None]
    if cutmix:
        for image in kept[half:]:
            _cut(image, cutmix, rng)
    partners = np.r_[0:half][::-1], np.r_[half : len(images)][::-1]
    order = np.concatenate(partners)
    share = kept.mean(axis=(1, 2))
    return images * kept + images[order] * (1 - kept), labels * share + labels[order] * (1 - share)


def _cut(kept: np.ndarray, alpha: float, rng: np.random.Generator) -> None:
    """Set a rectangle of the mask (height, width, 1) to zero; it is cut off at the edges."""
    side = np.sqrt(1 - rng.beta(alpha, alpha))
    rows, columns = (
        slice(max(0, middle - half), middle + half)
        for length in kept.shape[:2]
        for middle, half in [(int(rng.integers(length)), int(side * length) // 2)]
    )
    kept[rows, columns] = 0
