"""Find labels that are probably wrong: what the other photos say about each photo, against the label it has.

Each photo is judged by models that were fitted without it, as in arXiv:1911.00068 (confident learning). Two judges are
averaged: a logistic regression on the features, and the labels of the nearest photos. `benchmarks/wrong_labels.py`
measures how many changed labels of a data set are found.
"""

from typing import NamedTuple

import numpy as np

from keras_effnet.curation.similarity import cosine_blocks, unit
from keras_effnet.errors import require_packages

FOLDS, NEIGHBOURS = 5, 15
STRENGTH = 0.0006  # of the regression: C in scikit-learn, on standardised features
MARGIN = 0.3


class Suspect(NamedTuple):
    """A photo whose label is probably wrong.

    Args:
        position: of the photo.
        suggested: the class that the other photos suggest.
        margin: how much more probable that class is than the label, 0..1.
    """

    position: int
    suggested: int
    margin: float


def find_wrong_labels(vectors: np.ndarray, labels: np.ndarray, *, margin: float = MARGIN) -> list[Suspect]:
    """Find photos whose label is probably wrong, the most certain first.

    Args:
        vectors: features, float32 (photos, features).
        labels: their classes, integers (photos,) from 0.
        margin: how much more probable another class must be, 0..1. Lower finds more, and more that is right.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    probabilities = (held_out_probabilities(vectors, labels) + neighbour_shares(vectors, labels)) / 2
    rows = np.arange(len(labels))
    given = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1
    margins = others.max(axis=1) - given
    found = [Suspect(int(i), int(others[i].argmax()), float(margins[i])) for i in np.flatnonzero(margins > margin)]
    return sorted(found, key=lambda suspect: -suspect.margin)


def held_out_probabilities(vectors: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """For each photo the probabilities of a logistic regression fitted on the other folds, (photos, classes).

    Classes with fewer photos than folds are not judged: their photos get their own label with probability 1.
    """
    require_packages("The search for wrong labels", "sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = int(labels.max()) + 1
    found = np.eye(classes)[labels]
    judged = np.flatnonzero(np.isin(labels, _classes_with(labels, FOLDS)))
    if len(np.unique(labels[judged])) < 2:
        return found
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(vectors[judged], labels[judged]):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))
        model.fit(vectors[judged[fitted]], labels[judged[fitted]])
        found[judged[held_out]] = 0
        found[np.ix_(judged[held_out], model.classes_)] = model.predict_proba(vectors[judged[held_out]])
    return found


def neighbour_shares(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each photo the share of each class among the most similar other photos, (photos, classes)."""
    count = min(NEIGHBOURS, len(labels) - 1)
    one_hot = np.eye(int(labels.max()) + 1)
    if count < 1:
        return one_hot[labels]
    found = []
    for start, cosines in cosine_blocks(unit(vectors)):
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        found.append(one_hot[labels[nearest]].mean(axis=1))
    return np.concatenate(found)


def _classes_with(labels: np.ndarray, least: int) -> np.ndarray:
    names, counts = np.unique(labels, return_counts=True)
    return names[counts >= least]
