"""Model cards: front matter that the Hub's own library reads, and the facts of each kind of model."""

from pathlib import Path
from typing import Any

import pytest

from keras_effnet.reports.model_card import Card, Metric, model_card
from keras_effnet.serving.export_card import card_path, export_card
from keras_effnet.serving.model_record import ModelRecord

CARD: dict[str, Any] = {
    "name": "flowers: 'roses' | \"tulips\"",
    "labels": ("rose", "Tulpe ü"),
    "size": 224,
    "library": "keras",
    "base": "lite0, weights imagenet",
    "weights": ("lite0", "imagenet"),
    "data": "100 photos for training",
    "metrics": [Metric("accuracy", 0.865, 200, "validation photos")],
    "load": ("import keras",),
    "limits": ("Two\nlines.",),
}


def front_matter(text: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    before, matter, body = text.split("---\n", 2)
    assert (before, body[:3]) == ("", "\n# ")
    return yaml.safe_load(matter)


def test_the_front_matter_has_what_the_hub_shows() -> None:
    given = front_matter(model_card(Card(**CARD)))
    assert (given["license"], given["library_name"], given["pipeline_tag"]) == (
        *("apache-2.0", "keras"),
        "image-classification",
    )
    (model,) = given["model-index"]
    assert model["name"] == CARD["name"]
    (result,) = model["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.865}]
    assert result["dataset"]["name"] == "validation photos (n = 200)"


def test_the_hub_s_own_library_accepts_the_card(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    (tmp_path / "README.md").write_text(model_card(Card(**CARD)), "utf-8")
    data = hub.ModelCard.load(tmp_path / "README.md").data
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.task_type) == ("accuracy", 0.865, "image-classification")
    assert (data.license, data.pipeline_tag) == ("apache-2.0", "image-classification")


def test_the_text_names_data_licence_accuracy_with_its_count_and_limits() -> None:
    text = model_card(Card(**CARD))
    for part in (
        "Classifies an image into 2 classes. Images have 224 x 224 pixels.",
        "| data | 100 photos for training |",
        "| licence of the weights it started from | Apache-2.0 |",
        "| accuracy | 86.5% | 200: validation photos |",
        "rose, Tulpe ü.",
        "- Every image gets one of these classes, also one that shows none of them.",
        "- Two lines.",
        "```python\nimport keras\n```",
    ):
        assert part in text


def test_without_a_published_set_the_licence_is_left_to_the_author() -> None:
    text = model_card(Card(**{**CARD, "weights": None, "metrics": ()}))
    assert front_matter(text)["license"] == "other"
    assert "model-index" not in front_matter(text)
    assert "choose one" in text


def test_the_card_of_an_export_names_its_rounding_and_what_was_not_measured() -> None:
    classes = tuple((None, f"class {i}") for i in range(60))
    check = {"count": 6, "images": "photographs of scikit-image", "agreement": 1.0, "difference": 1e-6}
    names = {"model": "lite0", "variant": "lite0", "weights": "imagenet"}
    record = ModelRecord("litert", 224, classes, **names, quantize="dynamic", check=check)
    text = export_card(record, "lite0.tflite")
    given = front_matter(text)
    assert (given["library_name"], given["license"]) == ("tflite", "apache-2.0")
    assert "class 49, and 10 more" in text
    assert "Published ImageNet accuracy of these weights: 75.1 %" in text
    assert "rounded (dynamic)" in text
    assert "| agreement | 100.0% | 6: photographs of scikit-image, same first label as the Keras model |" in text
    assert "with Predictor('lite0.tflite') as predictor:" in text


def test_a_model_without_classes_computes_features() -> None:
    text = export_card(ModelRecord("onnx", 32, (), model="mine"), "mine.onnx")
    assert front_matter(text)["pipeline_tag"] == "image-feature-extraction"
    assert "Computes features of an image" in text
    assert "## Classes" not in text


def test_a_card_never_takes_the_place_of_another_readme(tmp_path: Path) -> None:
    assert card_path(tmp_path / "x.tflite") == tmp_path / "x.tflite.md"
    assert card_path(tmp_path) == tmp_path / "README.md"
