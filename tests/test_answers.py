"""Bad answers end in one clear line and leave nothing behind; awkward ones give valid files and never run."""

import tomllib
from pathlib import Path

import pytest
from baking import Render, rendering, run_module
from pytest_cookies.plugin import Cookies

BAD_ANSWERS = {
    "empty slug": "project_slug=",
    "blank slug": "project_slug= ",
    "slug with a slash": "project_slug=a/b",
    "slug with a backslash": "project_slug=a\\b",
    "slug that is an absolute path": "project_slug=/tmp/a",
    "slug that leaves the folder": "project_slug=../a",
    "slug that is the folder": "project_slug=.",
    "slug that is its parent": "project_slug=..",
    "slug that is hidden": "project_slug=.a",
    "slug that is an option": "project_slug=-a",
    "slug with a colon": "project_slug=a:b",
    "slug with an asterisk": "project_slug=a*",
    "slug with a line break": "project_slug=a\nb",
    "slug that ends in a dot": "project_slug=a.",
    "slug that ends in a space": "project_slug=a ",
    "slug longer than a name may be": "project_slug=" + "a" * 300,
    "slug that is Jinja": "project_slug={{ 7*7 }}",
    "slug of a Windows device": "project_slug=con",
    "slug of a Windows device in capitals": "project_slug=NUL",
    "slug of a Windows device with an extension": "project_slug=lpt1.txt",
    "empty name": "project_name=",
    "blank name": "project_name= \n ",
    "empty author": "author=",
    "competition with spaces": "kaggle_competition=my competition",
    "competition that is an address": "kaggle_competition=https://www.kaggle.com/c/x",
    "competition that is a command": "kaggle_competition=$(touch pwned)",
}
AWKWARD_TEXTS = {
    "quotes": 'It\'s "the" \'\'\'best\'\'\' """one"""',
    "backslashes": "C:\\new\\table \\u0041 \\",
    "ampersand and angles": "R&D <b>team</b>",
    "line breaks": "one\ntwo\r\nthree\n",
    "other letters": "Ünïcode Соревнование コンペ مسابقة",
    "emoji": "gold 🥇 👩‍🔬",
    "control characters": "bell\a delete\x7f next\x85",
    "opening braces": "a {{ b",
    "closing braces": "a }} b",
    "expression": "{{ 7*7 }}",
    "unknown variable": "{{ nobody.knows }}",
    "own variable": "{{ cookiecutter.task_type }}",
    "statement": "{% if %} {% raw %} {# comment",
    "line statement": "#% if",
    "only symbols": "!!!",
}
HOSTILE_TEXTS = [
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "{{ lipsum.__globals__['os'].popen('touch pwned').read() }}",
    '"""); __import__(\'os\').system(\'touch pwned\'); ("""',
    "''' + __import__('os').system('touch pwned') + '''",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    'x"\n[tool.hatch.build.hooks.custom]\npath = "pwned.py',
]


@pytest.fixture(scope="module")
def render(slim_template: Path, user_config: Path) -> Render:
    return rendering(slim_template, user_config)


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_ends_in_one_line_and_leaves_nothing_behind(render: Render, tmp_path: Path, answer: str) -> None:
    output = tmp_path / "folder" / "output"
    output.mkdir(parents=True)
    result = render(output, answer)
    assert result.returncode == 1
    assert [line for line in (result.stdout + result.stderr).splitlines() if line] == [result.stdout.strip()]
    assert result.stdout.startswith(f"Error: {answer.partition('=')[0]} is ")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "output"]


def test_an_unknown_task_is_refused_by_cookiecutter(render: Render, tmp_path: Path) -> None:
    result = render(tmp_path, "task_type=juggling")
    assert result.returncode == 1
    assert "juggling provided for choice variable task_type" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [[], ["--overwrite-if-exists"], ["--skip-if-file-exists", "--overwrite-if-exists"]])
def test_a_folder_with_something_in_it_stays_as_it_is(render: Render, tmp_path: Path, option: list[str]) -> None:
    own = tmp_path / "my-competition" / "outputs" / "detection" / "latest.pt"
    own.parent.mkdir(parents=True)
    own.write_text("a week of training")
    result = render(tmp_path, *option)
    assert result.returncode == 1
    lines = (result.stdout + result.stderr).splitlines()
    assert sum("exists" in line and "Error:" in line for line in lines) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]


@pytest.mark.parametrize("text", AWKWARD_TEXTS.values(), ids=AWKWARD_TEXTS)
def test_an_awkward_text_gives_valid_files(cookies: Cookies, slim_template: Path, text: str) -> None:
    result = cookies.bake({"project_name": text, "author": text}, template=str(slim_template))
    assert result.exception is None, result.exception
    shown = " ".join(text.replace("\a", " ").replace("\x7f", " ").split())
    project = tomllib.loads((result.project_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"] == shown
    assert project["authors"] == [{"name": shown}]
    assert shown in (result.project_path / "LICENSE").read_text(encoding="utf-8").splitlines()[2]
    readme = (result.project_path / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[0] == f"# {shown}"


def test_an_awkward_text_means_the_same_on_the_command_line(render: Render, tmp_path: Path) -> None:
    assert render(tmp_path, "project_name={{ 7*7 }} {{", "project_slug=a").returncode == 0
    project = tomllib.loads((tmp_path / "a" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"] == "{{ 7*7 }} {{"


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_an_answer_never_runs(render: Render, tmp_path: Path, text: str) -> None:
    result = render(tmp_path, f"project_name={text}", f"author={text}", "project_slug=a")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a" / "competition" / "__init__.py").exists()
    assert not list(tmp_path.rglob("*pwned*"))
    tools = tomllib.loads((tmp_path / "a" / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(tools["hatch"]["build"]) == {"targets"}


@pytest.mark.slow
def test_awkward_texts_build_into_a_package(cookies: Cookies, template: Path, tmp_path: Path) -> None:
    text = " ".join(AWKWARD_TEXTS.values())
    project = cookies.bake({"project_name": text, "author": text}, template=str(template)).project_path
    result = run_module("uv", "build", "--wheel", "-o", tmp_path, cwd=project)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("competition-*.whl"))
