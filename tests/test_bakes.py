"""What a rendered competition holds, for each task."""

import ast
import re
import shutil
import tomllib
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import pytest
from baking import PROJECT, QUESTIONS, TASKS, Render, files_below
from competition.support.paths import competition_in
from pytest_cookies.plugin import Cookies

# Short on purpose: it keeps the next test from agreeing with a template that lost its files.
NEEDED = {
    ".github/workflows/tests.yml",
    ".gitignore",
    ".pre-commit-config.yaml",
    "AGENTS.md",
    "LICENSE",
    "README.md",
    "competition/__init__.py",
    "competition/__main__.py",
    "competition/cli/app.py",
    "pyproject.toml",
}
# Where a task's files lie, as the template's README has it.
TASK_FILES = (
    "competition/tasks/{}/*",
    "configs/{}.yaml",
    "configs/{}_*.yaml",
    "tests/tasks/{}/*",
    "tests/{}_*.py",
)


def of_task(name: str, task: str) -> bool:
    return any(fnmatch(name, pattern.format(task)) for pattern in TASK_FILES)


def test_a_bake_holds_the_templates_files_but_not_those_of_other_tasks(bake: Path, template: Path, task: str) -> None:
    others = [other for other in TASKS if other != task]
    expected = {name for name in files_below(template / PROJECT) if not any(of_task(name, other) for other in others)}
    texts = "".join(path.read_text(encoding="utf-8") for path in (bake / "competition").rglob("*.py"))
    imported = {"/".join(found) for found in re.findall(r"from competition\.(tasks|networks)\.(\w+) import", texts)}
    imported |= {"/".join(found) for found in re.findall(r"from competition\.(tasks|networks) import (\w+)", texts)}
    # What tasks share stands beside their folders and in networks/, and goes where those that share it went.
    shared = {name for name in expected if re.fullmatch(r"competition/(tasks|networks)/[a-z]\w*\.py", name)}
    is_left = {name for name in shared if name.removeprefix("competition/").removesuffix(".py") in imported}
    assert files_below(bake) == expected - (shared - is_left)


def test_a_bake_holds_what_a_competition_needs(bake: Path, task: str) -> None:
    assert {*NEEDED, f"competition/tasks/{task}/__init__.py", f"configs/{task}.yaml"} <= files_below(bake)
    assert list(bake.glob(f"tests/tasks/{task}/test_{task}_*.py"))


def rooms(folder: Path) -> dict[str, set[str]]:
    """Return the files of each folder, by its path; those that tools leave do not count."""
    found: dict[str, set[str]] = {}
    for name in files_below(folder):
        if "__pycache__" not in name:
            found.setdefault(str(Path(name).parent), set()).add(Path(name).name)
    return found


def test_the_package_is_rooms_of_a_natural_size_each_with_a_line_that_says_what_for(bake: Path) -> None:
    found = rooms(bake / "competition")
    assert found.pop(".") == {"__init__.py", "__main__.py", "notebook.py"}
    assert {name: len(files) for name, files in found.items() if not 2 <= len(files) <= 18} == {}
    for name in found:
        doc = ast.get_docstring(ast.parse((bake / "competition" / name / "__init__.py").read_text(encoding="utf-8")))
        assert doc, name
        assert len(doc.splitlines()[0]) > 20, name


def test_tests_lie_in_folders_named_as_the_rooms(bake: Path) -> None:
    tested = {name for name, files in rooms(bake / "tests").items() if any(file.startswith("test_") for file in files)}
    assert tested - {"."} <= set(rooms(bake / "competition"))


