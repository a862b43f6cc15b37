"""`keras-effnet push` and `pull`: models to and from the Hugging Face Hub."""

import json
from typing import Annotated

import typer

from keras_effnet.cli.terminal import AsJson, muted, plain_errors, silence_backend

Repository = Annotated[str, typer.Argument(metavar="hf:USER/NAME", help="Repository on the Hugging Face Hub.")]
Source = Annotated[str, typer.Argument(metavar="PATH", help="Folder of a run, or exported model.")]
Target = Annotated[str, typer.Argument(metavar="FOLDER", help="New folder for the model.")]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]


def push(repository: Repository, path: Source, private: Private = False, as_json: AsJson = False) -> None:
    """Upload a model and its card to the Hugging Face Hub."""
    with plain_errors():
        silence_backend()
        from keras_effnet.sharing.hub import push as upload

        with muted(f"Uploading {path} ..."):
            address = upload(repository, path, private=private)
        print(json.dumps({"url": address}) if as_json else address)


def pull(repository: Repository, out: Target, as_json: AsJson = False) -> None:
    """Download a model from the Hugging Face Hub. Sizes and digests are checked, and no code is run."""
    with plain_errors():
        silence_backend()
        from keras_effnet.sharing.hub import pull as download

        with muted(f"Downloading {repository} ..."):
            folder = download(repository, out)
        print(json.dumps({"path": str(folder)}) if as_json else folder)
