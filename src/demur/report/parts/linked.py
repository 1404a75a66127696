"""`write_page`: writes a page and links it with the other pages of its run.

In: the markup of a page with an empty list of pages and an empty table of contents. Out: the file, with both filled,
and the lists of the run's other pages brought up to date. A page is linked only where its file lies; addresses are
relative, so that the folder may be moved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from demur.files.writing import disk_errors, make_folder, write_whole
from demur.report.parts.labels import short

RUN = '<nav class="run" aria-label="Pages of this run">'
CONTENTS = '<nav class="contents" aria-label="Contents">'
END = "</nav>"
NAMES = {
    "story": "the story",
    "paper": "the protocol",
    "comparison": "comparison",
    "report": "report",
    "viewer": "viewer",
}
WHOLE = ("story", "paper")
"""Pages of a run that has others in its subfolders."""
PLAIN = ("report.html", "viewer.html", "comparison.html")
WITHIN = ("*", "models/*/*")
"""Where a run of several keeps the pages of its parts."""
DEEPEST = 3
"""How far above a part its run's own page may lie, in folders."""
HEAD = 65_536
"""Characters of a file in which its lists stand."""
Kinds = dict[Path, str]
"""What each page is: a key of `NAMES`, by path."""


def write_page(path: Path, page: str, also: Iterable[Path] = ()) -> None:
    """Write `page` to `path`, and link it and the other pages of its run with each other.

    also : folders whose pages are listed on this one too. The page is written once, with its lists in it: a kill
    leaves the old page or the new one.
    """
    with disk_errors(path):
        make_folder(path.parent)
    headings = _contents(page)
    page = _filled(page, CONTENTS, headings) if headings else page
    new = {path.resolve(): _kind_of(page)}
    found = _pages(path.parent, new)
    listed = dict(found)
    for folder in also:
        listed |= _in(folder, new)
    write_whole(path, _filled(page, RUN, _list(path, listed)))
    for other in found:
        if other.resolve() not in new:
            _link(other, found)


def _pages(folder: Path, new: Kinds) -> Kinds:
    """The pages of the run to which `folder` belongs, the page of the whole first.

    new : the kind of the page that is about to be written, by its path with links followed.
    """
    home = folder.resolve()
    for root in [home, *home.parents][: DEEPEST + 1]:
        if _kind(root / "report.html", new) in WHOLE:
            parts = [part for pattern in WITHIN for part in sorted(root.glob(pattern)) if part.is_dir()]
            found = _in(root, new)
            for part in parts:
                found |= _in(part, new)
            return found
    return _in(home, new)


def _in(folder: Path, new: Kinds) -> Kinds:
    kinds = {folder / name: _kind(folder / name, new) for name in PLAIN}
    return {path: kind for path, kind in kinds.items() if kind}


def _kind(path: Path, new: Kinds) -> str:
    """What page of demur a file is, or will be; empty where it is none, or cannot be read."""
    if path.resolve() in new:
        return new[path.resolve()]
    if not path.is_file():
        return ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _kind_of(file.read(2000))
    except OSError:
        return ""


def _kind_of(page: str) -> str:
    found = re.search(r'<meta name="demur-page" content="(\w+)">', page[:2000])
    return found.group(1) if found else ""


def _link(path: Path, pages: Kinds) -> None:
    """Bring the list of `path` up to date; the file is written only where that changes it, and can be read."""
    whole = None
    with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8", newline="") as file:
        head = file.read(HEAD)
        changed = _filled(head, RUN, _list(path, pages))
        whole = None if changed == head else changed + file.read()
    if whole is not None:
        write_whole(path, whole)


def _list(path: Path, pages: Kinds) -> Markup:
    """The pages as seen from `path`; nothing where there is no other."""
    if len(pages) < 2:
        return Markup("")
    root = next(iter(pages)).parent
    items = [_item(page, kind, path, root) for page, kind in pages.items()]
    return Markup("<ul>{}</ul>").format(Markup("").join(items))


def _item(page: Path, kind: str, seen_from: Path, root: Path) -> Markup:
    words = _words(page, kind, root)
    if page.resolve() == seen_from.resolve():
        return Markup('<li><span aria-current="page">{}</span></li>').format(words)
    address = os.path.relpath(page.resolve(), seen_from.resolve().parent).replace(os.sep, "/")
    return Markup('<li><a href="{}">{}</a></li>').format(quote(address), words)


def _words(page: Path, kind: str, root: Path) -> str:
    name = NAMES.get(kind, "page")
    parts = [part for part in page.resolve().parent.parts[len(root.resolve().parts) :] if part not in ("models", "own")]
    inside = page.resolve().is_relative_to(root.resolve())
    where = " ".join(parts) if inside else page.resolve().parent.name
    return name if not where or where == name else f"{name} of {short(where, 40)}"


def _contents(page: str) -> Markup:
    """The headings of the page as links; they are the templates' own and hold no text of others."""
    found = re.findall(r'<h2 id="([\w-]+)">(.*?)</h2>', page)
    items = [Markup('<li><a href="#{}">{}</a></li>').format(name, Markup(title).striptags()) for name, title in found]
    return Markup("<ul>{}</ul>").format(Markup("").join(items)) if len(items) > 1 else Markup("")


def _filled(page: str, opening: str, content: str) -> str:
    """`page` with `content` in the first element that begins with `opening`, as it is where there is none."""
    start = page.find(opening)
    end = page.find(END, start)
    if start < 0 or end < 0:
        return page
    return "".join((page[: start + len(opening)], str(content), page[end:]))  # markup would escape what it is added to
