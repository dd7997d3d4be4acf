"""Builds the site from docs/ and checks links; a broken one is an error.

Sphinx checks links and anchors between pages. What it does not see is checked here: links of
README.md and the other Markdown files beside it, and names of files that the text mentions.
Addresses of other sites are listed with --external, and never fetched: CI has no network.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
# Options of Sphinx: warnings are errors (-W), also names that lead nowhere (-n); all pages are
# read again (-E), as Sphinx repeats no warning of a page that it knows.
STRICT = ("-W", "-n", "--keep-going", "-q", "-E")

_FENCE = re.compile(r"^( *)(```+|~~~+|:::+).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?\)")
_ADDRESS = re.compile(r"https?://[^\s)>\"'`\]]+")
_MENTION = re.compile(
    r"(?<![\w/.-])(?:docs|scripts|tests|converter|pipelines|reader)/[\w./-]*\w(?![\w….*<{/])"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/docs", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(SITE), help="folder to build to (build/site)")
    parser.add_argument("--external", action="store_true", help="list addresses of other sites")
    args = parser.parse_args()
    if args.external:
        print(*list_addresses(), sep="\n")
        return 0
    faults = [fault for path in list_pages() for fault in find_faults(path)]
    print("".join(f"{fault}\n" for fault in faults), end="", file=sys.stderr)
    code = build(Path(args.out))
    if not code and not faults:
        print(f"the site is in {args.out}: open {args.out}/index.html")
    return code or bool(faults)


def build(out: Path) -> int:
    """Runs Sphinx; returns its exit code."""
    command = [sys.executable, "-m", "sphinx", *STRICT, "-b", "html"]
    doctrees = out.with_name(f"{out.name}-doctrees")
    return subprocess.run([*command, "-d", doctrees, ROOT / "docs", out], check=False).returncode


def list_pages() -> list[Path]:
    """All Markdown files of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def list_addresses() -> list[str]:
    """The addresses of other sites in all pages, once each."""
    texts = [path.read_text() for path in list_pages()]
    return sorted({found.rstrip(".,;:") for text in texts for found in _ADDRESS.findall(text)})


def find_faults(path: Path) -> Iterator[str]:
    """A line for each link or mention of a file in a page that leads nowhere."""
    text = path.read_text()
    prose = _FENCE.sub("", text)
    for target in _LINK.findall(prose):
        if not target.startswith(("http://", "https://", "mailto:")) and not _leads(path, target):
            yield f"{path.relative_to(ROOT)}: the link {target} leads nowhere"
    for name in sorted(set(_MENTION.findall(_LINK.sub("", prose)))):
        if not any((ROOT / f"{name}{suffix}").exists() for suffix in ("", ".py", ".md")):
            yield f"{path.relative_to(ROOT)}: there is no {name}"


def _leads(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    place = (page.parent / name) if name else page
    if not place.exists():
        return False
    return not anchor or (place.suffix == ".md" and anchor in list_anchors(place.read_text()))


def list_anchors(text: str) -> set[str]:
    """The anchors that GitHub and MyST make of a page's headings."""
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    sys.exit(main())
