"""Whether the tests catch: `make mutants` changes single lines, one at a time, and runs the tests that cover each.

A line is changed as a slip would change it: another comparison, operator or constant, a condition negated, a call left
out, two arguments swapped. Docstrings, annotations, decorators and what is raised stay. All happens in a copy of the
tree in a temporary folder.

Which tests cover a module is read from imports: the test file that bears its name, then those that import it, directly
or by way of others; the nearest of them are run, until the first test fails. Coverage cannot tell it, since it sees
neither inside what numba compiles nor inside Spark's workers. Modules of Spark are tried by tests with a session, all
others by those without. mutmut leaves out every function with a decorator, so all that numba compiles; cosmic-ray runs
one command for all mutants; and neither knows that numba keeps what it compiled of a caller when the callee changes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["kernels/*", "models/*", "training/*"]
MODULES += ["spark/evaluation/*", "spark/data/splits.py"]
LIMIT = 4, 60
"""A mutant's tests may take so many times as long as without it, and so many seconds more: it may loop for ever."""

FILES, SESSION_FILES = 5, 2
"""By how many test files a mutant is tried: without a session, and with one, which take minutes."""

COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
COMPARISONS |= {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"}
PAIRS = [("==", "!="), ("is", "is not"), ("in", "not in"), ("+", "-"), ("*", "/"), ("and", "or")]
PAIRS += [("min", "max"), ("any", "all"), ("minimum", "maximum")]
OTHERS = {one: [other] for pair in PAIRS for one, other in (pair, pair[::-1])}
OTHERS |= {"<": ["<=", ">"], "<=": ["<", ">"], ">": [">=", "<"], ">=": [">", "<"], "//": ["*"], "%": ["*"], "**": ["*"]}


@dataclass(frozen=True)
class Mutant:
    """One line of a file, and what it is changed to; the same one where it stands elsewhere in the file."""

    file: str
    line: int = field(compare=False)
    before: str
    after: str


def mutants_of(source: str, file: str) -> Iterator[Mutant]:
    """All changes of one line, in the order of the tree."""
    lines = source.splitlines()
    for node, at, end, new in _changes(ast.parse(source), lines):
        text = lines[node.lineno - 1]
        raw = text.encode()  # the tree counts bytes
        after = (raw[:at] + new.encode() + raw[end:]).decode()
        if after != text:
            yield Mutant(file, node.lineno, text, after)


def _changes(tree: ast.AST, lines: list[str]) -> Iterator[tuple[ast.expr | ast.stmt, int, int, str]]:
    """(node, from which byte of its line, to which, new text)."""

    def text(node: ast.expr) -> str:
        return lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode()

    def between(left: ast.expr, right: ast.expr, old: str) -> Iterator[tuple[ast.expr, int, int, str]]:
        """An operator that stands between two operands on one line."""
        if left.end_lineno == right.lineno:
            line = lines[right.lineno - 1].encode()
            at = line.find(old.encode(), left.end_col_offset, right.col_offset)
            for new in OTHERS[old] if at >= 0 else []:
                yield right, at, at + len(old), new

    for node in _code(tree):
        if not isinstance(node, ast.expr | ast.stmt):
            continue
        span = node.col_offset, node.end_col_offset or 0
        whole = node.lineno == node.end_lineno
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield from between(left, right, COMPARISONS[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                yield from between(left, right, OPERATORS[type(op)])
            case ast.AugAssign(target=left, op=op, value=right) if type(op) in OPERATORS:
                yield from between(left, right, OPERATORS[type(op)])
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield from between(left, right, "and" if isinstance(op, ast.And) else "or")
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if whole:
                yield node, *span, text(operand)
            case ast.Constant(value=bool(value)):
                yield node, *span, str(not value)
            case ast.Constant(value=int(value)):
                yield node, *span, str(value + 1)
            case ast.Constant(value=float(value)):
                yield node, *span, str(2 * value if value else 1.0)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if test.lineno == test.end_lineno:
                yield test, test.col_offset, test.end_col_offset or 0, f"(not ({text(test)}))"
            case ast.Expr(value=ast.Call()) if whole:
                yield node, *span, "pass"
            case ast.Call(args=[first, second, *_]) if (
                type(first) is type(second) and first.lineno == second.end_lineno
            ):
                yield first, first.col_offset, second.end_col_offset or 0, f"{text(second)}, {text(first)}"
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in OTHERS:
                yield node.func, node.func.col_offset, node.func.end_col_offset or 0, OTHERS[name][0]
            case ast.Call(func=ast.Attribute(attr=name)) if name in OTHERS and whole:
                end = node.func.end_col_offset or 0
                yield node.func, end - len(name), end, OTHERS[name][0]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that do something: no annotation, decorator, docstring or error."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return
    call = node.value if isinstance(node, ast.Expr) else node
    if isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("log.", "warnings.")):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _code(child)


def sample(n: int, seed: int) -> list[Mutant]:
    """n lines drawn from all that can be changed, and a change of each.

    The draw is by the text of a line: what is edited or added elsewhere leaves most of it as it was. Equal lines of a
    file count once.
    """
    lines: dict[tuple[str, str], list[Mutant]] = {}
    for path in sorted((ROOT / "sparkrec").rglob("*.py")):
        file = str(path.relative_to(ROOT))
        if any(fnmatch(file, f"sparkrec/{pattern}") for pattern in MODULES):
            for mutant in mutants_of(path.read_text(), file):
                lines.setdefault((mutant.file, mutant.before), []).append(mutant)

    def chance(*what: object) -> bytes:
        return hashlib.sha256(repr((seed, *what)).encode()).digest()

    drawn = sorted(lines, key=lambda line: chance(*line))[:n]
    mutants = [min(lines[line], key=lambda mutant: (chance(*line, mutant.after), mutant.line)) for line in drawn]
    return sorted(mutants, key=lambda mutant: (mutant.file, mutant.line))


@cache
def imports(path: Path) -> frozenset[Path]:
    """Files of the project that a file imports anywhere; a name that a package hands on is imported from its place."""
    tree = ast.parse(path.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    wanted = {file for name in modules if (file := _file(name))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted |= {file for alias in node.names if (file := _place(node.module, alias.name))}
    return frozenset(wanted - {path})


def _place(module: str, name: str) -> Path | None:
    inner, outer = _file(f"{module}.{name}"), _file(module)
    if inner or not outer or outer.name != "__init__.py":
        return inner or outer
    for node in ast.walk(ast.parse(outer.read_text())):
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return _place(node.module or "", name)
    return outer


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def covering(file: str) -> list[str]:
    """The test files nearest to a module: the one of its name, then by how many imports lie between."""
    module = ROOT / file
    folders = ["spark", "stages"] if needs_session(file) else ["kernels", "models", "training", "contracts", "launch"]
    near: dict[Path, tuple[int, str]] = {}
    for test in sorted(path for folder in folders for path in (ROOT / "tests" / folder).rglob("test_*.py")):
        if test.name == f"test_{module.stem}.py" and test.parent.name == module.parent.name:
            near[test] = 0, ""
        elif steps := _steps(test, module):
            near[test] = steps, str(test.relative_to(ROOT).parent) if test.parent.name != module.parent.name else ""
    files = SESSION_FILES if needs_session(file) else FILES
    return [str(test.relative_to(ROOT)) for test in sorted(near, key=lambda test: (near[test], test))[:files]]


def _steps(test: Path, module: Path) -> int | None:
    """How many imports lead from a test to a module; None if none do."""
    reached, steps = {test}, 0
    while module not in reached:
        further = reached.union(*map(imports, reached))
        if further == reached:
            return None
        reached, steps = further, steps + 1
    return steps


def needs_session(file: str) -> bool:
    """Whether a module is tried by tests with a Spark session."""
    return file.startswith("sparkrec/spark/")


class Copy:
    """A copy of the tree, where a file is changed, tried and put back."""

    def __init__(self, folder: str) -> None:
        self.said = ""
        self.tree, self.compiled = Path(folder, "tree"), Path(folder, "compiled")
        self.left_out: list[str] = []
        leave = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "spark-warehouse")
        shutil.copytree(ROOT, self.tree, ignore=leave)

    def run(self, tests: list[str], session: bool, limit: float | None) -> tuple[str, float]:
        """What became of the tests (passed, failed, hung; or none ran), and seconds."""
        wanted = "not horovod and not slow and not data and not gpu" + ("" if session else " and not spark")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
        command += ["--tb=no", "-m", wanted, *tests, *(f"--deselect={name}" for name in self.left_out)]
        env = {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"NUMBA_CACHE_DIR": str(self.compiled)}
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=limit)
            outcome = {0: "passed", 5: "none ran"}.get(process.returncode, "failed")
            self.said = output
        except subprocess.TimeoutExpired:
            outcome = "hung"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        return outcome, time.monotonic() - started

    def usual(self, test: str, session: bool) -> float:
        """Seconds that a test file takes; what fails in it without any change can tell nothing and is left out."""
        outcome, seconds = self.run([test], session, None)
        while outcome == "failed":
            failed = re.findall(r"^FAILED (\S+)", self.said, re.MULTILINE)
            if not failed:
                raise click.ClickException(f"{test} does not run without any change:\n{self.said[-2000:]}")
            click.echo(f"left out, since it fails without any change: {failed[0]}", err=True)
            self.left_out += failed
            outcome, seconds = self.run([test], session, None)
        return seconds

    def with_mutant(self, mutant: Mutant, tests: list[str], limit: float) -> tuple[str, float]:
        """What `run` returns where one line is another one."""
        path = self.tree / mutant.file
        times = path.stat()
        source = path.read_text()
        lines = source.split("\n")
        assert lines[mutant.line - 1] == mutant.before
        lines[mutant.line - 1] = mutant.after
        path.write_text("\n".join(lines))
        self._forget(mutant.file)
        try:
            return self.run(tests, needs_session(mutant.file), limit)
        finally:
            path.write_text(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            self._forget(mutant.file)

    def _forget(self, file: str) -> None:
        """What numba compiled from a file, or with functions of it inside: it looks at the time of one file alone."""
        stale = {ROOT / file}
        while more := {path for path in (ROOT / "sparkrec").rglob("*.py") if stale & imports(path)} - stale:
            stale |= more
        for compiled in self.compiled.rglob("*.nbi"):
            if compiled.name.split(".")[0] in {path.stem for path in stale}:
                compiled.unlink()


@click.command()
@click.option("--n", default=200, show_default=True, help="How many lines are changed.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--only", default="*", help="Of these, only in files that match, as 'sparkrec/kernels/*'.")
@click.option("--results", default="build/mutants.jsonl", show_default=True, help="Those in it are not tried again.")
@click.option("--again", is_flag=True, help="Survivors in the results are tried again.")
def main(n: int, seed: int, only: str, results: str, again: bool) -> None:
    """Change n lines, one at a time, run the tests that cover each, and list what none of them noticed."""
    drawn = [mutant for mutant in sample(n, seed) if fnmatch(mutant.file, only)]
    path = Path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    outcomes = {Mutant(**line["mutant"]): line["outcome"] for line in lines}
    with tempfile.TemporaryDirectory(prefix="sparkrec-mutants-") as folder:
        copy = Copy(folder)
        usual: dict[str, float] = {}
        for at, mutant in enumerate(drawn):
            if mutant in outcomes and not (again and outcomes[mutant] == "passed"):
                continue
            tests = covering(mutant.file)
            usual.update({test: copy.usual(test, needs_session(mutant.file)) for test in tests if test not in usual})
            times, more = LIMIT
            limit = times * sum(usual[test] for test in tests) + more
            outcomes[mutant], seconds = copy.with_mutant(mutant, tests, limit)
            with path.open("a") as file:
                file.write(json.dumps({"mutant": asdict(mutant), "outcome": outcomes[mutant]}) + "\n")
            click.echo(f"{at + 1}/{len(drawn)} {mutant.file}:{mutant.line} {outcomes[mutant]} {seconds:.0f}s", err=True)
    survivors = [mutant for mutant in drawn if outcomes[mutant] in ("passed", "none ran")]
    for mutant in survivors:
        click.echo(f"{mutant.file}:{mutant.line}\n  - {mutant.before.strip()}\n  + {mutant.after.strip()}")
    counts = Counter(outcomes[mutant] for mutant in drawn)
    click.echo(f"{len(drawn) - len(survivors)} of {len(drawn)} killed ({dict(counts)})")


if __name__ == "__main__":
    main()
