"""The site of the documentation, as `make docs` has built it: what a reader finds, and what a browser would fetch."""

from __future__ import annotations

import importlib
import inspect
import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import sage

ROOT = Path(__file__).parents[2]
SITE = ROOT / "target" / "site"

#: The modules that programs import from, beside `sage` itself.
MODULES = ["sage.ops", "sage.services", "sage.testing"]


def inventory() -> set[str]:
    """The names that the reference describes: mkdocstrings lists them for links from other sites."""
    _, _, packed = (SITE / "objects.inv").read_bytes().partition(b"zlib.\n")
    return {line.split(" ", 1)[0] for line in zlib.decompress(packed).decode().splitlines()}


def public_names() -> Iterator[set[str]]:
    """Every public name of the package, and the public methods and properties of its classes. A method has the names
    of all classes that have it, of which one is enough."""
    modules = [sage, *map(importlib.import_module, MODULES)]
    names: dict[Any, list[str]] = {}
    for module in modules:
        for name in module.__all__:
            yield {f"{module.__name__}.{name}"}
            found = getattr(module, name)
            if inspect.isclass(found):
                names.setdefault(found, []).append(f"{module.__name__}.{name}")
    for cls in names:
        for member in members(cls):
            yield {f"{name}.{member}" for base in cls.__mro__ for name in names.get(base, [])}


def members(cls: type) -> set[str]:
    """The public methods and properties that the package gives a class."""
    own = [vars(base).items() for base in cls.__mro__ if base.__module__.partition(".")[0] == "sage"]
    # The fields of a dataclass are in its signature, those of a named tuple in its docstring.
    fields = {*getattr(cls, "__dataclass_fields__", ()), *getattr(cls, "_fields", ())}
    return {name for items in own for name, value in items if is_method(name, value)} - fields


def is_method(name: str, value: Any) -> bool:
    return not name.startswith("_") and (callable(value) or inspect.isdatadescriptor(value))


class Links(HTMLParser):
    """What a page refers to: `loads` is fetched with it, `links` when a reader asks for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.loads += [given["src"]] if given.get("src") else []
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads += [given["href"]] if given.get("href") else []
        if tag == "a":
            self.links += [given["href"]] if given.get("href") else []


def pages() -> list[Path]:
    found = [page for page in sorted(SITE.rglob("*.html")) if page.relative_to(SITE).parts[0] != "rust"]
    assert len(found) > 50
    return found


def test_every_public_name_is_in_the_reference() -> None:
    described = inventory()
    assert {"sage.LocalEnvironment.from_batch", "sage.DataStream.map", "sage.ops.split"} <= described
    missing = [min(names) for names in public_names() if names.isdisjoint(described)]
    assert missing == []


def test_every_name_of_the_reference_has_a_description() -> None:
    reference = [page for page in pages() if page.parent.name == "reference"]
    for page in reference:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r'<h\d id="(sage[\w.]+)" class="doc doc-heading">', text):
            _, _, behind = text.partition(f'id="{name}" class="doc doc-heading"')
            assert re.match(r'(?s).*?<div class="doc doc-contents[^>]*>\s*<p>', behind), name


def test_no_page_fetches_anything_from_another_site() -> None:
    fetched = {load for page in pages() for load in Links(page).loads}
    assert any(load.endswith(".css") for load in fetched) and any(load.endswith(".js") for load in fetched)
    assert [load for load in fetched if re.match(r"(https?:)?//", load)] == []
    for sheet in SITE.glob("assets/**/*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8"), sheet


def test_every_link_within_the_site_leads_to_a_page() -> None:
    if not (SITE / "rust").exists():
        pytest.skip("`cargo doc` has not run, so the site has no pages of Rust")
    broken = [
        f"{page.relative_to(SITE)}: {link}"
        for page in pages()
        for link in Links(page).links
        if not re.match(r"[a-z]+:|#|/", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


def test_the_examples_of_docstrings_are_blocks_of_code() -> None:
    streams = (SITE / "reference" / "environments.html").read_text(encoding="utf-8")
    assert 'class="gp">&gt;&gt;&gt; </span>' in streams and "<blockquote>" not in streams


