"""Draw what imports what, from the imports themselves: ``python docs/architecture.py``.

One picture shows the whole package, with a box for each package inside it; another shows the modules of core. A box
stands one layer above the highest one that it imports, or just below those that import it if it imports none, so all
arrows point down. An arrow is left out where a chain of others leads to the same box, and so are modules that begin
with _.

Reference: K. Sugiyama, S. Tagawa and M. Toda (1981), Methods for visual understanding of hierarchical system
structures.
"""

import ast
import textwrap
from html import escape
from itertools import pairwise
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = {DOCS / "architecture.svg": "nmf_features", DOCS / "core.svg": "nmf_features/core"}

WIDTH, HEIGHT, GAP, LAYER, MARGIN = (
    252,
    100,
    22,
    140,
    8,
)  # boxes, gaps between them, step between layers, margin
CHARACTERS = 33  # in a line of a box, even in a wide font
STYLE = """
text { font: 12.5px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #3d4650 }
.name { font-size: 15px; font-weight: 600; fill: #14212b }
.box { fill: #eef4f8; stroke: #7f9fb5 }
.package { fill: #fdf3e1; stroke: #c49a4a }
.arrow { fill: none; stroke: #5d7486; stroke-width: 1.4 }
"""


def boxes(folder):
    """Return the files of each box of a folder, as their package and syntax tree: a module, or a package (name/)."""
    found = {}
    for path in sorted((DOCS.parent / folder).iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            found[f"{path.name}/"] = [path / "__init__.py", *sorted(path.glob("[!_]*.py"))]
        elif path.suffix == ".py" and not path.name.startswith("_"):
            found[path.stem] = [path]
    return {
        name: [
            (".".join(path.parent.relative_to(DOCS.parent).parts), ast.parse(path.read_text(encoding="utf-8")))
            for path in paths
        ]
        for name, paths in found.items()
    }


def imported(package, tree):
    """Return the full names of what a file of a package imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            source = [*above, *([node.module] if node.module else [])]
            found |= {".".join([*source, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imports(boxes, inside):
    """Return for each box inside a package the others that its files import."""
    edges = {}
    for name, files in boxes.items():
        full = set().union(*(imported(package, tree) for package, tree in files))
        parts = {other[len(inside) + 1 :].split(".")[0] for other in full if other.startswith(f"{inside}.")}
        edges[name] = sorted(other for other in boxes if other != name and other.rstrip("/") in parts)
    return edges


def reduced(edges):
    """Leave out what a chain of other imports leads to; refuse imports that go round in a circle."""

    def reachable(name, path=()):
        if name in path:
            raise ValueError(f"These import each other: {[*path[path.index(name) :], name]}.")
        return set(edges[name]).union(*(reachable(b, (*path, name)) for b in edges[name]))

    return {
        name: [b for b in below if not any(b in reachable(other) for other in below)] for name, below in edges.items()
    }


def layers(edges):
    """Return the rows of the picture from the top, and the steps of its arrows from one row to the next.

    An arrow that passes a row has a place of its own there, (from, to), so that it crosses no box. Each row is sorted
    by the mean place of the neighbours above and below, in several sweeps; the order with the fewest crossings is kept.
    """

    def depth(name):
        return max((1 + depth(b) for b in edges[name]), default=0)

    def height(name):
        above = [] if edges[name] else [depth(a) for a in edges if name in edges[a]]
        return min(above) - 1 if above else depth(name)  # what imports nothing stands just below what imports it

    top = max(map(height, edges))
    rows, steps = [[name for name in edges if height(name) == h] for h in range(top, -1, -1)], []
    for name, below in edges.items():
        for other in below:
            first, last = top - height(name), top - height(other)
            for r in range(first + 1, last):
                rows[r].append((name, other))
            path = [name, *[(name, other)] * (last - first - 1), other]
            steps += [((first + i, a), (first + i + 1, b)) for i, (a, b) in enumerate(pairwise(path))]
    best = None
    for sweep in range(20):
        for r in range(len(rows))[:: 1 if sweep % 2 else -1]:
            at = places(rows)
            near = {
                node: [at[b] for a, b in steps if a == (r, node)] + [at[a] for a, b in steps if b == (r, node)]
                for node in rows[r]
            }
            rows[r] = sorted(
                rows[r], key=lambda node: (sum(near[node]) / len(near[node]) if near[node] else 0.5, str(node))
            )
        found = crossings(rows, steps)
        if best is None or found < best[0]:
            best = found, [list(row) for row in rows]
    return best[1], steps


def places(rows):
    """Return the place of everything in its row, from 0 to 1."""
    return {(r, node): (i + 0.5) / len(row) for r, row in enumerate(rows) for i, node in enumerate(row)}


def crossings(rows, steps):
    """Return how many pairs of steps cross, and how far they go sideways in total."""
    at = places(rows)
    ends = [(a[0], at[a], at[b]) for a, b in steps]
    crossed = sum(r == s and (x - u) * (y - v) < 0 for r, x, y in ends for s, u, v in ends)
    return crossed, round(sum(abs(x - y) for _, x, y in ends), 9)


def subject(tree):
    """Return the first sentence of a module's docstring."""
    text = " ".join(ast.get_docstring(tree).split("\n\n")[0].split()).replace("``", "")
    return text.split(". ")[0].rstrip(".")


def svg(folder):
    """Return the picture of a folder as text, the same for the same imports."""
    contents, package = boxes(folder), folder.replace("/", ".")
    rows, steps = layers(reduced(imports(contents, package)))
    wide = [sum(width(node) for node in row) + GAP * (len(row) - 1) for row in rows]
    full, tall = max(wide) + 2 * MARGIN, (len(rows) - 1) * LAYER + HEIGHT + 2 * MARGIN
    corner = {}  # upper left corner of boxes and of passing arrows
    for r, row in enumerate(rows):
        x = (full - wide[r]) / 2
        for node in row:
            corner[r, node] = x, MARGIN + r * LAYER
            x += width(node) + GAP
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {full} {tall}" width="{full}" height="{tall}">',
        f"<title>{package}: what imports what</title>",
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#5d7486"/></marker>',
        f'<rect width="{full}" height="{tall}" fill="white"/>',
    ]
    for a, b in steps:
        x, to_x = joint(a, b, 0, steps, corner), joint(b, a, 1, steps, corner)
        y, to_y = corner[a][1] + HEIGHT, corner[b][1]
        middle = (y + to_y) / 2
        end = ' marker-end="url(#tip)"' if width(b[1]) else ""
        onwards = "" if width(b[1]) else f"V{to_y + HEIGHT:g}"
        curve = f"M{x:g} {y:g}C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}{onwards}"
        lines.append(f'<path class="arrow" d="{curve}"{end}/>')
    for (_, name), (x, y) in corner.items():
        if width(name):
            kind = "package" if name.endswith("/") else "box"
            lines.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>')
            lines.append(f'<text class="name" x="{x + 11:g}" y="{y + 22:g}">{name}</text>')
            text = textwrap.wrap(subject(contents[name][0][1]), CHARACTERS, max_lines=4, placeholder=" ...")
            for i, line in enumerate(text):
                lines.append(f'<text x="{x + 11:g}" y="{y + 40 + 16 * i:g}">{escape(line)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def width(node):
    """Return the width of a box, 0 for an arrow that passes."""
    return WIDTH if isinstance(node, str) else 0


def joint(node, other, side, steps, corner):
    """Return where an arrow meets a box from below (0) or above (1): spread along it, in the order of their ends."""
    ends = sorted((step[1 - side] for step in steps if step[side] == node), key=lambda end: corner[end][0])
    return corner[node][0] + width(node[1]) * (ends.index(other) + 1) / (len(ends) + 1)


if __name__ == "__main__":
    for picture, folder in PICTURES.items():
        picture.write_text(svg(folder), encoding="utf-8")
        print(f"{picture.name}: {len(boxes(folder))} boxes")
