"""Cold start: the time of `keras-effnet classify` in a new process, and the memory of a Predictor.

command   python benchmarks/cold_start.py [--rounds 5] [--photo photo.jpg]
prints    the median time of Lite0 in LiteRT and of an empty interpreter, in seconds; and the peak memory of a process
          with a Predictor (B0 at 224, LiteRT, one photo at a time), above that of an empty interpreter
needs     Linux; TensorFlow and ai-edge-litert for the export
measured  2026-11, 2 cores: 0.85 s (0.74 to 0.93), 112 MB after 200 photos; by default the photo is scikit-image's
          coffee, 600 x 400 pixels
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELD = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
PREDICT = f"""
import sys
from keras_effnet.serving.predictor import Predictor
with Predictor(sys.argv[1], mode="latency") as predictor:
    for prediction in predictor([sys.argv[2]] * int(sys.argv[3])):
        assert prediction.labels, prediction.error
{HELD}
"""


def run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def seconds(*arguments: object) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def export_both(folder: Path) -> tuple[Path, Path]:
    """Export Lite0 with its weights, and B0 with random weights, which take as much memory as trained ones."""
    import keras_effnet

    lite0, b0 = folder / "lite0.tflite", folder / "b0.tflite"
    keras_effnet.export("lite0", lite0, format="litert")
    keras_effnet.export(keras_effnet.EfficientNetB0(weights=None), b0, format="litert")
    return lite0, b0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photo", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = options.photo or Path(folder, "coffee.jpg")
        if options.photo is None:
            from PIL import Image

            from keras_effnet.images import sample

            Image.fromarray(sample("coffee")).save(photo)
        lite0, b0 = export_both(Path(folder))
        classify = ("-m", "keras_effnet", "classify", photo, "--model", lite0)
        run(*classify)
        pairs = [(seconds(*classify), seconds("-c", "pass")) for _ in range(options.rounds)]
        asked, empty = zip(*pairs, strict=True)
        print("classify, seconds", " ".join(f"{value:.2f}" for value in asked))
        print(f"median {statistics.median(asked):.2f}, of this an empty interpreter {statistics.median(empty):.2f}")
        nothing = int(run("-c", HELD))
        for count in (1, 200):
            held = int(run("-c", PREDICT, b0, photo, count))
            above = (held - nothing) / 1024
            print(f"B0, {count} photos: {above:.0f} MB above an empty interpreter's {nothing / 1024:.0f}")


if __name__ == "__main__":
    main()
