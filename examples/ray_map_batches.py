"""Label a folder of photos with Ray Data, on more than one machine: one Predictor per worker.

command   python examples/ray_map_batches.py MODEL.tflite FOLDER [--workers 2]
expected  for each photo the same label as from a Predictor in a single process
hardware  any; tested with two local workers on 2 CPU cores
needs     pip install ".[litert]" "ray[data]"; the workers need neither Keras nor TensorFlow
"""

import argparse
from pathlib import Path

import numpy as np

from keras_effnet.serving.predictor import Predictor


class Labels:
    """The state of a worker: its own Predictor."""

    def __init__(self, model: str) -> None:
        self.predictor = Predictor(model, mode="latency")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[object]]:
        predictions = list(self.predictor(batch["path"].tolist(), top=1))
        return {
            "path": [prediction.path for prediction in predictions],
            "label": [prediction.labels[0][1] if prediction.labels else None for prediction in predictions],
            "error": [prediction.error for prediction in predictions],
        }


def label(model: str, paths: list[str], workers: int) -> dict[str, str | None]:
    """Label photos in local workers; on a cluster pass `ray.init(address=...)` and paths that all machines share."""
    import ray

    ray.init(num_cpus=workers + 1, include_dashboard=False)  # one CPU for the tasks that feed them
    try:
        photos = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=2 * workers)
        rows = photos.map_batches(
            Labels, fn_constructor_args=(model,), batch_size=16, compute=ray.data.ActorPoolStrategy(size=workers)
        )
        return {row["path"]: row["label"] for row in rows.take_all()}
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported model (keras-effnet export MODEL.tflite)")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="only the first 40 photos, compared with a single process")
    options = parser.parse_args()

    paths = sorted(str(path.resolve()) for path in options.folder.rglob("*.jpg"))[: 40 if options.smoke else None]
    labels = label(str(Path(options.model).resolve()), paths, options.workers)
    if options.smoke:
        alone = {p.path: p.labels[0][1] if p.labels else None for p in Predictor(options.model)(paths, top=1)}
        print("as in one process" if labels == alone else "not as in one process")
    for path in paths:
        print(f"{labels[path]}  {path}")


if __name__ == "__main__":
    main()
