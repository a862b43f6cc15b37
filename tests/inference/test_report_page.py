"""The page of an evaluation: from labelled photos on disk, through the command, to what the page shows."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet import EfficientNet
from keras_effnet.inference.accuracy import Answer
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.report_page import report_page

CLASSES = ((None, "cat"), (None, "dog"), (None, "never seen"))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(path)
    return paths


def test_page_shows_wrong_photos_with_their_maps(photos: list[Path]) -> None:
    model = EfficientNet("lite0", weights=None, classes=3, input_shape=(32, 32, 3))
    answers = [
        Answer(str(photos[0]), 0, 0, 0.9),
        Answer(str(photos[1]), 0, 1, 0.8),
        Answer(str(photos[2]), 1, 0, 0.95),
        Answer("gone.png", 1, 0, 0.5),
        Answer("broken.png", 1, error="cannot be read"),
    ]
    text = unescape(report_page("x", answers, CLASSES, classifier=Classifier(model, CLASSES, 32)))
    assert "accuracy (1 of 4 photos)" in text
    assert text.count("<img ") == 4  # two wrong photos, each with its map; the third is gone
    assert re.findall(r"<b>(\w+)</b> ([\d.]+), not (\w+)", text) == [
        ("cat", "0.95", "dog"),
        ("dog", "0.80", "cat"),
        ("cat", "0.50", "dog"),
    ]
    assert "never seen" not in text


def test_page_without_a_model_shows_the_photos_alone(photos: list[Path]) -> None:
    text = report_page("x", [Answer(str(photos[0]), 0, 1, 0.8)], CLASSES)
    assert text.count("<img ") == 1
