"""The whole way from a folder of photo files to labels, next to scripts that others would write.

command   python benchmarks/photo_to_label.py [DIR] [--model b0] [--size 224] [--photos 300] [--rounds 5]
prints    for each contender the median and the 95th percentile of one photo in ms, and photos per second, from
          interleaved rounds with five (label, score) pairs a photo, start-up excluded; then where the time of one photo
          goes in the Predictor, exact and fast decoding of 12-megapixel photos (those of DIR, or the others enlarged)
          beside the decoder's own time, and the whole command `keras-effnet classify DIR`
needs     pip install ".[peers]"; a contender whose package is missing is skipped. DIR is a folder of JPEG files, for
          example your own photographs; without it, the samples of scikit-image are used over and over
measured  2026-11, 2 cores with AVX-512, B0 at 224, flowers, --photos 100 --rounds 2, torch not installed: one photo
          takes the Predictor 5.1 ms with LiteRT (decoding 0.6, crop and resize 0.4, engine 3.8), a script with LiteRT
          and Pillow 5.7, one with ONNX Runtime and Pillow 7.1, compiled keras.applications 18.0; photos per second are
          212, 237, 215 and 100; `classify` of 100 files takes 1.0 s as a process
          later, with interpreters that stay with their thread, nine rounds: Predictor 213 (LiteRT) and 216 photos per
          second (ONNX Runtime), scripts 227 and 238; the cores' time of a photo is within 1 to 4 % of the scripts'.
          12-megapixel photos (enlarged flowers, Lite0, a busy machine): 247 ms exact, 125 fast, 225 the decoder alone;
          fast keeps 90 % of the first labels, whose scores change by 0.04
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from peers import import_timm
from PIL import Image

Labels = list[tuple[int, float]]
One = Callable[[str], Labels]
Many = Callable[[Sequence[str]], list[Labels]]


def best_five(scores: np.ndarray) -> Labels:
    best = np.argsort(scores)[-5:][::-1]
    return [(int(i), float(scores[i])) for i in best]


def pillow(path: str, size: int) -> np.ndarray:
    """Pixels as most scripts prepare them: the central crop of Pillow, resized by Pillow's bicubic."""
    with Image.open(path) as image:
        side = round(min(image.size) * size / (size + 32))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
        return np.asarray(square, np.float32)[None]


def threaded(one: One, threads: int) -> Many:
    pool = ThreadPoolExecutor(threads)
    return lambda paths: list(pool.map(one, paths))


def export_files(options: argparse.Namespace, folder: Path) -> tuple[Any, dict[str, Path]]:
    """Our network with random weights, and its exports."""
    import keras

    import keras_effnet
    from keras_effnet.imagenet import class_index
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.serving.engines import ENGINES
    from keras_effnet.variants import find_variant

    keras.utils.set_random_seed(0)
    shape = (options.size, options.size, 3)
    weights = "imagenet" if options.model in ("lite0", "lite1", "lite2") else None
    model = getattr(keras_effnet, find_variant(options.model).builder)(weights=weights, input_shape=shape)
    classifier = Classifier(model, class_index(), options.size)
    suffixes = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
    files = {name: folder / f"model{suffix}" for name, suffix in suffixes.items() if ENGINES[name].installed}
    for path in files.values():
        keras_effnet.export(classifier, path)
    return model, files


def ours(files: dict[str, Path]) -> Iterator[tuple[str, One, Many]]:
    from keras_effnet import Predictor

    for name, path in files.items():
        fast, wide = Predictor(path, mode="latency"), Predictor(path)

        def one(photo: str, predictor: Any = fast) -> Labels:
            return [next(iter(predictor([photo]))).labels]

        def many(photos: Sequence[str], predictor: Any = wide) -> list[Labels]:
            return [prediction.labels for prediction in predictor(photos)]

        yield f"Predictor, {name}", one, many


