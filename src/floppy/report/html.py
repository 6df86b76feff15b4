"""HTML as text: everything that is not written here is escaped, whatever it says."""

import base64
import html
import importlib.resources
import string
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LONGEST = 2000
"""Characters of a text from elsewhere, such as a card's notes."""
LONGEST_NAME = 120
"""Of a name."""


class Picture(NamedTuple):
    """A picture with what it shows, in words."""

    data: bytes
    kind: str
    """Such as `png`."""
    alt: str
    caption: str = ""
    still: bytes = b""
    """PNG: stands in the place of what moves, for people who have asked for less motion."""


def escaped(text: object, most: int = LONGEST) -> str:
    """A text as HTML shows it: markup, control characters and those that turn the direction of writing have no effect.

    Args:
      text: anything.
      most: characters that are kept; the middle of a longer text is left out.
    """
    said = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in str(text))
    if len(said) > most:
        said = f"{said[: most // 2]} … {said[-most // 2 :]}"
    return html.escape(said)


def short(text: object) -> str:
    """A text on one line, cut in its middle where it is long; not escaped yet."""
    said = " ".join(str(text).split())
    return said if len(said) <= LONGEST_NAME else f"{said[: LONGEST_NAME // 2]} … {said[-LONGEST_NAME // 2 :]}"


def name(text: object) -> str:
    """A short text, on one line."""
    return escaped(short(text))


def paragraph(text: object, kind: str = "") -> str:
    """A paragraph of escaped text."""
    return f"<p{_class(kind)}>{escaped(text)}</p>"


def section(heading: str, *parts: str) -> str:
    """A section, of parts that are HTML already."""
    return "\n".join(["<section>", f"<h2>{escaped(heading)}</h2>", *filter(None, parts), "</section>"])


def figure(picture: Picture) -> str:
    """A picture with its caption."""
    image = f'<img src="{data_uri(picture.data, f"image/{picture.kind}")}" alt="{escaped(picture.alt)}">'
    if picture.still:
        still = data_uri(picture.still, "image/png")
        image = f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">{image}</picture>'
    caption = f"<figcaption>{escaped(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{image}{caption}</figure>"


def example(
    picture: Picture, heading: str, rows: Iterable[tuple[str, float, str, bool]], more: str = "", numbers: str = ""
) -> str:
    """An example: its picture, and a bar for each action.

    Args:
      picture: of the observation.
      heading: its name.
      rows: of each action the name, the length of its bar, its value in words, and whether bars begin on the left: from
        0 to 1; else in the middle, from -1 to 1.
      more: what is left out.
      numbers: of the observation, in words.
    """
    lines = []
    for who, length, text, begins_left in rows:
        low, high = sorted((0.0, min(1.0, max(-1.0, length))))
        left, width = (low, high - low) if begins_left else (0.5 + low / 2, (high - low) / 2)
        bar = f'<div class="bar"><i style="margin-left:{100 * left:.0f}%;width:{100 * width:.0f}%"></i></div>'
        lines.append(f"<tr><td>{name(who)}</td><td>{bar}</td><td{_class('number')}>{name(text)}</td></tr>")
    image = f'<img src="{data_uri(picture.data, f"image/{picture.kind}")}" alt="{escaped(picture.alt)}">'
    note, said = (f'<p class="note">{escaped(text)}</p>' if text else "" for text in (more, numbers))
    table = f'<table class="bars">{"".join(lines)}</table>'
    return f'<figure class="example"><h3>{escaped(heading)}</h3>{image}{said}{table}{note}</figure>'


def details(summary: str, body: str) -> str:
    """HTML that is folded away behind a summary, and needs no script to unfold."""
    return f"<details><summary>{escaped(summary)}</summary>{body}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], own: int | None = None) -> str:
    """A table whose first column has names, and the others numbers; row number `own` stands out."""
    names = [f"<th{_class('number' if column else '')}>{escaped(each)}</th>" for column, each in enumerate(head)]
    lines = ["<tr>" + "".join(names) + "</tr>"]
    for number, row in enumerate(rows):
        cells = [f"<td{_class('number' if column else '')}>{name(each)}</td>" for column, each in enumerate(row)]
        lines.append(f"<tr{_class('own' if number == own else '')}>" + "".join(cells) + "</tr>")
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def facts(entries: Iterable[tuple[str, object]]) -> str:
    """Names with what they are."""
    return "<dl>" + "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(value)}</dd>" for key, value in entries) + "</dl>"


def command(text: object) -> str:
    """What is typed."""
    return f"<pre><code>{escaped(text)}</code></pre>"


def download(data: bytes, file_name: str, text: str) -> str:
    """A link that holds a file."""
    uri = data_uri(data, "application/octet-stream")
    return f'<p><a class="button" download="{name(file_name)}" href="{uri}">{escaped(text)}</a></p>'


def data_uri(data: bytes, media_type: str) -> str:
    """A file within a page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def page(title: str, sections: Iterable[str], version: str) -> str:
    """The whole file, which needs no other."""
    template = importlib.resources.files("floppy.report").joinpath("page.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(
        title=name(title), heading=name(title), body="\n".join(sections), version=escaped(version)
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
