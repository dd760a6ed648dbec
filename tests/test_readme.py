"""What the pages tell a reader to type: Python blocks run, commands parse, files and keys are there."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from configs import common
from docs import draw_data_flow, list_config_keys
from modaltune_jax import command, evaluate, example, experiment, inspect, main, pack, report, sweep
from modaltune_jax.config import unpack
from modaltune_jax.convert import __main__ as convert
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.selection import check_selection

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def told(monkeypatch, tmp_path):
    """An empty folder to work in, and a command line that stops where training would begin."""
    configs = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "prepare_jax", lambda verbosity: None)
    monkeypatch.setattr(
        experiment, "run", lambda config, workdir, *, is_training: configs.append((config, workdir))
    )
    return configs


PARSED = {
    "modaltune_jax.convert": convert,
    "modaltune_jax.evaluate": evaluate,
    "modaltune_jax.report": report,
}
RUN = {
    "modaltune_jax.example": (example, ("--cases-per-site", "16")),
    "modaltune_jax.inspect": (inspect, ("--workers", "1")),
    "modaltune_jax.pack": (pack, ("--workers", "1")),
    "modaltune_jax.sweep": (sweep, ("--dry-run",)),
}


def check(words: list[str]) -> None:
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        case ["pip", "install", *_, "-r", file]:
            assert (ROOT / file).is_file()
        case ["pip", "install", "-e", "."]:
            assert (ROOT / "pyproject.toml").is_file()
        case ["hf", "auth" | "download", *_]:
            pass  # another project's command, which goes to the network
        case ["python", "-m", "modaltune_jax.main", *arguments] | ["modaltune", *arguments]:
            main.main(arguments)
        case ["python", "-m", name, *arguments] if name in PARSED:
            PARSED[name]._parser().parse_args(arguments)
        case ["python", "-m", name, *arguments] if name in RUN:
            command_of, flags = RUN[name]
            command_of.main([*arguments, *flags])
        case ["python", file, "--baselines", _, *runs]:
            assert (ROOT / file).is_file()
            assert runs
        case ["python", file]:
            runpy.run_path(file, run_name="__main__")
        case _:
            pytest.fail(f"no check for this command: {shlex.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_python_of_a_page(page, told):
    """Python blocks that begin with a file name become that file; the others run."""
    for block in blocks(page, "python"):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            Path(named[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, page.name, "exec"), {})
    for words in commands(page):
        check(words)


def test_the_cases_of_the_readme_are_trained_on(told):
    test_commands_and_python_of_a_page(ROOT / "README.md", told)
    config, workdir = next(one for one in told if one[0].data.directory == "records/example")
    assert workdir == Path("runs/example")
    assert any(config.name == "my_cohort" for config, _ in told)
    records = Records(config.data.directory)
    assert_trainable(records, config)
    assert records.num_cases == 64
    assert records.feature_dim == config.model.encoder.in_dim
    assert list(Path("example/pictures").glob("*.png"))


def test_the_cases_from_python_can_be_trained_on(told):
    test_commands_and_python_of_a_page(ROOT / "docs/bring_your_cohort.md", told)
    records = Records("records/my_cohort")
    assert_trainable(records, unpack(common.get_config()))
    inspect.main(["records/my_cohort", "--workers", "1", "--json", "report.json"])
    (report,) = json.loads(Path("report.json").read_text())["inspections"]
    assert [slide["findings"] for slide in report["slides"]] == [[]] * 40
    assert records.num_cases == 40
    assert records.feature_dim == common.get_config().model.encoder.in_dim


def assert_trainable(records, config):
    records.verify()
    check_selection(records.table, records.sites, config.checkpoint.best)
    fit_transforms(map(records.without_slides, range(len(records))), num_bins=config.data.num_bins)


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "data/README.md", ROOT / "tests/data/README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_linked_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text)
    for link in (link for link in links if "://" not in link):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:configs|data|docs|tests|modaltune_jax)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "folder",
    [
        "modaltune_jax",
        *(
            f"modaltune_jax/{room}"
            for room in (
                *("inputs", "inspection", "packing", "models", "convert", "metrics", "plots"),
                *("evaluation", "reporting", "sweeping"),
            )
        ),
    ],
)
def test_design_names_every_module(folder):
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    modules = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert {name for name in modules if not re.search(rf"\b{name}\b", text)} == set()


def test_results_are_marked_for_their_author():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- results -->\n(.*)<!-- /results -->", readme, re.DOTALL)
    assert block
    assert "docs/results.md" in block[1]


def test_list_of_config_keys_is_current():
    assert list_config_keys.PAGE.read_text(encoding="utf-8") == list_config_keys.page(), (
        "run python -m docs.list_config_keys"
    )


def test_figure_is_current():
    assert draw_data_flow.FIGURE.read_text(encoding="utf-8") == draw_data_flow.figure(), (
        "run python -m docs.draw_data_flow"
    )
