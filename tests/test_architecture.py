"""The rules of DESIGN section 3 and of the conventions that a machine can hold."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nlp_transfer"

LEVELS = {
    "errors": 0,
    "stopping": 0,
    # Speaks in the errors, and is spoken to by everything else.
    "files": 0.5,
    "terminal": 0,
    "figures": 0,
    "contracts": 0,
    "recipe": 1,
    "data": 2,
    "models": 2,
    "engine": 3,
    "evaluation": 3,
    "strategies": 4,
    "publishing": 4,
    "fitting": 5,
    "methods": 6,
    "runs": 7,
    "classifier": 7,
    "evidence": 8,
    "benchmarks": 8,
    "commands": 9,
    "cli": 10,
    "__main__": 11,
    # The package itself: its public names come from everywhere, so nothing inside imports it.
    "__init__": 12,
}

HEAVY = ("torch", "transformers", "datasets", "numpy", "pandas", "sklearn", "scipy", "matplotlib", "peft", "accelerate")
"""Libraries that cost time to import."""


def list_files(package: Path = PACKAGE) -> list[Path]:
    return sorted(package.rglob("*.py"))


def name_part(path: Path, package: Path) -> str:
    """The package or module directly under ``nlp_transfer`` that a file belongs to."""
    relative = path.relative_to(package)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def list_imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, wherever in the file it stands."""
    home = [package.name, *path.relative_to(package).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        yield from ((getattr(node, "lineno", 0), name) for name in names)


def list_imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and part of every import of the package's own modules."""
    known = {name_part(other, package) for other in list_files(package)}
    for line, name in list_imported(path, package):
        parts = name.split(".")
        if parts[0] == package.name:
            is_part = len(parts) > 1 and parts[1] in known
            yield line, parts[1] if is_part else "__init__"


def name_module(path: Path, package: Path) -> str:
    """Dotted name of a file's module."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_circle(package: Path) -> tuple[int, list[str]]:
    """Count the imports between modules, and give one circle of them, if there is any; imports for types count."""
    modules = {name_module(path, package): path for path in list_files(package)}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for _, name in list_imported(path, package):
            # A name that is imported from a module stands for the module.
            found = name if name in modules else name.rpartition(".")[0]
            if found in modules and found != module:
                graph[module].add(found)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return sum(map(len, graph.values())), list(error.args[1])
    return sum(map(len, graph.values())), []


def check_imports(package: Path) -> tuple[int, int, list[str]]:
    """Count modules and own imports, and list those that do not go downward."""
    files, num_imports, problems = list_files(package), 0, []
    for path in files:
        part = name_part(path, package)
        if part not in LEVELS:
            problems.append(f"{path.relative_to(package)}: {part} has no level")
            continue
        for line, imported in list_imports(path, package):
            num_imports += 1
            if imported != part and LEVELS.get(imported, 99) >= LEVELS[part]:
                problems.append(f"{path.relative_to(package)}:{line}: {part} imports {imported}")
    return len(files), num_imports, problems


def test_modules_import_downward_only():
    num_modules, num_imports, problems = check_imports(PACKAGE)
    assert problems == []
    assert num_modules == len(list(PACKAGE.rglob("*.py"))) >= 45
    assert num_imports > 100


@pytest.mark.parametrize(
    ("path", "line", "problem"),
    [
        ("engine/loop.py", "from nlp_transfer.strategies import full", "engine imports strategies"),
        ("engine/loop.py", "import nlp_transfer.runs.pipeline", "engine imports runs"),
        ("data/load.py", "from nlp_transfer.models.encoder import load_encoder", "data imports models"),
        ("models/heads.py", "def f():\n    from ..data import load", "models imports data"),
        ("evaluation/scoring.py", "if TYPE_CHECKING:\n    from nlp_transfer.engine import loop", "imports engine"),
        ("recipe/load.py", "from nlp_transfer import classifier", "recipe imports classifier"),
        ("publishing/card.py", "from nlp_transfer import run", "publishing imports __init__"),
        ("contracts.py", "from .errors import TransferError", "contracts imports errors"),
        ("models/layers.py", "importlib.import_module('nlp_transfer.engine.loop')", "models imports engine"),
        ("surprise/new.py", "", "surprise has no level"),
    ],
)
def test_planted_import_that_does_not_go_downward_is_refused(tmp_path, path, line, problem):
    package = tmp_path / "nlp_transfer"
    modules = ["errors", "contracts", "classifier", "runs/pipeline", "recipe/load", "data/load", "models/heads"]
    modules += ["models/encoder", "models/layers", "engine/loop", "evaluation/scoring", "strategies/full"]
    for name in [*modules, "publishing/card"]:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text("import json\n")
    (package / "engine/hooks.py").write_text("from nlp_transfer.data import load\nfrom .loop import run_loop\n")
    assert check_imports(package) == (len(modules) + 2, 2, [])
    (package / path).parent.mkdir(exist_ok=True)
    (package / path).write_text(line + "\n")
    _, _, problems = check_imports(package)
    assert len(problems) == 1
    assert problem in problems[0]


def test_no_modules_import_each_other():
    num_imports, circle = find_circle(PACKAGE)
    assert circle == []
    assert num_imports > 1000


@pytest.mark.parametrize(
    ("planted", "where"),
    [
        ("from nlp_transfer.engine.loop import run_loop", "engine/window.py"),
        ("def f():\n    from nlp_transfer.engine import loop", "engine/window.py"),
        ("if TYPE_CHECKING:\n    from .loop import LoopSetup", "engine/window.py"),
        ("import nlp_transfer.engine.loop", "engine/batch.py"),
    ],
)
def test_planted_circle_is_refused(tmp_path, planted, where):
    package = tmp_path / "nlp_transfer"
    (package / "engine").mkdir(parents=True)
    (package / "engine/loop.py").write_text("from nlp_transfer.engine.window import run_window\n")
    (package / "engine/window.py").write_text("from nlp_transfer.engine.batch import Batch\n")
    (package / "engine/batch.py").write_text("import json\n")
    assert find_circle(package) == (2, [])
    with (package / where).open("a") as file:
        file.write(planted + "\n")
    _, circle = find_circle(package)
    assert {f"nlp_transfer.{where[:-3].replace('/', '.')}", "nlp_transfer.engine.loop"} <= set(circle)


def run_python(code: str, *arguments: str) -> SimpleNamespace:
    """Run a program in a new interpreter."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return SimpleNamespace(out=done.stdout, err=done.stderr, status=done.returncode)


IMPORT_PACKAGE = "import nlp_transfer"
ASK_HELP = """
import sys
sys.argv = ["nlp-transfer", "--help"]
from nlp_transfer.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("code", [IMPORT_PACKAGE, ASK_HELP], ids=["import", "help"])
def test_nothing_heavy_is_imported_before_it_is_used(code):
    listing = f"\nimport sys\nprint('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    done = run_python(code + listing)
    assert done.status == 0, done.err
    assert done.out.strip().endswith("heavy: []")
    proof = run_python("import numpy" + listing)
    assert proof.out.strip().endswith("heavy: ['numpy']")


def list_definitions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, bool]]:
    """Dotted name, node and whether it is public, of functions, classes and methods (not of functions in functions)."""

    def visit(body: list[ast.stmt], prefix: str, is_public: bool) -> Iterator[tuple]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                public = is_public and not node.name.startswith("_")
                yield prefix + node.name, node, public
                if isinstance(node, ast.ClassDef):
                    yield from visit(node.body, f"{prefix}{node.name}.", public)
            elif isinstance(node, ast.If | ast.Try):
                yield from visit(node.body + node.orelse, prefix, is_public)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")).body, "", True)


def find_undocumented(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [] if ast.get_docstring(tree) or not tree.body else ["module"]
    for name, node, is_public in list_definitions(path):
        if is_public and not ast.get_docstring(node):
            found.append(name)
    return found


def find_loose(path: Path) -> list[str]:
    """Bare excepts, prints, and ``**kwargs`` of public functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds):
                found.append(f"{node.lineno}: catches everything")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"{node.lineno}: prints")
    for name, node, is_public in list_definitions(path):
        if is_public and not isinstance(node, ast.ClassDef) and node.args.kwarg is not None:
            found.append(f"{node.lineno}: {name} takes **{node.args.kwarg.arg}")
    return found


