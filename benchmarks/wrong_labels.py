"""How many labels that were changed at random does `keras-effnet inspect` find?

command   python benchmarks/wrong_labels.py DIR [--share 0.05] [--draws 8] [--model lite0]
prints    for each draw: photos changed, photos reported, share of the reports that were changed (precision), share of
          the changed that were reported (recall); then the means
needs     pip install ".[quickstart,curation]"
measured  2026-11, 700 flowers (five classes), lite0, 5 % changed, 8 draws: precision 0.56, recall 0.84; before any
          change 25 photos are reported, so that part of the "false" reports are labels that were wrong from the start
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_effnet import embed
from keras_effnet.curation.wrong_labels import find_wrong_labels
from keras_effnet.data.training_photos import open_training_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DIR")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--model", default="lite0")
    options = parser.parse_args()

    found = open_training_photos(options.data)
    rows = [*found.train, *found.val]
    read = [
        (row.vector, example.target)
        for row, example in zip(embed([row.photo for row in rows], model=options.model), rows, strict=True)
        if row.vector is not None
    ]
    vectors, labels = np.stack([vector for vector, _ in read]), np.array([target for _, target in read])
    print(f"{len(find_wrong_labels(vectors, labels))} of {len(labels)} photos are reported without any change")
    results = []
    for draw in range(options.draws):
        rng = np.random.default_rng(draw)
        changed = rng.choice(len(labels), round(options.share * len(labels)), replace=False)
        noisy = labels.copy()
        noisy[changed] = (noisy[changed] + rng.integers(1, len(found.classes), len(changed))) % len(found.classes)
        reported = {row.position for row in find_wrong_labels(vectors, noisy)}
        hits = len(reported & set(changed.tolist()))
        results.append((hits / max(len(reported), 1), hits / len(changed)))
        print(
            f"{len(changed)} changed, {len(reported)} reported: precision {results[-1][0]:.2f}, "
            f"recall {results[-1][1]:.2f}"
        )
    print("mean: precision {:.2f}, recall {:.2f}".format(*np.mean(results, axis=0)))


if __name__ == "__main__":
    main()
