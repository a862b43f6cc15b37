"""Five feature maps of a pretrained network, for detection or segmentation, from a photo of any size.

command   python examples/feature_pyramid.py
expected  strides 2, 4, 8, 16, 32 with 16, 24, 40, 112, 320 channels
hardware  any; 10 seconds on 2 CPU cores, mostly for importing TensorFlow
needs     pip install ".[quickstart]"
"""

import argparse

import keras_effnet
from keras_effnet.images import sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="no effect: the example is already small")
    parser.parse_args()

    photo = sample("rocket").astype("float32")
    backbone = keras_effnet.EfficientNetLite0(weights="imagenet", features=True)
    for stride, features in zip((2, 4, 8, 16, 32), backbone.predict(photo[None], verbose=0), strict=True):
        print(f"stride {stride:2}: {features.shape}")


if __name__ == "__main__":
    main()
