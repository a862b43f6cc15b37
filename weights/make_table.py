"""The table of README.md in this folder, made from the records that the code uses.

command   python weights/make_table.py [--write]
expected  the table, printed or put into README.md; nothing else is fetched, read or changed
hardware  any; a second
needs     pip install keras_effnet
"""

import argparse
from pathlib import Path

from goldens import GOLDENS

from keras_effnet.weights.published import package_name
from keras_effnet.weights.registry import WEIGHTS, Source, Weights

README = Path(__file__).with_name("README.md")
START, END = "<!-- made by make_table.py -->\n", "<!-- end of what make_table.py made -->\n"
HEAD = ("variant", "set", "top-1", "top-5", "licence", "sources, in order, and their hashes", "verified here")


def table() -> str:
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, WEIGHTS.values())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(record: Weights) -> tuple[str, ...]:
    scores = ("none published" if score is None else str(score) for score in (record.top1, record.top5))
    return f"`{record.variant}`", f"`{record.name}`", *scores, record.licence, _sources(record), _verified(record)


def _sources(record: Weights) -> str:
    package = []
    if record.package:
        package = [f"package `{package_name(record)}`{_size(record.package_size)}<br>{_digest(record.package_digest)}"]
    whole = [_source(source) for source in record.sources]
    headless = [f"{_source(source)}<br>(without the classifier)" for source in record.headless]
    return "<br>".join([*package, *whole, *headless])


def _source(source: Source) -> str:
    return f"{source.credit}: [{source.filename}]({source.url}){_size(source.size)}<br>{_digest(source.digest)}"


def _size(size: int | None) -> str:
    return "" if size is None else f", {size:,} bytes"


def _digest(digest: str) -> str:
    return f"`{digest}`" if digest else "no hash was published; pinned at the first download"


def _verified(record: Weights) -> str:
    """What was done on the machine that made this page, which has the packages and no way to the other files."""
    if record.package:
        return "the file of the package: digest, structure, and timm's logits for two photographs"
    photos = [
        f"{golden.photo}, class {golden.index}, {golden.probability:.7f}{' (doubtful)' if golden.doubt else ''}"
        for golden in GOLDENS
        if (golden.variant, golden.name) == (record.variant, record.name)
    ]
    return "; ".join(["no: not fetched here", *(f"`verify.py --fetch` compares {photo}" for photo in photos)])


def page(text: str) -> str:
    """The page with the table made anew."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md instead of printing it")
    if parser.parse_args().write:
        README.write_text(page(README.read_text("utf-8")), "utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
