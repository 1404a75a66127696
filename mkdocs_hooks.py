"""Hooks of `make docs`: files outside docs/ that the pages link to become part of the site.

The pages link to README.md, SECURITY.md and results by relative paths, so that the links work in a clone too.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
TAKEN = {
    "README.md": "readme.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/demur/bundled/README.md": "bundled.md",
    "LICENSE": "license.txt",
    "CITATION.cff": "CITATION.cff",
}
"""Where each file of the repository stands in the site."""
RESULTS = "benchmarks/results/"
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the taken files, and the results as they are."""
    for source, target in TAKEN.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    for result in sorted((ROOT / RESULTS).glob("*.json")):
        files.append(File.generated(config, f"results/{result.name}", abs_src_path=str(result)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that are right in the repository into links that are right in the site."""
    here = page.file.src_uri
    source = next((name for name, target in TAKEN.items() if target == here), f"docs/{here}")

    def mended(link: re.Match[str]) -> str:
        if ":" in link[1]:
            return link[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        found = TAKEN.get(found) or found.removeprefix("docs/").removeprefix("benchmarks/")
        return f"]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return LINK.sub(mended, markdown)
