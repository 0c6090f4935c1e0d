# SPDX-License-Identifier: Apache-2.0
"""Broken links, missing anchors and anything from the network in the built site: ``check_site.py FOLDER``.

``mkdocs build --strict`` checks links in Markdown; this checks the pages that browsers get, with the links
that the reference's generator made.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser gets at once.
FETCHED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
}


class Page(HTMLParser):
    """Identifiers and targets of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in FETCHED and FETCHED[tag] in values:
            self.fetched.append(values[FETCHED[tag]])


def problems(site: Path) -> Iterator[str]:
    """One sentence for each thing that is wrong."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"'{site}' holds no pages."
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name} fetches {url}." for url in page.fetched if urlsplit(url).netloc)
        if name.name == "404.html":  # served under any address: its links begin at the root
            continue
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            if not target.is_file():
                yield f"{name} links to {link}, which does not exist."
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{name} links to {link}, which has no such anchor."


def main() -> int:
    """Print what is wrong; 1 when something is."""
    found = list(problems(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "every link of the site leads somewhere.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
