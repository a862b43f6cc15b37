"""`keras-effnet weights`: the published weight sets and their local files; nothing here imports Keras."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_effnet.cli.argument_checks import naming
from keras_effnet.cli.help_page import Command, Group
from keras_effnet.cli.terminal import AsJson, complain, plain_errors, plain_table, print_table, printable
from keras_effnet.errors import counted
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.cache import cache_directories, digest_matches
from keras_effnet.weights.fast_copy import fast_copy_paths, save_fast_copy, verify_fast_copy
from keras_effnet.weights.published import find_local, find_weights, list_weights, locate, package_name, possible_files
from keras_effnet.weights.registry import WEIGHTS, Source
from keras_effnet.weights.registry import Weights as Record

app = typer.Typer(help="List, download and verify the published weight sets.", no_args_is_help=True, cls=Group)

Network = Annotated[str, typer.Argument(metavar="MODEL", help="Network name, for example b0, lite0 or EfficientNetB7.")]
Set = Annotated[str, typer.Argument(metavar="SET", help="Weight set, for example imagenet, noisy-student or advprop.")]
OneNetwork = Annotated[str | None, typer.Argument(metavar="MODEL", help="Only the sets of this network.")]
OneSet = Annotated[str | None, typer.Argument(metavar="SET", help="Only this set.")]
OfNetwork = Annotated[str | None, typer.Option("--variant", metavar="MODEL", help="Only the sets of this network.")]
Every = Annotated[bool, typer.Option("--all", help="Also list the sets without a local file.")]
NoTop = Annotated[bool, typer.Option("--notop", help="Prefer the smaller file without a classifier.")]


def _records(variant: str | None, name: str | None = None) -> list[Record]:
    if variant is None:
        return list(WEIGHTS.values())
    key = find_variant(variant).name
    return [find_weights(key, name)] if name else [WEIGHTS[key] for key in list_weights(key)]


def _files(record: Record) -> list[tuple[Path, str]]:
    """The local files of a set, damaged or not, with their expected digests."""
    return [(path, digest) for path, digest in possible_files(record) if path.is_file()]


@app.command("list", cls=Command)
def list_sets(variant: OfNetwork = None, as_json: AsJson = False) -> None:
    """List the weight sets with accuracy, resolution, licence, sources, and whether a local file exists."""
    with plain_errors():
        with naming("--variant"):
            records = _records(variant)
        if as_json:
            print(json.dumps([_entry(record) for record in records], indent=2))
            return
        left = ("variant", "set", "licence", "sources", "here")
        view = plain_table("variant", "set", "top-1", "top-5", "pixels", "licence", "sources", "here", left=left)
        for record in records:
            scores = ("-" if score is None else str(score) for score in (record.top1, record.top5))
            pixels, origins = str(VARIANTS[record.variant].resolution), "\n".join(dict.fromkeys(_origins(record)))
            found = "yes" if _files(record) else "no"
            view.add_row(record.variant, record.name, *scores, pixels, record.licence, origins, found)
        print_table(view)


def _entry(record: Record) -> dict[str, Any]:
    return {
        "variant": record.variant,
        "set": record.name,
        "top1": record.top1,
        "top5": record.top5,
        "resolution": VARIANTS[record.variant].resolution,
        "licence": record.licence,
        "package": package_name(record),
        "sources": [source.url for source in record.sources],
        "sizes": {source.url: source.size for source in (*record.sources, *record.headless) if source.size},
        "files": [str(path) for path, _ in _files(record)],
    }


def _origins(record: Record) -> Iterator[str]:
    """Where a set is available: in a Python package, or from these publishers."""
    if record.package:
        yield "package"
    for source in record.sources:
        yield source.credit.partition(" (")[0]


@app.command(cls=Command)
def info(variant: Network, name: Set, as_json: AsJson = False) -> None:
    """Print everything known about a set: accuracy, normalisation, URLs, digests and local files."""
    with plain_errors():
        (record,) = _records(variant, name)
        known = {
            "variant": record.variant,
            "set": record.name,
            **{field: value for field, value in asdict(record).items() if field != "name"},
            "sources": [_source(source) for source in record.sources],
            "headless": [_source(source) for source in record.headless],
            "resolution": VARIANTS[record.variant].resolution,
            "files": [str(path) for path, _ in _files(record)],
            "cache": [str(folder / record.sources[0].filename) for folder in cache_directories()],
        }
        if as_json:
            print(json.dumps(known, indent=2))
            return
        width = max(map(len, known)) + 2
        for field, value in known.items():
            for i, line in enumerate(_lines(value)):  # nothing for an empty field
                print(f"{'' if i else field.replace('_', ' '):<{width}}{printable(line)}")


def _source(source: Source) -> dict[str, Any]:
    return {"url": source.url, "format": source.format, **asdict(source)}


def _lines(value: Any) -> list[str]:
    """The lines to print for one field of a record: a text, a number, a row, or a list of these."""
    if isinstance(value, dict) and "url" in value:
        size = [f"{value['size']:,} bytes"] if value["size"] else []
        digest = value["digest"] or "no digest was published: pinned at the first download"
        return [value["url"], digest, ", ".join([value["format"], *size, value["credit"], value["licence"]])]
    if isinstance(value, dict):
        return [f"{key} {', '.join(f'{number:g}' for number in numbers)}" for key, numbers in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [line for part in value for line in _lines(part)]
    return [] if value in (None, "") else [str(value)]


@app.command(cls=Command)
def fetch(variant: Network, name: Set, notop: NoTop = False, as_json: AsJson = False) -> None:
    """Download a set unless a local file exists, and print the path of the file."""
    with plain_errors():
        (record,) = _records(variant, name)
        found = find_local(record, include_top=not notop)
        file = found.path if found else locate(record, include_top=not notop, original=True)
        save_fast_copy(record, file)
        _print_path(record, file, as_json)


@app.command(cls=Command)
def path(variant: Network, name: Set, notop: NoTop = False, as_json: AsJson = False) -> None:
    """Print the path of the local file of a set. Exits with 1 if no valid file exists."""
    with plain_errors():
        (record,) = _records(variant, name)
        found = find_local(record, include_top=not notop)
        if found is None:
            folders = " or ".join(str(folder) for folder in cache_directories())
            first = record.sources[0]
            raise ValueError(
                f"The weights {record.name!r} of {record.variant!r} are not on this machine. Expected "
                f"{first.filename} with {first.digest or 'the right structure'} in {folders}. Run keras-effnet weights "
                f"fetch {record.variant} {record.name}."
            )
        _print_path(record, found.path, as_json)


def _print_path(record: Record, file: Path, as_json: bool) -> None:
    row = {"variant": record.variant, "set": record.name, "path": str(file)}
    print(json.dumps(row) if as_json else file)


@app.command(cls=Command)
def verify(variant: OneNetwork = None, name: OneSet = None, every: Every = False, as_json: AsJson = False) -> None:
    """Check the local files against their digests. Exits with 1 if a file is damaged.

    A fast copy is stale if it was made from another version of the file; it is replaced when the set is next loaded.
    """
    with plain_errors():
        rows, absent = [], 0
        for record in _records(variant, name):
            for state, where in _check(record):
                if state == "missing" and not (every or name):
                    absent += 1
                    continue
                rows.append({"state": state, "variant": record.variant, "set": record.name, "path": str(where)})
                if not as_json:
                    print(f"{state:<8} {record.variant:<6} {record.name:<14} {printable(str(where))}", flush=True)
        if as_json:
            print(json.dumps(rows, indent=2))
        _summarise([row["state"] for row in rows], absent)


def _summarise(states: Sequence[str], absent: int) -> None:
    damaged = states.count("damaged")
    checked = f"{counted(len(states) - states.count('missing'), 'file')} checked, {damaged} damaged"
    complain(
        f"{checked}; {counted(absent, 'set')} without a local file (--all lists them)." if absent else f"{checked}."
    )
    if damaged:
        complain("Expected the published digests. Delete the damaged files and fetch them again.")
        raise typer.Exit(1)


def _check(record: Record) -> Iterable[tuple[str, Path]]:
    files = _files(record)
    if not files:
        yield "missing", cache_directories()[0] / record.sources[0].filename
    for file, digest in files:
        if not digest:
            yield "unpinned", file  # no digest was published, and the file was copied there by hand
        elif not digest_matches(file, digest):
            yield "damaged", file
        else:
            yield "stale" if file in fast_copy_paths(record) and not verify_fast_copy(file, record) else "ok", file
