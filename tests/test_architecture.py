"""The direction of dependencies: what each package, and each floor of the runtime, may import."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "edgewren": ROOT / "runtime" / "edgewren",
    "edgewren_train": ROOT / "train" / "edgewren_train",
    "edgewren_export": ROOT / "export" / "edgewren_export",
}
SIBLINGS = {
    "edgewren": {"edgewren"},
    "edgewren_train": {"edgewren", "edgewren_train"},
    "edgewren_export": {"edgewren", "edgewren_export"},
}
RUNTIME_NEEDS = {"numpy", "tokenizers", "onnxruntime"}
# What works without, and says so: Parquet, pictures and integrations name their extra, a progress bar is left out.
RUNTIME_OPTIONS = {
    "archive/formats/parquet.py": {"pyarrow"},  # archive/compression.py also takes a zstd package, by name
    "picture.py": {"matplotlib"},
    "cli/progress.py": {"tqdm"},
    "integrations/scikit_learn.py": {"sklearn"},
    "integrations/pandas.py": {"pandas"},
    "integrations/polars.py": {"polars"},
    "integrations/hub.py": {"huggingface_hub"},
    "integrations/arrow.py": {"pyarrow"},
    "integrations/remote_files.py": {"pyarrow", "fsspec"},
    "integrations/ray.py": {"ray", "pyarrow"},
    "integrations/ray_archive.py": {"ray"},
    "integrations/spark.py": {"pyspark", "pyarrow", "pandas"},
    "serve/app.py": {"starlette"},
    "serve/connections.py": {"uvicorn"},
    "serve/openapi.py": {"starlette"},
    "serve/page.py": {"starlette"},
    "serve/server.py": {"uvicorn"},
    "serve/telling.py": {"prometheus_client"},
}
INTEGRATIONS_USERS = ("cli/hub.py", "cli/score.py")
FLOORS = (
    {"cli", "__main__"},
    {
        "archive",
        "integrations",
        "serve",
        "verification",
        "diagnosis",
        "measurement",
        "picture",
        "heatmap",
        "share_plot",
    },
    {"classifier"},
    {"loading"},
    {"bundle"},
    {"manifest", "bundle_settings", "onnx_scan", "tokenizer_scan"},
    {"bundle_folder"},
    {
        "session",
        "alone",
        "scheduling",
        "windows",
        "staged",
        "names",
        "text",
        "word_tokenizer",
        "word_table",
        "batching",
        "metrics",
        "bootstrap",
        "paired_comparison",
        "quantification",
        "probabilities",
        "calibration",
    },
    {
        "background",
        "cgroup",
        "copies",
        "device",
        "display",
        "evaluations",
        "folders",
        "lifetime",
        "onnx_operands",
        "onnx_operators",
        "onnx_schemas",
        "onnx_sizes",
        "protobuf",
        "slots",
        "strict_json",
    },
    {"errors"},
)
"""From the top; a module uses its own floor and those below. `__init__` hands out names of any, lazily."""


def modules(package: str) -> list[Path]:
    found = sorted(PACKAGES[package].rglob("*.py"))
    assert found
    return found


def imports(path: Path) -> set[str]:
    """All absolute names that a file imports, also inside functions, but not those for type checkers alone."""
    out = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            out |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        pending.extend(ast.iter_child_nodes(node))
    return out


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_siblings_meet_only_at_files_on_disk(package):
    for path in modules(package):
        ours = {top(name) for name in imports(path)} & set(PACKAGES)
        assert ours <= SIBLINGS[package], f"{path} imports {ours - SIBLINGS[package]}"


def test_runtime_imports_nothing_but_its_three_dependencies():
    for path in modules("edgewren"):
        relative = path.relative_to(PACKAGES["edgewren"]).as_posix()
        allowed = RUNTIME_NEEDS | RUNTIME_OPTIONS.get(relative, set()) | {"edgewren"} | set(sys.stdlib_module_names)
        foreign = {top(name) for name in imports(path)} - allowed
        assert not foreign, f"{relative} imports {foreign}"


def test_each_integration_is_imported_by_nobody_but_its_own_user():
    """Else its library would be needed by those who never asked for it; the command line asks inside its verb."""
    for path in modules("edgewren"):
        relative = path.relative_to(PACKAGES["edgewren"]).as_posix()
        if relative.startswith("integrations/"):
            continue
        used = {name for name in imports(path) if name.startswith("edgewren.integrations.")}
        assert not used or relative in INTEGRATIONS_USERS, f"{relative} imports {used}"
    for relative in INTEGRATIONS_USERS:
        tree = ast.parse((PACKAGES["edgewren"] / relative).read_text(encoding="utf-8"))
        top_level = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not any(name.startswith("edgewren.integrations") for name in top_level), relative


def test_integrations_need_no_library_but_their_own():
    """Whoever has Ray needs no Spark: a file uses another integration only if it brings no further library."""
    folder = PACKAGES["edgewren"] / "integrations"
    for path in folder.glob("*.py"):
        options = RUNTIME_OPTIONS.get(f"integrations/{path.name}", set())
        used = {name.split(".")[2] for name in imports(path) if name.startswith("edgewren.integrations.")}
        for name in {name for name in used if (folder / f"{name}.py").exists()}:
            further = RUNTIME_OPTIONS.get(f"integrations/{name}.py", set()) - options - {"pyarrow", "fsspec"}
            assert not further, f"{path.name} uses {name}, which needs {further}"


def test_onnxruntime_is_imported_in_one_place():
    importing = [path.name for path in modules("edgewren") if "onnxruntime" in imports(path)]
    assert importing == ["device.py"], "elsewhere its telemetry would not be off"


def floor(name: str) -> int:
    (found,) = [index for index, names in enumerate(FLOORS) if name in names]
    return found


def test_floors_of_the_runtime_use_only_those_below():
    root = PACKAGES["edgewren"]
    for path in modules("edgewren"):
        piece = path.relative_to(root).parts[0].removesuffix(".py")
        if piece == "__init__":
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("edgewren.")}
        below = {name for name in used if (root / f"{name}.py").exists() or (root / name).is_dir()}
        for name in below:
            assert floor(name) >= floor(piece), f"{path.relative_to(root)} uses {name}, which stands above it"


def verbs_of_the_siblings() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        entries = tomllib.load(stream)["project"]["entry-points"]["edgewren.commands"]
    return {entry.partition(":")[0] for entry in entries.values()}


def imported_at_the_top(module: str) -> set[str]:
    """What importing a module of ours imports first: its own imports outside functions, and those of ours in turn."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        path = PACKAGES.get(top(name), ROOT / "nowhere").joinpath(*name.split(".")[1:]).with_suffix(".py")
        if not path.is_file():
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                pending += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {top(name) for name in seen}


def test_command_line_of_the_siblings_imports_nothing_heavy_at_the_top():
    verbs = verbs_of_the_siblings()
    assert {"edgewren_train.verbs.train", "edgewren_export.commands"} <= verbs
    for verb in verbs:
        foreign = imported_at_the_top(verb) - set(PACKAGES) - set(sys.stdlib_module_names)
        assert not foreign, f"{verb} imports {foreign}"
