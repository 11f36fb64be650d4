"""Count files at the root, levels of imports and circles: `python tests/structure.py [PACKAGE]`."""

import ast
import pathlib
import sys

Graph = dict[str, set[str]]


def graph(package: pathlib.Path) -> Graph:
    """Return module → modules of the package that it imports, at load or later."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: Graph = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for target in wanted:
                while target and target not in modules:
                    target = target.rpartition(".")[0]
                if target and target != name:
                    found[name].add(target)
    # The package itself imports lazily what it offers, and everything is inside it.
    for targets in found.values():
        targets.discard(package.name)
    return found


def places(graph: Graph) -> Graph:
    """Return the graph of places: folders, and files at the root."""
    found: Graph = {}
    for name, targets in graph.items():
        here = ".".join(name.split(".")[:2])
        found.setdefault(here, set()).update(
            there for t in targets if (there := ".".join(t.split(".")[:2])) != here
        )
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that import one another, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return groups


def levels(graph: Graph) -> int:
    """Return the length of the longest chain of imports between places; circles count as one."""
    between = places(graph)
    together = {name: group[0] for group in circles(between) for name in group}
    known: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in known:
            known[node] = 0
            below = {
                together.get(o, o)
                for member, targets in between.items()
                if together.get(member, member) == node
                for o in targets
            } - {node}
            known[node] = 1 + max(map(height, below), default=0)
        return known[node]

    return max(height(together.get(node, node)) for node in between)


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "ssl_audio")
    found = graph(root)
    print(f"{len(list(root.glob('*.py')))} files at the root, {len(places(found))} places,")
    print(f"{levels(found)} levels of imports between places,")
    print(
        f"circles of files: {circles(found) or 'none'}, of places: {circles(places(found)) or 'none'}"
    )
