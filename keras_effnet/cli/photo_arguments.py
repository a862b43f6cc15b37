"""The photos given to a command: files, folders, patterns, a photo on standard input, and scikit-image's samples."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from keras_effnet.cli.argument_checks import naming, reject_address

if TYPE_CHECKING:
    from keras_effnet.data.photos import Photo

# As for `cat` and `file`: the photo itself on standard input, not a list of names.
STDIN = "-"


def need_photos(files: Sequence[str] | None, samples: Sequence[str] | None) -> None:
    """Refuse a command line without photos as wrong usage."""
    if not files and not samples:
        raise typer.BadParameter("give photos, folders or patterns, or --sample NAME.", param_hint="PHOTO")


def find_photos(files: Sequence[str] | None, samples: Sequence[str] | None) -> list["Photo"]:
    """List the photos of a command line in their order, the samples last.

    Raises:
        ImportError: a sample needs scikit-image.
        ValueError: standard input is empty, a name is the address of a web page, or there is no such sample.
    """
    from keras_effnet.images import find_images, sample

    photos: list[Photo] = []
    for name in files or ():
        reject_address(name)
        if name == STDIN:
            photos.append((STDIN, _read_stdin()))
        else:
            photos += find_images([name])
    with naming("--sample"):
        return [*photos, *((name, sample(name)) for name in samples or ())]


def _read_stdin() -> bytes:
    content = sys.stdin.buffer.read() if sys.stdin else b""
    if not content:
        raise ValueError(
            "Standard input is empty. Expected the bytes of one photo for the name '-'. To classify the photos of a "
            "list, run xargs keras-effnet classify < list.txt."
        )
    return content
