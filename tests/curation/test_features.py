"""Features of photos: equal to Keras's own, stored in files that resume, searched by cosine."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet import EfficientNet, embed
from keras_effnet._keras import keras
from keras_effnet.curation.feature_files import SHARD, Features, Shards, read_features, write_features
from keras_effnet.curation.features import Embedding, FeatureExtractor
from keras_effnet.curation.similarity import Index
from keras_effnet.inference.classifier import Classifier


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    model = EfficientNet("lite0", weights=None, classes=3, input_shape=(64, 64, 3))
    return FeatureExtractor(Classifier(model, ("a", "b", "c"), 64))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_features_are_what_the_classifier_gets(extractor: FeatureExtractor) -> None:
    model = extractor.classifier.model
    dense = model.layers[-1]
    expected = keras.Model(model.input, dense.input).predict(images(3).astype("float32"), verbose=0)
    found = list(embed(list(images(3)), model=extractor, batch_size=2))
    classifier = extractor.classifier
    pixels = np.stack([classifier.view.pixels(image) for image in images(3)])
    expected = keras.Model(model.input, dense.input).predict(pixels, verbose=0)
    np.testing.assert_allclose([row.vector for row in found], expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose([row.scores for row in found], model.predict(pixels, verbose=0), atol=1e-5)


def test_an_unreadable_photo_has_an_error_in_its_place(extractor: FeatureExtractor, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    rows = list(embed([images(1)[0], tmp_path / "bad.jpg", images(1)[0]], model=extractor))
    assert [row.vector is None for row in rows] == [False, True, False]
    assert "bad.jpg" in (rows[1].error or "")


def test_a_model_with_a_nested_classifier_is_refused_by_name() -> None:
    inner = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()], name="inner"
    )
    inner.add(keras.layers.Dense(2, name="inside"))
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner])
    with pytest.raises(ValueError, match="'inside' .* nested model"):
        FeatureExtractor(Classifier(outer, ("a", "b"), 32))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_of_features_is_read_as_it_was_written(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    write_features(tmp_path / f"x{suffix}", Features(("a", "ü", "c/d.jpg"), vectors, "lite0 abc"))
    found = read_features(tmp_path / f"x{suffix}")
    assert (found.names, found.model) == (("a", "ü", "c/d.jpg"), "lite0 abc")
    np.testing.assert_array_equal(found.vectors, vectors)


def test_a_damaged_file_and_another_suffix_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"x\.npz.* cannot be read as features"):
        read_features(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"'x\.csv'.* ends in \.npz or \.parquet"):
        read_features("x.csv")


def test_an_interrupted_run_keeps_what_was_computed(tmp_path: Path) -> None:
    out = tmp_path / "x.npz"

    def rows(names: list[str], fail: bool) -> object:
        for name in names:
            yield Embedding(name, np.full(2, float(name), np.float32))
        if fail:
            raise KeyboardInterrupt

    names = [str(i) for i in range(SHARD + 3)]
    with pytest.raises(KeyboardInterrupt):
        list(Shards(out, "m 1").write(rows(names, fail=True)))
    resumed = Shards(out, "m 1")
    assert set(resumed.done) == set(names)
    list(resumed.write(rows(["2000"], fail=False)))
    joined = resumed.join(["2000", *names[::-1], "never seen"])
    assert joined.names == ("2000", *names[::-1])
    np.testing.assert_array_equal(joined.vectors[:, 0], [2000, *map(float, names[::-1])])
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_shards_of_another_model_are_refused(tmp_path: Path) -> None:
    list(Shards(tmp_path / "x.npz", "m 1").write([Embedding("a", np.zeros(2, np.float32))]))
    with pytest.raises(ValueError, match="model m 1. Expected those of m 2"):
        Shards(tmp_path / "x.npz", "m 2")


def test_search_finds_the_highest_cosines_as_numpy_computes_them() -> None:
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(50, 8)).astype("float32"), rng.normal(size=(2, 8)).astype("float32")
    names = tuple(str(i) for i in range(50))
    found = Index(Features(names, vectors, "m")).search(query, top=3)
    for row, matches in zip(query, found, strict=True):
        cosines = vectors @ row / np.linalg.norm(vectors, axis=1) / np.linalg.norm(row)
        order = np.argsort(-cosines)[:3]
        assert [match.name for match in matches] == [names[i] for i in order]
        np.testing.assert_allclose([match.cosine for match in matches], cosines[order], rtol=1e-5)
    with pytest.raises(ValueError, match=r"shape \(1, 9\)"):
        Index(Features(names, vectors, "m")).search(np.zeros((1, 9), "float32"))


def test_pictures_in_files_and_arrays_have_the_same_features(extractor: FeatureExtractor, tmp_path: Path) -> None:
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    one, two = embed([tmp_path / "a.png", images(1)[0]], model=extractor)
    np.testing.assert_array_equal(one.vector, two.vector)
