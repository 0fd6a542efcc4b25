"""Who imports whom in the package, read from its sources."""

import ast
from pathlib import Path

import bregman

PACKAGE = Path(bregman.__file__).parent


def modules() -> dict[str, Path]:
    """From a module's name to its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(["bregman", *path.relative_to(PACKAGE).with_suffix("").parts])
        found[name.removesuffix(".__init__")] = path
    return found


def core() -> list[str]:
    """The modules of the core, those that need torch alone."""
    return sorted(
        name
        for name in modules()
        if not name.startswith("bregman.suite") and name != "bregman.__main__"
    )


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in its file."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module in known} - {name}


def packages(path: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in found}


def room(name: str) -> str:
    """The part of the package that a module belongs to: a file or folder of the core or suite."""
    parts = name.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["suite"] else 2])


def code_lines(path: Path) -> int:
    """The lines of code of a file: docstrings, comments and blank lines don't count."""
    source = path.read_text()
    tree = ast.parse(source)
    docs: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docs |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        number not in docs and bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in lines
    )
