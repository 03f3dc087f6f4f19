"""The house of docs/explanation/architecture.md: layers, no cycles, budgets, and what never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

import pytest

PACKAGE = Path(__file__).parents[1] / "ckptaudit"
FILES = sorted(PACKAGE.rglob("*.py"))

# From top to bottom; a file may import from its own line and from the lines above it.
LAYERS = [
    {"errors", "words", "records", "json_text", "collector"},
    {"dtypes", "outcome", "place", "keys", "textfile", "newfile", "tomlfile"},
    {"manifest", "selection"},
    {"formats"},
    {"mapping"},
    {"model"},
    {"compare"},
    {"rules"},
    {"config", "policy", "past", "verification"},
    {"baseline"},
    {"acceptance"},
    {"sources", "inspection", "integrity"},
    {"targets"},
    {"pairing"},
    {"audit", "inferring", "scanning", "conversion", "loading", "frozen"},
    {"checking"},
    {"report"},
    {"benchmark"},
    {"training"},
    {"wire", "verifying"},
    {"cli", "testing"},
    {"pytest_session", "pytest_bench"},
    {"pytest_plugin"},
    {"", "__main__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
# Doors, opened when they are called: Manifest.of from a value type to a live model, Report.text from one to its text.
DOORS = {("manifest", "model"), ("policy", "report")}


def parts_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path, *, at_load_time):
    """Yield the modules of the package that a file imports, as tuples of names."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in load_time_nodes(tree) if at_load_time else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + tuple(
                (node.module or "").split(".") if node.module else ()
            )
            yield from (target(base, alias.name) for alias in node.names)


def target(base, name):
    folder = PACKAGE.joinpath(*base)
    return (*base, name) if (folder / f"{name}.py").exists() or (folder / name).is_dir() else base


def load_time_nodes(tree):
    for node in tree.body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node


def top(parts):
    return parts[0] if parts else ""


def test_every_file_has_a_place_in_the_house():
    assert {top(parts_of(path)) for path in FILES} == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_upwards(path):
    here = top(parts_of(path))
    if here == "":
        return  # the public names are resolved on first use
    for imported in imports(path, at_load_time=False):
        there = top(imported)
        if there and there != here and (here, there) not in DOORS:
            assert HEIGHT[there] < HEIGHT[here], f"{here} imports {there}"


def test_there_is_no_cycle():
    graph = {parts_of(path): set(imports(path, at_load_time=True)) for path in FILES}
    done, active = set(), []

    def visit(module):
        assert module not in active, f"import cycle: {active} {module}"
        if module in done or module not in graph:
            return
        active.append(module)
        for imported in sorted(graph[module] - {module}):
            visit(imported)
        active.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_files_and_functions_stay_small():
    lines = {path.name: len(path.read_text().splitlines()) for path in FILES}
    lengths = dict(functions())
    assert max(lines.values()) <= 500, max(lines, key=lines.get)
    assert median(lines.values()) <= 160
    assert max(lengths.values()) <= 60, max(lengths, key=lengths.get)
    assert quantiles(lengths.values(), n=10)[-1] <= 30


def test_everything_is_annotated():
    for path in FILES:
        if path.name == "records.py":
            continue  # type checkers see the standard library's dataclasses in its place
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
                assert not bare and node.returns is not None, f"{path.name}:{node.name}"


def test_the_dear_standard_modules_stay_out():
    dear = ("dataclasses", "inspect", "pathlib", "shutil", "logging", "zipfile", "tarfile", "pickle", "pickletools")
    code = f"import sys; from ckptaudit.cli import main; main(sys.argv[1:]); print([m for m in {dear} if m in sys.modules])"
    arguments = ["inspect", CHECKPOINT, "--format", "json"]
    result = subprocess.run([sys.executable, "-S", "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("tabulate", ["report/table.py"]),
        ("tqdm", ["cli/progress.py"]),
        ("matplotlib", ["benchmark/figures.py"]),
        ("numpy", ["compare/decode.py", "compare/overflow.py", "compare/tally.py", "integrity.py"]),
        ("tomli", ["tomlfile.py"]),
        ("safetensors", ["conversion/safetensors_file.py", "model/read_state.py"]),
        ("xxhash", ["training/fingerprint.py"]),
        ("jinja2", ["report/html.py"]),
    ],
)
def test_only_one_file_imports_a_heavy_package(package, users):
    assert [str(path.relative_to(PACKAGE)) for path in FILES if package in foreign(path)] == users