def test_public_definitions_are_documented():
    num_public = sum(is_public for path in list_files() for _, _, is_public in list_definitions(path))
    assert num_public > 150
    assert {str(p.relative_to(ROOT)): found for p in list_files() if (found := find_undocumented(p))} == {}


def test_modules_say_what_is_public_and_have_it():
    seen, problems = 0, []
    for path in list_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if all(isinstance(node, ast.Expr) for node in tree.body):
            continue
        seen += 1
        names = {name for name, _, _ in list_definitions(path)}
        exported = None
        for node in tree.body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            assigned = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            names |= assigned
            if "__all__" in assigned:
                exported = ast.literal_eval(node.value)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if exported is None:
            problems.append(f"{path.relative_to(ROOT)}: no __all__")
        elif missing := sorted(set(exported) - names):
            problems.append(f"{path.relative_to(ROOT)}: __all__ names {missing}, which is not there")
    assert problems == []
    assert seen >= 40


def test_nothing_catches_everything_and_only_the_command_line_prints():
    files = [path for path in list_files() if path.name != "cli.py"]
    assert len(files) >= 45
    assert {str(path.relative_to(ROOT)): found for path in files if (found := find_loose(path))} == {}


def test_planted_breaches_of_the_rules_are_found(tmp_path):
    path = tmp_path / "planted.py"
    path.write_text(
        "def f(**kwargs):\n"
        "    try:\n        print()\n"
        "    except (ValueError, Exception):\n        pass\n"
        "    try:\n        pass\n"
        "    except:\n        pass\n"
        "class A:\n"
        "    def method(self):\n        return 1\n"
        "    def _hidden(self, **kwargs):\n        return 1\n"
    )
    assert find_undocumented(path) == ["module", "f", "A", "A.method"]
    assert [problem.split(": ")[1] for problem in sorted(find_loose(path))] == [
        "f takes **kwargs",
        "prints",
        "catches everything",
        "catches everything",
    ]
