"""Converts a weight file of any known format, reads the result back and compares every array.

command   python weights/convert.py SOURCE OUT --variant b0 [--layout timm] [--no-ema] [--framework tensorflow]
          SOURCE: a TensorFlow checkpoint (folder, prefix or .tar.gz), .h5, .weights.h5, .keras, .pth or .safetensors,
          detected from the content; or the name of a published set
          OUT: *.h5 or *.weights.h5 for keras.applications, *.safetensors for the other layouts
expected  "247 arrays, largest difference 0" for Lite0; exits with 1 if there is a difference or no exact conversion
hardware  any; 20 seconds for Lite0 on 2 CPU cores, mostly for importing TensorFlow and building the network
needs     pip install "keras_effnet[tf-cpu]"
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_effnet.models import create
from keras_effnet.normalization import IMAGENET, LITE, MINUS_ONE_TO_ONE, ZERO_TO_ONE
from keras_effnet.variants import Variant, find_variant
from keras_effnet.weights.loading import Pretrained, load_weights, open_weights
from keras_effnet.weights.saving import LAYOUTS, save_weights

NORMALIZATIONS = {"imagenet": IMAGENET, "advprop": MINUS_ONE_TO_ONE, "lite": LITE, "0-1": ZERO_TO_ONE}


def convert(variant: Variant, options: argparse.Namespace) -> None:
    """Write the weights of `options.source` to `options.out`; reject conversions that are not exact."""
    given = open_weights(variant, options.source, framework=options.framework, ema=options.ema)
    model = create(
        variant,
        include_top=given.classes is not None,
        weights=options.source,
        classes=given.classes or 1000,
        in_channels=given.state["stem_conv/kernel"].shape[2],
        name=f"efficientnet{variant.name}",
        framework=options.framework,
    )
    if not options.ema:
        load_weights(model, options.source, framework=options.framework, ema=False)
    save_weights(model, options.out, options.layout)
    print(f"{options.out}: {len(given.state)} arrays, largest difference {compare(given, variant, options.out):g}")


def compare(given: Pretrained, variant: Variant, out: Path) -> float:
    """The largest difference between the given weights and the written file.

    Raises:
        ValueError: weights, framework or normalisation differ.
    """
    written = open_weights(variant, out)
    largest = difference(given.state, written.state)
    if largest or written.framework != given.framework:
        raise ValueError(
            f"{out} differs from {given.origin}: the largest difference is {largest:g}, and the framework is "
            f"{written.framework} instead of {given.framework}. Expected no difference. Delete the file and report it."
        )
    # The other layouts do not store the normalisation.
    if out.suffix == ".h5" and not written.normalization.close_to(given.normalization):
        raise ValueError(
            f"{out} has {written.normalization}, but the source has {given.normalization}. Expected no difference. "
            "Delete the file and report it."
        )
    return largest


def difference(given: Mapping[str, np.ndarray], written: Mapping[str, np.ndarray]) -> float:
    """The largest absolute difference between two states, infinite if names or shapes differ."""
    if {name: array.shape for name, array in given.items()} != {name: array.shape for name, array in written.items()}:
        return float("inf")
    return max(float(np.abs(array - written[name]).max()) for name, array in given.items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a weight file or TensorFlow checkpoint, or the name of a published set")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--variant", required=True, help="the network: b0, lite0, EfficientNetB7, ...")
    parser.add_argument("--layout", choices=LAYOUTS, default="keras.applications")
    parser.add_argument(
        "--no-ema", dest="ema", action="store_false", help="convert the raw weights, not the moving averages"
    )
    parser.add_argument("--framework", choices=("tensorflow", "pytorch"), help="framework, if the file is ambiguous")
    parser.add_argument(
        "--normalization",
        choices=NORMALIZATIONS,
        help="normalisation, if the file does not store it and is not published; by default that of the variant",
    )
    options = parser.parse_args(arguments)
    try:
        variant = find_variant(options.variant)
        if options.normalization:
            variant = replace(variant, normalization=NORMALIZATIONS[options.normalization])
        convert(variant, options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
