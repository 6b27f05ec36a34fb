"""Pages to plain text: HTML as Markdown, by markdownify and Beautiful Soup."""

from typing import Any

from stillhouse.errors import RecipeError

__all__ = ["as_markdown"]

_NO_TEXT = ("script", "style", "noscript", "template", "svg", "button", "form")


def as_markdown(text: str) -> str:
    """HTML as Markdown; a text without any tag comes back as it is. Raises RecipeError where the extra is not installed.

    Headings, lists, tables, links and code keep their form; scripts, styles, buttons and forms are left out. Source: R07
    (Vicuna turns shared pages into Markdown).
    """
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError:
        raise RecipeError("reading HTML needs markdownify: install stillhouse[html]") from None
    soup = BeautifulSoup(text, "html.parser")
    if soup.find() is None:
        return text
    for tag in soup(_NO_TEXT):
        tag.decompose()
    converter = MarkdownConverter(
        heading_style="ATX", escape_asterisks=False, escape_underscores=False, code_language_callback=_language
    )
    lines = [line.rstrip() for line in converter.convert_soup(soup).splitlines()]
    return "\n".join(line for at, line in enumerate(lines) if line or (at and lines[at - 1])).strip()


def _language(block: Any) -> str:
    """The language that pages put into the class of the code inside a block."""
    code = block.find("code")
    classes = [*block.get("class", []), *(code.get("class", []) if code else [])]
    return next((name.removeprefix("language-") for name in classes if name.startswith("language-")), "")
