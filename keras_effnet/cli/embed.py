"""`keras-effnet embed` and `keras-effnet similar`: vectors that describe photos, and the search in them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from keras_effnet.cli.argument_checks import check_model, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.photo_arguments import find_photos, need_photos
from keras_effnet.cli.terminal import (
    AsJson,
    BatchSize,
    Model,
    Photos,
    Samples,
    complain,
    console,
    muted,
    plain_errors,
    plain_table,
    print_table,
    start_keras,
)
from keras_effnet.errors import counted

FeaturesOut = Annotated[str, typer.Option(metavar="FILE", help="A .npz or .parquet file for the vectors.")]
FeaturesIn = Annotated[
    str, typer.Option("--in", metavar="FILE", help="A file that keras-effnet embed wrote: the photos to search in.")
]
Matches = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Photos to find for each query.")]


def embed(
    files: Photos = None,
    sample: Samples = None,
    *,
    out: FeaturesOut,
    model: Model = "lite0",
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
) -> None:
    """Compute a vector for each photo, for search and clustering. Exits with 1 if any photo cannot be read.

    If it is interrupted, the same command resumes.
    """
    from keras_effnet.curation.feature_files import Shards, check_feature_file

    need_photos(files, sample)
    with plain_errors(resume="Repeat the same command to resume."):
        photos = find_photos(files, sample)
        check_model(model)
        with naming("--out"):
            check_feature_file(out)
        start_keras()
        from keras_effnet.curation.features import FeatureExtractor, embed
        from keras_effnet.data.photos import named

        with muted(f"Loading {model} ..."):
            extractor = FeatureExtractor(model)
        with naming("--out"):
            shards = Shards(out, f"{model} {extractor.fingerprint}")
        names = [named(photo, number).name for number, photo in enumerate(photos)]
        todo = [photo for name, photo in zip(names, photos, strict=True) if name not in shards.done]
        rows = shards.write(embed(todo, model=extractor, batch_size=batch_size))
        screen = console(stderr=True)
        failures = 0
        for row in track(rows, "photos", total=len(todo), console=screen, disable=not screen.is_terminal):
            if row.error:
                complain(row.error)
                failures += 1
        found = shards.join(names)
        count, size = found.vectors.shape
        if as_json:
            print(json.dumps({"out": out, "photos": count, "features": size, "model": found.model, "errors": failures}))
        else:
            print(f"{counted(count, 'vector')} of {size:,} numbers written to {out}.")
    if failures:
        raise typer.Exit(1)


def similar(
    files: Photos = None,
    sample: Samples = None,
    *,
    features: FeaturesIn,
    model: Model = "lite0",
    top: Matches = 5,
    as_json: AsJson = False,
) -> None:
    """Find the photos that are most similar to each photo given. Exits with 1 if any photo cannot be read."""
    need_photos(files, sample)
    with plain_errors():
        photos = find_photos(files, sample)
        check_model(model)
        from keras_effnet.curation.feature_files import read_features
        from keras_effnet.curation.similarity import Index

        with naming("--in"):
            if not Path(features).is_file():
                raise ValueError(f"There is no file {features!r}. Make one with keras-effnet embed.")
            known = read_features(features)
        start_keras()
        from keras_effnet.curation.features import FeatureExtractor, embed

        with muted(f"Loading {model} ..."):
            extractor = FeatureExtractor(model)
        if known.model.split()[-1:] != [extractor.fingerprint]:
            raise ValueError(
                f"--in: The vectors in {features!r} come from the model {known.model}. Expected those of {model} "
                f"{extractor.fingerprint}. Pass the same --model, or run keras-effnet embed again."
            )
        index = Index(known)
        entries: list[dict[str, Any]] = []
        failures = 0
        for row in embed(photos, model=extractor):
            if row.vector is None:
                complain(row.error or "")
                failures += 1
                continue
            [matches] = index.search(row.vector[None], top=top)
            entries.append({"photo": row.path, "similar": [{"photo": m.name, "cosine": m.cosine} for m in matches]})
        if as_json:
            print(json.dumps(entries, indent=2))
        else:
            view = plain_table("photo", "similar", "cosine", left=("photo", "similar"))
            for entry in entries:
                for match in entry["similar"]:
                    view.add_row(entry["photo"], match["photo"], f"{match['cosine']:.3f}")
            print_table(view)
    if failures:
        raise typer.Exit(1)
