"""Classify a photo step by step, from file to label.

command   python examples/classify_photo.py [PHOTO]
expected  for scikit-image's cat: tiger_cat, Egyptian_cat and tabby first, with scores that add up to about 0.92
hardware  any; 10 seconds on 2 CPU cores, mostly for importing TensorFlow
needs     pip install ".[quickstart]"
"""

import argparse

import keras_effnet
from keras_effnet.images import center_crop_and_resize, load_image, sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", help="an image file; by default a photo from scikit-image")
    parser.add_argument("--smoke", action="store_true", help="no effect: the example is already small")
    options = parser.parse_args()

    image = load_image(options.photo) if options.photo else sample("chelsea")  # uint8 (height, width, 3)
    pixels = center_crop_and_resize(image, 224)  # float32 (224, 224, 3), 0..255
    model = keras_effnet.EfficientNetLite0(weights="imagenet")
    scores = model.predict(pixels[None], verbose=0)  # float32 (1, 1000)
    for _, label, score in keras_effnet.decode_predictions(scores, top=5)[0]:
        print(f"{score:6.3f}  {label}")


if __name__ == "__main__":
    main()