def scripts(files: dict[str, Path], size: int) -> Iterator[tuple[str, One, Many]]:
    """Our exported files in scripts of a dozen lines: all cores on one photo, or a photo on each core."""
    cores = os.cpu_count() or 1
    if "onnx" in files:
        import onnxruntime

        def session(threads: int) -> One:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            made = onnxruntime.InferenceSession(str(files["onnx"]), options, providers=["CPUExecutionProvider"])
            return lambda path: best_five(made.run(None, {made.get_inputs()[0].name: pillow(path, size)})[0][0])

        yield "script, ONNX Runtime + Pillow", session(cores), threaded(session(1), cores)
    if "litert" in files:
        import threading

        from ai_edge_litert.interpreter import Interpreter

        def interpreter(threads: int) -> One:
            local = threading.local()

            def one(path: str) -> Labels:
                if not hasattr(local, "made"):
                    local.made = Interpreter(str(files["litert"]), num_threads=threads)
                    local.made.allocate_tensors()
                local.made.set_tensor(local.made.get_input_details()[0]["index"], pillow(path, size))
                local.made.invoke()
                return best_five(local.made.get_tensor(local.made.get_output_details()[0]["index"])[0])

            return one

        yield "script, LiteRT + Pillow", interpreter(cores), threaded(interpreter(1), cores)


