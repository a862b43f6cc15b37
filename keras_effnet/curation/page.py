"""The findings about labelled photos as one HTML page with thumbnails."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from keras_effnet.curation.inspection import Inspection
from keras_effnet.data.photos import named
from keras_effnet.images import ImageError
from keras_effnet.reports.html import Section, bullets, page, photo, table

SHOWN = 60


def inspection_page(found: Inspection, title: str) -> str:
    """One HTML page that needs no other file. At most 60 photos are shown under each heading.

    Args:
        found: the findings.
        title: the heading, for example "Photos in flowers/".
    """
    facts = [
        (f"{len(found.names):,}", "photos"),
        (str(len(found.wrong_labels)), "labels that are probably wrong"),
        (str(len(found.duplicates)), "groups of duplicates"),
        (str(len(found.contradictions)), "of them with different labels"),
        (str(len(found.outliers)), "outliers"),
        (str(len(found.unreadable)), "files that cannot be read"),
    ]
    counts = [(name, parts["train"], parts["val"]) for name, parts in found.counts().items()]
    wrong = (
        (row.position, f"<b>{_class(found, row.position)}</b>, rather {escape(found.classes[row.suggested])}?")
        for row in found.wrong_labels
    )
    odd = [(kind, part["count"], part["done"]) for kind, part in found.odd_files.items()]
    columns = ("class", "training", "held out") if found.given_splits else ("class", "training", "would be held out")
    sections = [
        Section("Labels that are probably wrong", _photos(found, wrong)),
        Section("The same picture with different labels", _groups(found, found.contradictions)),
        Section("The same picture in training and held out", _groups(found, found.leaks)),
        Section("Duplicates", _groups(found, found.duplicates)),
        Section("Unlike all others", _photos(found, ((i, _class(found, i)) for i in found.outliers))),
        Section("Photos by class", table(columns, counts)),
        Section("Odd files", table(("kind", "files", "what is done"), odd) if odd else ""),
        Section("Files that cannot be read", bullets(error for _, error in found.unreadable[:SHOWN])),
    ]
    return page(title, "Probable problems, the most certain first. Look before you delete.", facts, sections)


def _class(found: Inspection, i: int) -> str:
    return escape(found.classes[found.labels[i]])


def _photos(found: Inspection, rows: Iterable[tuple[int, str]]) -> str:
    figures = "".join(_figure(found, i, caption) for i, caption in list(rows)[:SHOWN])
    return f'<div class="photos">{figures}</div>' if figures else ""


def _groups(found: Inspection, groups: Sequence[Sequence[int]]) -> str:
    parts = []
    for group in groups[: SHOWN // 2]:
        parts.append(_photos(found, ((i, f"<b>{_class(found, i)}</b>, {found.splits[i]}") for i in group)))
    return "<hr>".join(parts)


def _figure(found: Inspection, i: int, caption: str) -> str:
    short = str(Path(*Path(found.names[i]).parts[-2:]))
    try:
        image = photo(Image.fromarray(named(found.photos[i], i).pixels()), found.names[i])
    except ImageError:  # it vanished since it was inspected
        image = ""
    return f"<figure>{image}<figcaption>{caption}<br>{escape(short)}</figcaption></figure>"
