"""The page as one HTML file: what it shows, how it looks and what it does, and nothing that is elsewhere."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Final

import jinja2
import msgspec
from markupsafe import Markup

from vpt_data.inspect.view.item import Document
from vpt_data.report import visible_line

#: Parts of the script, in the order in which they build on each other: one module in the page.
SCRIPTS: Final = ("text.js", "data.js", "picture.js", "dialogue.js", "sample.js", "gallery.js", "others.js", "app.js")
STYLES: Final = ("page.css", "sample.css")
#: What could end the element that holds the document, and the line breaks that JSON allows and old scripts do not.
_ESCAPES: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def render(document: Document) -> str:
    """One HTML file that shows a document; it asks for nothing but what `document.api`, if any, offers.

    Texts of the corpus are in it as JSON, never as HTML. The content-security policy allows this one script and this
    one style by their hashes, pictures from data URIs, and only where there is an `api` requests to the same server.
    """
    script, look = _joined(SCRIPTS), style()
    return template(text("page.html.j2")).render(
        title=document.title,
        policy=policy(look, script, served=document.api is not None),
        style=Markup(look),
        script=Markup(script),
        document=Markup(_json(document)),
    )


def template(source: str) -> jinja2.Template:
    """A template of a page: what it is given is escaped, and the filter `shown` takes a text to harmless characters."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = visible_line
    return environment.from_string(source)


def style() -> str:
    """The style sheet of the page: colours of both themes, tables, plots, pictures."""
    return _joined(STYLES)


def policy(style: str, script: str | None = None, *, served: bool = False) -> str:
    """The content-security policy of a page with this text in its `<style>` and `<script>`; all else is forbidden.

    served   the page may ask the server that it came from
    """
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script) if script else "'none'",
        "style-src": _hash(style),
        "img-src": "data: 'self'" if served else "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {allowed}" for name, allowed in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(document: Document) -> str:
    """JSON that holds no character with a meaning in HTML; numbers that JSON lacks are null."""
    return msgspec.json.encode(document).decode().translate(_ESCAPES)


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join(text(name) for name in names)


def text(name: str) -> str:
    """A file of the folder web."""
    return (resources.files("vpt_data.inspect.view") / "web" / name).read_text(encoding="utf-8")
