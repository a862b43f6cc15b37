"""A page of HTML in one file: style, sections, tables, photos. Nothing is loaded from elsewhere, and no script runs."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5a6572; --line: #d9dee4; --paper: #fff; --tint: #f3f5f8;
  --blue: #3b6ea5; --amber: #b7791f; --red: #b3403a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa5b1; --line: #343c46; --paper: #15191e;
  --tint: #1d232a; --blue: #7fb0e4; --amber: #e0b060; --red: #e58a84; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 16px 64px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 10px; }
p, li { max-width: 72ch; }
.soft, figcaption { color: var(--soft); font-size: 0.88rem; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; padding: 0; list-style: none; }
.facts li { background: var(--tint); border-radius: 8px; padding: 10px 16px; }
.facts b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.charts { display: flex; flex-wrap: wrap; gap: 8px 24px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { display: block; max-width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 16px; }
figure { margin: 0; }
.photos img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 6px; display: block; }
.photos .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.photos.pairs { grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
figcaption { margin-top: 4px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading and its content, which is HTML."""

    title: str
    content: str


def page(title: str, subtitle: str, facts: Sequence[tuple[str, str]], sections: Iterable[Section]) -> str:
    """A whole page.

    Args:
        title: the heading, plain text.
        subtitle: one line below it, plain text.
        facts: pairs (value, name) in large type, plain text.
        sections: the rest, in order. A section without content is left out.
    """
    boxes = "".join(f"<li><b>{escape(value)}</b>{escape(name)}</li>" for value, name in facts)
    body = "".join(f"<h2>{escape(part.title)}</h2>\n{part.content}\n" for part in sections if part.content)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{escape(subtitle)}</p>\n<ul class="facts">{boxes}</ul>\n{body}</body>\n</html>\n'
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose first column is text and whose other columns are numbers; it scrolls on a narrow screen."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def bullets(lines: Iterable[str]) -> str:
    """A list of plain texts; empty without any."""
    items = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def photo(image: Any, alt: str, side: int = 200) -> str:
    """A Pillow image as an `<img>` that contains its pixels, at most `side` pixels high and wide."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    with BytesIO() as file:
        small.save(file, "JPEG", quality=82)
        data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt, quote=True)}">'