def keras_applications(options: argparse.Namespace) -> Iterator[tuple[str, One, Many]]:
    """keras.applications in a compiled function; many photos through image_dataset_from_directory's own steps."""
    import keras
    import tensorflow as tf

    from keras_effnet.variants import find_variant

    builder = getattr(keras.applications, find_variant(options.model).builder, None)
    if builder is None:
        return
    shape = (options.size, options.size, 3)
    model = builder(weights=None, input_shape=shape)
    call = tf.function(lambda images: model(images, training=False))

    def read(path: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return keras.preprocessing.image.smart_resize(image, shape[:2])

    def one(path: str) -> Labels:
        return best_five(call(read(path)[None]).numpy()[0])

    def many(paths: Sequence[str]) -> list[Labels]:
        data = tf.data.Dataset.from_tensor_slices(list(paths)).map(read, tf.data.AUTOTUNE).batch(32).prefetch(2)
        return [best_five(row) for batch in data for row in call(batch).numpy()]

    yield "keras.applications, compiled", one, many


def timm_lane(options: argparse.Namespace) -> Iterator[tuple[str, One, Many]]:
    timm = import_timm()
    if timm is None or not options.model.startswith(("b", "lite", "v2")):
        return
    import torch

    family = "efficientnetv2" if options.model.startswith("v2-") else "efficientnet"
    name = f"tf_{family}_{options.model.removeprefix('v2-')}"
    model = timm.create_model(name, pretrained=False).eval().to(memory_format=torch.channels_last)
    model = torch.compile(model)
    config = timm.data.resolve_data_config({"input_size": (3, options.size, options.size)}, model=model)
    transform = timm.data.create_transform(**config)

    def pixels(path: str) -> Any:
        with Image.open(path) as image:
            return transform(image.convert("RGB"))

    def run(batch: Any) -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(model(batch.contiguous(memory_format=torch.channels_last)), -1).numpy()

    def many(paths: Sequence[str]) -> list[Labels]:
        class Photos(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(paths)

            def __getitem__(self, index: int) -> Any:
                return pixels(paths[index])

        loader = torch.utils.data.DataLoader(Photos(), batch_size=32, num_workers=2)
        return [best_five(row) for batch in loader for row in run(batch)]

    yield "timm, compiled, DataLoader", lambda path: best_five(run(pixels(path)[None])[0]), many


def photos_of(folder: str | None, count: int, made: Path) -> list[str]:
    from keras_effnet.images import find_images, sample

    if folder is not None:
        found = [str(path) for path in find_images([folder])]
    else:
        found = []
        for name in ("chelsea", "coffee", "rocket", "astronaut"):
            path = made / f"{name}.jpg"
            Image.fromarray(sample(name)).save(path, quality=90)
            found.append(str(path))
    return list(itertools.islice(itertools.cycle(found), count))


def measure(lanes: list[tuple[str, One, Many]], paths: list[str], rounds: int) -> None:
    singles: dict[str, list[float]] = {name: [] for name, _, _ in lanes}
    rates: dict[str, list[float]] = {name: [] for name, _, _ in lanes}
    for round_number in range(rounds + 1):  # the first one warms up
        for name, one, many in lanes:
            times = []
            for path in paths[:40]:
                start = time.perf_counter()
                one(path)
                times.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            many(paths)
            if round_number:
                singles[name] += times
                rates[name].append(len(paths) / (time.perf_counter() - start))
    print(f"{'':32}  one photo, ms   95 %   photos/s")
    for name, times in singles.items():
        tail = np.percentile(times, 95)
        print(f"{name:32}  {statistics.median(times):13.2f} {tail:6.2f} {statistics.median(rates[name]):10.1f}")


def where_the_time_goes(file: Path, paths: list[str], size: int) -> None:
    from keras_effnet import Predictor
    from keras_effnet.images import center_crop_and_resize, load_image

    predictor = Predictor(file, mode="latency")
    parts: dict[str, list[float]] = {"decode": [], "crop and resize": [], "engine": [], "whole": []}
    for path in paths[:100]:
        marks = [time.perf_counter()]
        image = load_image(path)
        marks.append(time.perf_counter())
        pixels = center_crop_and_resize(image, size)[None]
        marks.append(time.perf_counter())
        predictor.scores(pixels)
        marks.append(time.perf_counter())
        list(predictor([path]))
        marks.append(time.perf_counter())
        for part, start, end in zip(parts, marks, marks[1:], strict=False):
            parts[part].append((end - start) * 1e3)
    medians = {part: statistics.median(times) for part, times in parts.items()}
    rest = medians["whole"] - sum(medians[part] for part in ("decode", "crop and resize", "engine"))
    print("\nPredictor, one photo: " + ", ".join(f"{part} {ms:.2f} ms" for part, ms in medians.items()))
    print(f"everything else {rest:.2f} ms")


def large_photos(file: Path, paths: list[str], folder: Path, own: bool) -> None:
    """12-megapixel photos: exact and fast decoding, the decoder's own floor, and what fast changes in the labels."""
    from keras_effnet import Predictor
    from keras_effnet.images import View, shrink_on_load

    large = [] if not own else [path for path in paths if os.path.getsize(path) > 1_000_000]  # noqa: PTH202
    what = "of the folder" if large else "made by enlarging the photos"
    for number, path in enumerate(() if large else dict.fromkeys(paths)):
        with Image.open(path) as image:
            scale = (12e6 / (image.width * image.height)) ** 0.5
            size = round(image.width * scale), round(image.height * scale)
            large.append(str(folder / f"large{number}.jpg"))
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(large[-1], quality=90)
    large = large[:40]
    times: dict[str, list[float]] = {"the decoder alone": [], "reduced": [], "exact": [], "fast": []}
    predictors = {decode: Predictor(file, mode="latency", decode=decode) for decode in ("exact", "fast")}
    found: dict[str, list[Any]] = {"exact": [], "fast": []}
    for path in large:
        start = time.perf_counter()
        with Image.open(path) as image:
            image.load()
        times["the decoder alone"].append(time.perf_counter() - start)
        start = time.perf_counter()
        with Image.open(path) as image:
            shrink_on_load(image, View(predictors["fast"].size, decode="fast"))
            image.load()
        times["reduced"].append(time.perf_counter() - start)
        for decode, predictor in predictors.items():
            start = time.perf_counter()
            [row] = predictor.score([path])
            times[decode].append(time.perf_counter() - start)
            found[decode].append(row.scores)
    exact, fast = np.array(found["exact"]), np.array(found["fast"])
    first = exact.argmax(axis=1)
    changes = np.take_along_axis(fast - exact, first[:, None], axis=1)[:, 0]
    print(f"\n{len(large)} photos of 12 megapixels, {what}, file to label, median ms:")
    print(", ".join(f"{name} {1e3 * statistics.median(each):.1f}" for name, each in times.items()))
    print(
        f"the same first label: {np.mean(first == fast.argmax(axis=1)):.1%}; the score of exact's first label "
        f"changes by {np.mean(changes):+.3f} on average, {np.mean(abs(changes)):.3f} in size"
    )


def command(file: Path, paths: list[str]) -> None:
    """`keras-effnet classify` as a process."""
    start = time.perf_counter()
    arguments = [sys.executable, "-m", "keras_effnet", "classify", *sorted(set(paths)), "--model", str(file)]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    print(f"keras-effnet classify, {len(set(paths))} files, whole process: {time.perf_counter() - start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--model", default="b0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        timm_lanes = list(timm_lane(options))  # torch before TensorFlow
        _, files = export_files(options, Path(folder))
        paths = photos_of(options.folder, options.photos, Path(folder))
        lanes = [*ours(files), *scripts(files, options.size), *keras_applications(options), *timm_lanes]
        measure(lanes, paths, options.rounds)
        where_the_time_goes(files["litert"], paths, options.size)
        large_photos(files["litert"], paths[:40], Path(folder), options.folder is not None)
        command(files["litert"], paths)


if __name__ == "__main__":
    main()
