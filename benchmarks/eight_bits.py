"""The share of first labels that int8 preserves, per engine, for a network with squeeze-and-excitation and swish.

command   TF_ENABLE_ONEDNN_OPTS=1 python benchmarks/eight_bits.py DIR [--model b0] [--size 96] [--epochs 40]
prints    the accuracy of a network trained from scratch on DIR/train; then for each engine the share of the photos in
          DIR/val with the same first label in int8 as in float32, and the number of layers that stayed in float32
needs     pip install ".[quickstart,litert,openvino]"; DIR: train/ and val/ with one subfolder per class
measured  2026-11, 2 cores, 500 + 200 photos of flowers: accuracy 54.0 %; LiteRT 92.0 %, OpenVINO 93.5 %; with the last
          convolution in int8 too, 68.0 % and 52.0 %. The labels that change are those of uncertain photos: Lite0 with
          ImageNet weights preserves 98.0 % and 99.0 % (`keras-effnet export --quantize int8`)
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import keras_effnet
from keras_effnet.serving.engines import ENGINE_OF_FORMAT
from keras_effnet.serving.model_record import suffix
from keras_effnet.training.recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="b0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    few = {"batch_size": 32, "schedule": "cosine", "warmup_epochs": 3, "ema_decay": 0.99, "augment": None}
    recipe = replace(RECIPES["imagenet"], size=options.size, epochs=options.epochs, **few)
    photos = {"representative": options.data / "train", "held_out": options.data / "val"}
    with tempfile.TemporaryDirectory() as folder:
        run = keras_effnet.train(options.data, Path(folder, "run"), model=options.model, recipe=recipe)
        print(f"{options.model}: {run.report['val_accuracy']:.1%} accuracy")
        for format in ("litert", "openvino"):  # noqa: A001
            if ENGINE_OF_FORMAT[format].installed:
                path = Path(folder, f"exported{suffix(format)}")
                done = keras_effnet.export(
                    Path(folder, "run"), path, format, quantize="int8", min_agreement=0, **photos
                )
                kept = len(done.record.float_layers)
                print(f"{format}: {done.check.agreement:.1%} of {done.check.count}, {kept} layers in float32")


if __name__ == "__main__":
    main()
