"""SVG files as elements of an HTML page: without their header, and with names that no other figure of the page has."""

import re

from markupsafe import Markup

NAME = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(text: str, *, prefix: str) -> Markup:
    """The element `svg` of a file that this program drew, as wide as its box; `prefix` begins every name in it."""
    element = text[text.index("<svg") :]
    head, _, body = element.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return Markup(NAME.sub(rf"\g<1>{prefix}", f"{head}>{body}"))
