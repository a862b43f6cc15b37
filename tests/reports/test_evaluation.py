"""The HTML page of an evaluation: figures as scikit-learn computes them, one file, nothing from elsewhere."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_effnet.reports.charts import curves
from keras_effnet.reports.evaluation import Evaluation, class_metrics, evaluation_page

CLASSES = ("daisy", "rose", "tulip <b>")
VOID = {"meta", "img", "br"}


@pytest.fixture
def answers() -> Evaluation:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 60)
    predicted = np.where(rng.random(60) < 0.7, targets, rng.integers(0, 3, 60))
    names = [f"{i}.jpg" for i in range(60)]
    photo = Image.new("RGB", (300, 200), (200, 30, 30))
    return Evaluation(CLASSES, targets, predicted, rng.uniform(0.3, 1, 60), names, lambda _: photo)


class Checker(HTMLParser):
    """Collects open tags that do not match, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # <rect ... />

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_page_is_well_formed_and_loads_nothing(answers: Evaluation) -> None:
    history = {"loss": {"training": [1.0, 0.5], "held out": [0.9, float("nan")]}}
    text = evaluation_page("lite0 & co", answers, facts=[("3 s", "training")], history=history, notes=["A <note>."])
    checker = Checker()
    checker.feed(text)
    assert (checker.wrong, checker.open) == ([], [])
    assert checker.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in checker.addresses)
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "tulip <b>" not in text
    assert "A &lt;note&gt;." in text


def test_metrics_of_classes_equal_those_of_scikit_learn(answers: Evaluation) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    expected = metrics.confusion_matrix(answers.targets, answers.predicted, labels=range(3))
    np.testing.assert_array_equal(answers.confusion(), expected)
    precision, recall, f1, n = metrics.precision_recall_fscore_support(answers.targets, answers.predicted)
    np.testing.assert_allclose(class_metrics(answers.confusion()), np.stack([n, precision, recall, f1], 1), rtol=1e-12)


def test_wrong_photos_come_with_the_most_confident_first(answers: Evaluation) -> None:
    order = answers.most_confident_errors()
    assert not answers.correct[order].any()
    assert len(order) == min(24, int((~answers.correct).sum()))
    assert list(answers.confidence[order]) == sorted(answers.confidence[~answers.correct], reverse=True)[:24]


def test_many_classes_get_a_list_of_confusions_instead_of_a_matrix() -> None:
    targets = np.arange(50) % 40
    predicted = np.where(targets < 3, 39, targets)
    classes = [f"class{i}" for i in range(40)]
    unknown = np.full(50, np.nan)
    text = evaluation_page("x", Evaluation(classes, targets, predicted, unknown, [str(i) for i in range(50)]))
    assert "confusion matrix" not in text
    assert re.findall(r"<td>class0</td><td>class39</td><td>(\d+)</td>", text) == ["2"]
    assert "reliability" not in text  # no score is known


def test_a_page_without_photos_has_no_figures_of_accuracy() -> None:
    none = np.array([], int)
    text = evaluation_page("x", Evaluation(CLASSES, none, none, none.astype(float), []))
    assert "<b>-</b>accuracy (0 of 0 photos)" in text


def test_curves_leave_gaps_for_values_that_are_not_finite() -> None:
    line = curves({"loss": [1.0, float("nan"), 0.5]}, x_label="epoch", y_label="loss")
    assert len(re.findall("<circle", line)) == 2
    assert curves({"loss": [float("nan")]}, x_label="epoch", y_label="loss") == ""
