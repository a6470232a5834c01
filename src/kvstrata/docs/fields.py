"""Tables of a dataclass's fields, from its source: name, type, default, and the docstring below each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_TABLE = re.compile(r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def fill(page: str, source: Path) -> str:
    """Return the page with the table of each class that it marks (`<!-- fields: NAME --> ... <!-- end -->`).

    Raises:
        ValueError: if `source` has no such class, or a field of it has no docstring.
    """
    classes = {node.name: node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)}

    def table(match: re.Match[str]) -> str:
        if match[2] not in classes:
            raise ValueError(f"{source} has no class {match[2]}")
        rows = ["| Field | Type | Default | |", "|---|---|---|---|", *_rows(classes[match[2]])]
        return match[1] + "\n".join(rows) + "\n" + match[3]

    return _TABLE.sub(table, page)


def _rows(node: ast.ClassDef) -> list[str]:
    rows = []
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
            raise ValueError(f"{node.name}.{statement.target.id} has no docstring")
        text = " ".join(str(following.value.value).split())
        kind = ast.unparse(statement.annotation).replace("|", "\\|")
        rows.append(f"| `{statement.target.id}` | {kind} | {_default(statement.value)} | {text} |")
    return rows


def _default(value: ast.expr | None) -> str:
    if value is None:
        return "required"
    if isinstance(value, ast.Call):  # field(default=..., default_factory=...)
        given = {word.arg: word.value for word in value.keywords}
        inner = given.get("default") or given.get("default_factory")
        value = inner.body if isinstance(inner, ast.Lambda) else inner
        if isinstance(value, ast.Name) and value.id == "dict":
            return "`{}`"
    return f"`{ast.unparse(value)}`" if value is not None else ""
