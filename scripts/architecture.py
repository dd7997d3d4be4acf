"""Draws which package imports which, as the diagram in ARCHITECTURE.md.

    ./scripts/run architecture           prints the diagram
    ./scripts/run architecture --write   puts it into ARCHITECTURE.md

An arrow that a longer way already shows is left out.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
TOPS = ("pipelines", "reader", "converter")
BASE = ("errors", "names", "sizes", "option_fields", "usage")
"""The modules of `converter` that all others may use."""

LABELS = {
    "converter.errors": ", ".join(BASE),
    "converter.options": "options, inventory, costs",
}
BEGIN, END = "```mermaid\n", "```\n"

Graph = dict[str, set[str]]


def main() -> None:
    if "--write" in sys.argv:
        PAGE.write_text(put_diagram(PAGE.read_text()))
    else:
        print(draw(read_imports()))


def read_imports() -> Graph:
    """The packages, each with those that it imports."""
    graph: Graph = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            package = find_package(path.relative_to(ROOT).with_suffix("").parts)
            found = graph.setdefault(package, set())
            for imported in list_imports(ast.parse(path.read_bytes())):
                parts = tuple(imported.split("."))
                if parts[0] in TOPS and len(parts) > 1:
                    found.add(find_package(parts))
    # What lies beside the packages of a folder is its face, above all of them.
    return {name: found - {*TOPS, name} for name, found in graph.items() if name not in TOPS}


def find_package(parts: tuple[str, ...]) -> str:
    """`converter.storage` of `converter/storage/disk`; `converter` has two groups beside those."""
    if ROOT.joinpath(*parts[:2]).is_dir():
        return ".".join(parts[:2])
    if parts[0] != "converter" or parts[1] in ("__init__", "__version__"):
        return parts[0]
    return "converter.errors" if parts[1] in BASE else "converter.options"


def list_imports(tree: ast.Module) -> Iterator[str]:
    """Whatever a module imports, also within functions and for types alone, as full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def draw(graph: Graph) -> str:
    """The diagram in Mermaid's language."""
    lines = ["flowchart TD"]
    for top in TOPS:
        lines.append(f"  subgraph {top}")
        named = ((name, LABELS.get(name, name.split(".")[-1])) for name in graph)
        lines += [f"    {name}[{label}]" for name, label in named if name.startswith(f"{top}.")]
        lines.append("  end")
    for name, found in graph.items():
        lines += [f"  {name} --> {other}" for other in sorted(reduce(found, graph))]
    return "\n".join(lines)


def reduce(found: set[str], graph: Graph) -> set[str]:
    """What is imported, without what is reached through something else that is."""
    return found - {far for near in found for far in reach(near, graph)}


def reach(name: str, graph: Graph) -> set[str]:
    """All that a package imports, directly or not."""
    seen: set[str] = set()
    pending = [*graph.get(name, ())]
    while pending:
        if (other := pending.pop()) not in seen:
            seen.add(other)
            pending += graph.get(other, ())
    return seen


def put_diagram(page: str) -> str:
    """The page with the diagram of today in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{draw(read_imports())}\n{END}{after}"


if __name__ == "__main__":
    main()
