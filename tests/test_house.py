"""The shape of the project: imports go one way, nothing can execute what it reads, the README tells the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.classification import ClassificationSpec, LabelSpec
from flows.cli import commands
from flows.spec import PipelineSpec, check_spec, load_spec, resolved
from models.classification.windows import LabelWindows

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"models": {"tasks", "flows", "prefect"}, "tasks": {"flows"}, "flows": set()}
README = (ROOT / "README.md").read_text()


def sources() -> list[Path]:
    return sorted(path for room in (*ROOMS, "deployments", "benchmarks") for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way_and_nothing_is_pickled(path):
    forbidden = ROOMS.get(path.relative_to(ROOT).parts[0], set())
    assert not imports(path) & (forbidden | {"pickle", "cloudpickle", "dill", "joblib", "shelve"})
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not calls & {"torch.load", "torch.save", "eval", "exec", "yaml.load", "os.system"}


def test_models_run_alone_with_torch_numpy_and_pydantic():
    code = "import sys, models.conv1d, models.fit, models.batches, models.scaling, models.naive, models.metrics\n"
    code += "print([m for m in ('prefect', 'pandas', 'pyarrow', 'safetensors', 'tasks', 'flows') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_reading_and_checking_a_source_takes_no_torch():
    code = "import sys, flows.console, flows.spec, flows.checking; flows.spec.load_spec('deployments/demo.yaml')\n"
    code += "print([m for m in ('torch', 'deltalake') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_packages_hold_a_docstring_and_nothing_else():
    for path in ROOT.glob("*/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert isinstance(body[0].value, ast.Constant), path


def test_every_package_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.relative_to(ROOT).parts[:-1]) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    assert listed == found


def test_every_dependency_has_an_exact_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in [*project["dependencies"], *extras]:
        assert re.split(r"[<>=!~ \[]", requirement)[0].lower() in pinned, requirement


def test_every_command_that_the_readme_names_exists():
    named = set(re.findall(r"convcast ([a-z]+)", README))
    assert named >= {"check", "train", "forecast", "explain", "report", "windows", "up", "run", "down"}
    assert named <= set(commands.commands)


def test_every_file_that_the_readme_names_exists():
    for name in re.findall(r"`((?:flows|tasks|models|deployments|benchmarks|docs)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name


def test_the_readmes_own_specs_are_some():
    documents = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    specs = [check_spec(resolved(document, ROOT), "README.md") for document in documents]
    assert [spec.task for spec in specs] == ["forecasting", "classification", "classification"]
    assert all(spec.network.kind == "auto" for spec in specs)


def test_the_readme_names_every_key_of_a_source():
    for key in PipelineSpec.model_fields["source"].annotation.model_fields:
        assert re.search(rf"\b{key}\b", README), key


def test_the_readme_names_every_key_of_a_classification():
    own = README.partition("## Tell classes apart")[2].partition("\n## ")[0]
    sections = [ClassificationSpec, *(ClassificationSpec.model_fields[name].annotation for name in ("source", "folds", "gate"))]
    for section in (*sections, LabelWindows, LabelSpec):
        for key in section.model_fields:
            assert re.search(rf"\b{key}\b", own), key


@pytest.mark.parametrize("path", sorted((ROOT / "deployments").glob("*.yaml")), ids=lambda path: path.name)
def test_every_spec_under_deployments_is_one(path):
    if path.name == "prefect.yaml":
        pytest.skip("holds deployments, not a spec; test_deployments looks at it")
    assert load_spec(path).store == str(ROOT / "demo" / "store")


def test_no_file_holds_a_path_of_some_machine():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    own = re.compile(r"/(?:home|root|Users|work)/[a-z]")
    for name in listed.stdout.splitlines():
        if (ROOT / name).suffix not in (".png", ".safetensors") and name != "tests/test_house.py":
            found = own.search((ROOT / name).read_text(encoding="utf-8"))
            assert not found, f"{name}: {found.group()}"


def defined(path: Path) -> set[str]:
    """Every name that a module holds once it is imported, and the modules of a package."""
    tree = ast.parse(path.read_text())
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    taken = {
        (alias.asname or alias.name).split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    beside = {one.stem for one in path.parent.iterdir()} if path.name == "__init__.py" else set()
    return bound | made | taken | beside


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.name)
def test_what_a_benchmark_takes_from_the_project_is_there(path):
    """Each is run by hand and seldom, so a name that moved would show late."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        inner = node.module.replace(".", "/")
        places = [room / tail for room in (ROOT, ROOT / "benchmarks") for tail in (f"{inner}.py", f"{inner}/__init__.py")]
        for place in (place for place in places if place.exists()):
            assert {alias.name for alias in node.names} <= defined(place), f"from {node.module}"