def test_the_rooms_that_can_be_taken_out_are_those_in_brackets(bake: Path) -> None:
    contracts = tomllib.loads((bake / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    in_brackets = {name for layer in contracts[0]["layers"] for name in re.findall(r"\((\w+)\)", layer)}
    support = ast.parse((bake / "competition" / "support" / "optional_rooms.py").read_text(encoding="utf-8"))
    assigned = next(node for node in support.body if isinstance(node, ast.Assign))
    assert in_brackets == set(ast.literal_eval(assigned.value))
    text = (bake / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "can be taken out" in line)
    assert in_brackets == set(re.findall(r"`(\w+)`", line.partition(" can be")[0]))


def test_the_readmes_map_has_every_room_once(bake: Path) -> None:
    house = (bake / "README.md").read_text(encoding="utf-8").partition("## The house")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `competition/(\w+)/` \|", house, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (bake / "competition").iterdir() if is_room(path))


def is_room(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def test_every_path_that_a_readme_names_is_there(bake: Path, template: Path) -> None:
    rendered = (bake / "README.md").read_text(encoding="utf-8")
    of_template = (template / "README.md").read_text(encoding="utf-8").replace("<task>", "*")
    for text in (rendered, of_template):
        named = set(re.findall(r"(?<![\w/.-])(?:competition|tests|configs/trainer)/[\w./*-]*[\w/*]", text))
        assert named
        for name in named:
            folders = [bake, template] if text is of_template else [bake]
            assert any(any(folder.glob(name)) for folder in folders), name


def test_the_changelogs_table_of_imports_names_modules_that_are_there(template: Path) -> None:
    unreleased = (template / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n## Unreleased")[2]
    table = unreleased.partition("\n## ")[0].partition("| import was")[2].partition("\n\n")[0]
    modules = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+\.\w+)`", row.split("|")[2])]
    package = template / PROJECT / "competition"
    assert [name for name in modules if not (package / name.replace(".", "/")).with_suffix(".py").is_file()] == []
    assert "".join(modules) or not table


def test_no_template_syntax_is_left_in_a_bake(bake: Path) -> None:
    for name in files_below(bake):
        if name == "competition/pages/page.html":  # Jinja of the project's own, for the pages it writes
            continue
        content = (bake / name).read_bytes()
        for syntax in (b"{{ cookiecutter", b"{{cookiecutter", b"{%", b"#%"):
            assert syntax not in content, f"{name} holds {syntax!r}"


def test_files_that_are_not_rendered_are_the_templates_bytes(bake: Path, template: Path) -> None:
    patterns = QUESTIONS["_copy_without_render"]
    copied = [name for name in files_below(bake) if any(fnmatch(name, pattern) for pattern in patterns)]
    assert copied
    for name in copied:
        assert (bake / name).read_bytes() == (template / PROJECT / name).read_bytes(), name


def test_only_what_the_task_uses_is_installed(bake: Path, task: str) -> None:
    dependencies = tomllib.loads((bake / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    text = " ".join(dependencies)
    assert "pytorch-lightning" in text
    code = "".join(path.read_text(encoding="utf-8") for path in (bake / "competition" / "tasks" / task).rglob("*.py"))
    for package in ("segmentation-models-pytorch", "faster-coco-eval"):
        assert (package in text) == (package.replace("-", "_") in code)


def test_the_competition_is_named_where_commands_look_it_up(bake: Path) -> None:
    assert competition_in(bake / "pyproject.toml") == bake.name


@pytest.mark.parametrize(
    ("licence", "first_line", "last_words"),
    [
        ("MIT", "MIT License", "OTHER DEALINGS IN THE\nSOFTWARE."),
        ("Apache-2.0", "Apache License", "limitations under the License."),
        ("BSD-3-Clause", "BSD 3-Clause License", "POSSIBILITY OF SUCH DAMAGE."),
    ],
)
def test_the_licence_is_whole_and_names_year_and_author(
    cookies: Cookies, template: Path, licence: str, first_line: str, last_words: str
) -> None:
    result = cookies.bake({"license": licence, "author": "Ada & Söhne"}, template=str(template))
    text = (result.project_path / "LICENSE").read_text(encoding="utf-8").rstrip()
    assert text.lstrip().startswith(first_line)
    assert text.endswith(last_words)
    assert str(datetime.now(tz=UTC).year) in text
    assert "Ada & Söhne" in text


def test_no_licence_leaves_no_file(cookies: Cookies, template: Path) -> None:
    result = cookies.bake({"license": "none"}, template=str(template))
    assert result.exception is None
    assert not (result.project_path / "LICENSE").exists()
    assert "README.md" in files_below(result.project_path)


def test_no_answers_are_needed(render: Render, tmp_path: Path) -> None:
    assert render(tmp_path).returncode == 0
    assert files_below(tmp_path / "my-competition") > NEEDED


def test_what_work_in_the_templates_folder_left_there_does_not_reach_a_bake(
    cookies: Cookies, template: Path, tmp_path: Path
) -> None:
    used = tmp_path / "used"
    shutil.copytree(template, used)
    ignored = (used / PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in (line.strip("/").replace("*", "x") for line in ignored if line.endswith("/")):
        for folder in (used / PROJECT / name, used / PROJECT / name / "deeper"):
            folder.mkdir(parents=True)
            (folder / "cache").write_bytes(b"{{ broken \xe6\x00\xff")
    (used / PROJECT / "competition" / "__pycache__").mkdir()
    (used / PROJECT / "competition" / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"\xe6{{ broken")
    clean = cookies.bake({"project_slug": "clean"}, template=str(template))
    result = cookies.bake({"project_slug": "used"}, template=str(used))
    assert result.exception is None
    assert files_below(result.project_path) == files_below(clean.project_path)
