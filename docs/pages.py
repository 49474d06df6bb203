"""Makes the pages of the site out of those of the repository: a hook of mkdocs, see `mkdocs.yml`.

A code host shows the same pages, so their links lead to files of the repository. Here each link is rewritten to the
page of the site that shows its file, and mkdocs checks it like any other. Three kinds of pages are made here:

- Files outside of `docs` that a page links to: a page of the repository, or a source file as a block of code.
- The guide, which is one file and a page for each of its sections here.
- A program that stands alone in a paragraph of the cookbook is shown in its place.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
GUIDE = "docs/guide.md"
LANGUAGES = {".py": "python", ".rs": "rust", ".toml": "toml"}

CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
PROGRAM = re.compile(r"^\[`[\w.]+`\]\(([^)\s]+)\)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Puts the pages of the guide where the navigation has it."""
    for part in config.nav:
        if "Guide" in part:
            part["Guide"] = list(sections())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made here."""
    files.remove(files.src_uris["guide.md"])
    for page, text in sections().items():
        files.append(File.generated(config, page, content=text))
    read = [file for file in files if file.src_uri.endswith(".md")]
    for file in read:
        for link in LINK.findall("".join(CODE.split(file.content_string)[::2])):
            target = file_of(file.src_uri, link)
            if target is None or target.startswith("docs/") or page_of(target, "")[0] in files.src_uris:
                continue
            made = File.generated(config, page_of(target, "")[0], content=shown(target))
            files.append(made)
            read.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the links of a page."""
    here = page.file.src_uri
    if here.startswith("cookbook/"):
        markdown = PROGRAM.sub(lambda found: program(file_of(here, found[1]) or ""), markdown)
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda found: rewritten(here, found[0]), prose) for prose in parts[::2]]
    return "".join(parts)


def sections() -> dict[str, str]:
    """The pages of the guide, with their text."""
    first, *rest = re.split(r"^## (.+)\n", (ROOT / GUIDE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    pages = {"guide/index.md": first}
    for title, text in zip(rest[::2], rest[1::2]):
        parts = CODE.split(text)
        parts[::2] = [re.sub("^###", "##", prose, flags=re.MULTILINE) for prose in parts[::2]]
        pages[f"guide/{slugify(title, '-')}.md"] = f"# {title}\n{''.join(parts)}"
    return pages


def places() -> dict[str, tuple[str, str]]:
    """Where the headings of the guide are on the site: page and anchor, by their anchors in the one file."""
    found = {"": ("guide/index.md", "")}
    for page, text in sections().items():
        for level, title in re.findall(r"^(##?) (.+)$", "".join(CODE.split(text)[::2]), re.MULTILINE):
            anchor = slugify(title, "-")
            found[anchor] = (page, anchor if level == "##" else "")
    return found


PLACES = places()


def origin(page: str) -> str:
    """The file of the repository that a page of the site shows."""
    if page.startswith("guide/"):
        return GUIDE
    if page.startswith("repository/"):
        name = page.removeprefix("repository/")
        return name if (ROOT / name).exists() else name.removesuffix(".md")
    return f"docs/{page}"


def file_of(page: str, link: str) -> str | None:
    """The file of the repository that a link leads to; `None` for a link to elsewhere."""
    if re.match(r"[a-z]+:|/", link):
        return None
    path, _, _ = link.partition("#")
    here = origin(page)
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), path)) if path else here


def page_of(file: str, anchor: str) -> tuple[str, str]:
    """The page of the site that shows a file of the repository, and the anchor there."""
    if file == GUIDE:
        if anchor not in PLACES:
            raise PluginError(f"{GUIDE} has no heading `#{anchor}`, and a link leads there")
        return PLACES[anchor]
    if file == "README.md":
        return "index.md", anchor
    if file.startswith("docs/"):
        return file.removeprefix("docs/"), anchor
    return f"repository/{file}" if file.endswith(".md") else f"repository/{file}.md", anchor


def rewritten(page: str, link: str) -> str:
    """A link of a page, as the site has it."""
    file = file_of(page, link)
    if file is None:
        return link
    target, anchor = page_of(file, link.partition("#")[2])
    path = "" if target == page and anchor else posixpath.relpath(target, posixpath.dirname(page) or ".")
    return f"{path}#{anchor}" if anchor else path


def shown(file: str) -> str:
    """A file outside of `docs` as a page."""
    path = ROOT / file
    if not path.is_file():
        raise PluginError(f"a page links to `{file}`, which is no file of the repository")
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".md" else f"# {file}\n\n{block(path, text)}"


def program(file: str) -> str:
    """A program of the cookbook, under its name."""
    path = ROOT / file
    return block(path, path.read_text(encoding="utf-8"), title=file)


def block(path: Path, text: str, title: str = "") -> str:
    """A text as a block of code."""
    says = f' title="{title}"' if title else ""
    return f"```{LANGUAGES.get(path.suffix, 'text')}{says}\n{text.rstrip()}\n```"