def foreign(path):
    """Return the packages from elsewhere that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


# Who may open files: the source of all formats, and those who read or write text of the user's own.
OPENERS = {
    "formats/base.py",
    "manifest.py",
    "sources.py",
    "textfile.py",
    "newfile.py",
    "cli/streams.py",
    "loading/undo.py",
}
# The witness reads by torch's own, safe ways: what it is asked for is an opinion that is not ours.
WITNESS = "model/read_state.py"
ELSEWHERE = {"pickle", "_pickle", "zipfile", "tarfile", "mmap", "safetensors", "pickletools", "marshal", "shelve"}
# A result is read back through the library as well, which has to agree on every byte.
SECOND_READER = "conversion/safetensors_file.py"

# Text of the user's own, which is no checkpoint.
OF_TEXT = {"json.loads", "Manifest.load", "Baseline.load", "KeyMapping.load", "tomllib.loads"}


def test_there_is_one_way_to_the_bytes_of_a_checkpoint():
    """inspect, scan, diff and all that will load or convert read through formats/base.py, and nothing else reads."""
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        second = {SECOND_READER: {"safetensors"}, WITNESS: {"safetensors"}}
        assert not foreign(path) & ELSEWHERE - second.get(name, set()), name
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        readers = {"open", "os.open", "io.open", "os.pread", "os.preadv", "os.read", "os.fdopen"}
        if not name.startswith("model/"):  # the code of the user's model is read there
            assert not calls & readers or name in OPENERS, name
        loads = {call for call in calls if call.endswith((".load", ".loads", "load_file", "safe_open"))}
        second = {SECOND_READER: {"safe_open"}, WITNESS: {"torch.load", "load_file"}}
        assert not loads - second.get(name, set()) - OF_TEXT, name


# Who may write: text of the user's own, streams of the process, and one place for everything else.
WRITERS = {"textfile.py", "newfile.py", "cli/streams.py"}


def test_there_is_one_place_that_writes_files():
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        if not name.startswith("model/") and name not in WRITERS:
            calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
            writing = {"os.write", "os.pwrite", "os.replace", "os.rename", "os.unlink", "os.remove", "os.ftruncate"}
            assert not calls & writing, name


def test_every_command_that_reads_checkpoints_does_so_by_open_checkpoint():
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "open_checkpoint"
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert users == {
        "conversion/__init__.py",
        "conversion/torch_file.py",
        "inspection.py",
        "loading/contents.py",
        "model/real_load.py",
        "scanning.py",
        "sources.py",
    }


def test_the_witness_never_unpickles():
    tree = ast.parse((PACKAGE / WITNESS).read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    assert len(calls) == 1
    assert all("weights_only=True" in [ast.unparse(keyword) for keyword in call.keywords] for call in calls)


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Block())
sys.argv[0] = "ckptaudit"
from ckptaudit.cli import main
sys.exit(main(sys.argv[1:]))
"""
ROOT = PACKAGE.parent
CHECKPOINT = "fixtures/article/resnet18.pth"


def run_without(blocked, *arguments):
    code = BLOCK.format(blocked=set(blocked))
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


RESNET50 = ["fixtures/resnet50/model.manifest.json", "fixtures/resnet50/dataparallel.pth"]
TORCH_FREE = [
    (["--help"], 0),
    (["--version"], 0),
    (["diff", "--help"], 0),
    (["inspect", CHECKPOINT], 0),
    (["inspect", CHECKPOINT, "--format", "json"], 0),
    (["explain"], 0),
    (["explain", "CKPT201"], 0),
    (["scan", CHECKPOINT, "fixtures/resnet50"], 0),
    (["scan", "fixtures/rules", "--format", "json"], 2),
    (["diff", CHECKPOINT, CHECKPOINT], 0),
    (["diff", CHECKPOINT, "fixtures/resnet50/dataparallel.pth"], 1),
    (["diff", *RESNET50], 1),
    (["diff", *RESNET50, "--map", "module.* -> *", "--map", "transpose fc.weight", "--map", "cast * dtype=float16"], 1),
    (["map", "fixtures/renamed/decoder.manifest.json", "fixtures/renamed/classifier.manifest.json"], 1),
    (["diff", CHECKPOINT, CHECKPOINT, "--values"], 0),
    (["frozen", CHECKPOINT, CHECKPOINT, "*"], 0),
    (["manifest", "show", CHECKPOINT], 0),
    (["convert", CHECKPOINT, "OUT.safetensors", "--no-verify"], 0),
    (["convert", CHECKPOINT, "OUT.pth", "--map", "layer1.* -> stage1.*"], 0),
    (["convert", CHECKPOINT, "OUT.safetensors", "--shard-size", "20MB", "--dry-run"], 0),
]


@pytest.mark.parametrize(
    ("arguments", "status"), TORCH_FREE, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_torch_and_numpy_are_not_needed(arguments, status, tmp_path):
    arguments = [argument.replace("OUT", f"{tmp_path}/out") for argument in arguments]
    result = run_without(["torch", "numpy", "torchvision"], *arguments)
    assert result.returncode == status, result.stderr
    assert result.stderr == ""
    assert result.stdout


def test_json_needs_no_tabulate():
    result = run_without(["torch", "numpy", "tabulate"], "diff", CHECKPOINT, CHECKPOINT, "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")


def test_the_guard_can_fail():
    result = run_without(["tabulate"], "inspect", CHECKPOINT)
    assert result.returncode == 2
    assert "tabulate must not be imported here" in result.stderr


def test_importing_the_package_is_light():
    code = "import sys, ckptaudit; print([m for m in ('torch', 'numpy', 'tabulate', 'json', 'argparse') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
    )
    assert result.stdout == "[]\n", result.stderr
