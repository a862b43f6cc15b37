"""Training images per second: our pipeline, Keras's loader and RandAugment layer, PyTorch's with timm's transforms.

command   python benchmarks/input_pipeline.py FOLDER [--rounds 5] [--images 640]
prints    for each pipeline the median and the best round, and the ratio of ours to it with the same augmentation
needs     FOLDER: one subfolder of JPEGs per class; for the rows of timm, pip install ".[peers]"
measured  2026-11, 2 cores with AVX-512, flowers of 320 x 240, images/s, and ours over theirs round by round: crop and
          flip ours 831, timm 580 (1.45); AutoAugment 603, timm 443 (1.44); RandAugment 565, timm 354 (1.52), Keras with
          its RandAugment layer 25 (22.1). With --images 320, where timm benefits from images that its workers had
          prepared before the clock started: 1.37, 0.93, 1.22; on another, loaded machine 1.13, 1.21, 1.08, 17.8.
          Keras's loader without augmentation reaches 1,631: it neither crops at random nor resizes with bicubic
          interpolation
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers import import_timm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
SIZE, BATCH = 224, 32


def ours(folder: Path, policy: Any) -> Iterator[Any]:
    from keras_effnet.data.image_audit import OddFiles
    from keras_effnet.data.tf_batches import Batches, training_batches
    from keras_effnet.data.tf_sources import from_rows

    paths = sorted(map(str, folder.glob("*/*.jpg")))
    source = from_rows(paths, paths, [0] * len(paths), is_path=True)
    batches = training_batches(source, Batches(BATCH, SIZE, 5, policy=policy), steps=1000, odd=OddFiles(len(paths)))
    return iter(batches)


def keras_loader(folder: Path, augment: bool) -> Iterator[Any]:
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=BATCH, crop_to_aspect_ratio=True, verbose=False
    )
    if augment:
        layer = keras.layers.RandAugment((0, 255), num_ops=2)
        images = images.map(lambda x, y: (layer(x, training=True), y), num_parallel_calls=os.cpu_count())
    return iter(images.repeat().prefetch(2))


def timm_loader(folder: Path, augment: str | None) -> Iterator[Any]:
    import torch
    from PIL import Image
    from timm.data import create_transform

    paths = sorted(folder.glob("*/*.jpg"))
    # Without normalisation: here it is in the model, and in timm its prefetcher does it on the device.
    transform = create_transform(
        SIZE, is_training=True, auto_augment=augment, interpolation="bicubic", color_jitter=None, use_prefetcher=True
    )

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> Any:
            return transform(Image.open(paths[i]).convert("RGB"))

    workers = len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        Photos(), BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=640)
    options = parser.parse_args()
    if not any(options.folder.glob("*/*.jpg")):
        parser.error(f"{str(options.folder)!r} has no */*.jpg. Expected a folder with one subfolder per class.")
    timm = import_timm()
    from keras_effnet.data.augment_policies import AUTOAUGMENT, randaugment

    folder = options.folder
    # Name, the pipeline to compare with, and the function that makes it.
    rows: list[tuple[str, str, Callable[[], Iterator[Any]]]] = [
        ("ours, crop and flip", "ours, crop and flip", lambda: ours(folder, None)),
        ("ours, AutoAugment", "ours, AutoAugment", lambda: ours(folder, AUTOAUGMENT)),
        ("ours, RandAugment", "ours, RandAugment", lambda: ours(folder, randaugment())),
        ("keras, no augmentation", "ours, crop and flip", lambda: keras_loader(folder, False)),
        ("keras, RandAugment layer", "ours, RandAugment", lambda: keras_loader(folder, True)),
    ]
    if timm is not None:
        rows += [
            ("timm, crop and flip", "ours, crop and flip", lambda: timm_loader(folder, None)),
            # Not timm's policy v0, which posterizes to 0 bits: Pillow 13 rejects that.
            ("timm, AutoAugment", "ours, AutoAugment", lambda: timm_loader(folder, "original")),
            ("timm, RandAugment", "ours, RandAugment", lambda: timm_loader(folder, "rand-m10-n2")),
        ]
    rates: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for _ in range(options.rounds):
        for name, _, make in rows:
            # One pipeline at a time, since prefetching would take cores from the others.
            batches = make()
            next(batches), next(batches), next(batches)
            start = time.perf_counter()
            for _ in range(options.images // BATCH):
                next(batches)
            rates[name].append(options.images // BATCH * BATCH / (time.perf_counter() - start))
            del batches
    cores = len(os.sched_getaffinity(0))
    print(f"{SIZE} x {SIZE}, batches of {BATCH}, {cores} cores; images/s: median, best, ours / theirs round by round")
    for name, against, _ in rows:
        ratio = statistics.median(a / b for a, b in zip(rates[against], rates[name], strict=True))
        print(f"{name:26} {statistics.median(rates[name]):8.0f} {max(rates[name]):8.0f} {ratio:8.2f}")


if __name__ == "__main__":
    main()
