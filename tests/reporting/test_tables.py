"""The table of methods, from made-up runs whose values are known."""

import json

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import case_scores, report
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.reporting import published, tables
from modaltune_jax.reporting.cells import difference
from modaltune_jax.reporting.rows import FAMILIES, METHODS, find_runs
from modaltune_jax.types import InputError

NUM_CASES = 60


def write_run(folder, model, site, seed, *, methods, skill, terms=("cross_entropy",), sites=()):
    """A run folder whose predictions are right with a chance of `skill`."""
    rng = np.random.default_rng([seed, int(100 * skill), len(site)])
    truth = np.random.default_rng(len(site))
    label, time = truth.integers(0, 2, NUM_CASES), truth.exponential(20, NUM_CASES)
    event = truth.integers(0, 2, NUM_CASES)
    blocks = []
    for target, method in methods:
        is_subtype = target == "subtype"
        right = np.where(rng.random(NUM_CASES) < skill, label, 1 - label)
        risk = -skill * time + (1 - skill) * 20 * rng.normal(size=NUM_CASES)
        blocks.append(
            pd.DataFrame(
                {
                    **{"case_id": [f"{site}-{i:02}" for i in range(NUM_CASES)], "split": "test"},
                    **{"site": site, "target": target, "task": "general", "method": method, "scope": site},
                    **{"label": label if is_subtype else -1, "time": time, "event": event},
                    **{"predicted": right if is_subtype else risk, "reason": ""},
                }
            )
        )
    frame = pd.concat(blocks)
    for other in sites:
        frame = pd.concat([frame, frame[frame["scope"] == site].assign(site=other, scope=other)])
    folder = folder / f"seed{seed}"
    folder.mkdir(parents=True)
    loss = {term: {"weight": 1.0} for term in terms}
    config = {"model": model, "loss": loss | {"uncertainty": False}}
    (folder / "config.json").write_text(json.dumps(config))
    case_scores.write(folder / case_scores.NAME, frame[list(case_scores.COLUMNS)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """ABMIL on labels and ModalTune on sentences, two cohorts each, two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    modaltune = {"encoder": {"name": "longnet"}}
    probes = [("subtype", "probe"), ("survival", "probe")]
    for site in ("brca", "nsclc"):
        for seed in (0, 1):
            write_run(
                folder / f"{site}_abmil_subtype" / "full",
                {"name": "abmil"},
                site,
                seed,
                methods=[("subtype", "classes"), *probes],
                skill=0.6,
            )
            write_run(
                folder / f"{site}_modaltune" / "full",
                modaltune,
                site,
                seed,
                methods=probes,
                skill=0.95,
                terms=("distillation",),
            )
    return folder


def test_every_baseline_has_a_row_and_every_row_a_title():
    from modaltune_jax.models.baselines import BASELINES

    # A baseline that trains nothing may have a row of its own.
    assert {name.removesuffix("_probe") for name in METHODS} >= set(BASELINES)
    assert {family for family, _ in METHODS.values()} == set(FAMILIES)


def test_published_rows_are_of_methods_and_their_mean():
    for target, table in published._TABLES.items():
        assert set(table) <= set(METHODS)
        for method, values in table.items():
            # The paper's own last column is a mean of values that it rounds for print.
            assert np.mean(values[:4]) == pytest.approx(values[4], abs=0.0011), (target, method)
    assert published.published("subtype", "abmil", "blca") is None


def test_rows_are_methods_and_cells_are_means_over_seeds(runs):
    table = tables.compare(find_runs([runs]), "subtype", num_draws=200)
    assert [row.label for row in table.cells] == ["ABMIL", "ModalTune"]
    assert table.columns == ("brca", "nsclc", "overall")
    cell = table.cells[table.against]["brca"]
    assert (len(cell.values), len(cell.cases)) == (2, NUM_CASES)
    assert 0.85 < cell.interval[0] < cell.mean < cell.interval[1] <= 1.0


def test_a_baseline_is_not_asked_about_what_it_was_not_trained_for(runs):
    table = tables.compare(find_runs([runs]), "survival", num_draws=50)
    assert [row.label for row in table.cells] == ["ModalTune"]
    cell = next(iter(table.cells.values()))["brca"]
    scores = case_scores.read(runs / "brca_modaltune" / "full" / "seed0" / case_scores.NAME)
    rows = scores[scores["target"] == "survival"]
    alone = harrell_c(
        rows["predicted"].to_numpy(), rows["time"].to_numpy(), rows["event"].to_numpy().astype(int)
    )
    assert cell.values[0] == alone.value
    assert cell.num_events == alone.num_events


def test_overall_is_the_mean_over_sites_seed_by_seed(runs):
    table = tables.compare(find_runs([runs]), "subtype", num_draws=50)
    for cells in table.cells.values():
        sites = [cells[site].values for site in table.sites]
        np.testing.assert_allclose(cells["overall"].values, np.mean(sites, axis=0))
        assert len(cells["overall"].cases) == 2 * NUM_CASES


def test_difference_is_paired_and_clear_where_models_are_far_apart(runs):
    table = tables.compare(find_runs([runs]), "subtype", num_draws=300)
    abmil, modaltune = table.cells.values()
    gap = difference(abmil["overall"], modaltune["overall"])
    assert gap.value == pytest.approx(abmil["overall"].mean - modaltune["overall"].mean)
    assert gap.low < gap.value < gap.high < 0
    assert gap.is_clear
    same = difference(modaltune["brca"], modaltune["brca"])
    assert (same.value, same.low, same.high, same.is_clear) == (0.0, 0.0, 0.0, False)


def test_a_site_without_a_run_leaves_a_gap_and_no_overall(runs, tmp_path):
    write_run(
        tmp_path / "mcat" / "full",
        {"name": "mcat"},
        "brca",
        0,
        methods=[("subtype", "classes")],
        skill=0.7,
    )
    table = tables.compare(find_runs([runs, tmp_path]), "subtype", num_draws=50)
    mcat = next(cells for row, cells in table.cells.items() if row.method == "mcat")
    assert np.isnan(mcat["overall"].mean)
    assert mcat["overall"].reason == "without nsclc"
    line = next(line for line in tables.to_markdown(table).splitlines() if "MCAT" in line)
    assert line.endswith("| - (0.921) | - |")  # the paper's mean is over other sites


def test_markdown_has_blocks_numbers_and_the_papers_values(runs):
    table = tables.compare(find_runs([runs]), "subtype", num_draws=50)
    lines = tables.to_markdown(table).splitlines()
    assert lines[4] == f"| cases | {NUM_CASES} | {NUM_CASES} | {2 * NUM_CASES} |"
    assert lines[5].startswith("| **Slides** |")
    assert "(0.853)" in lines[6]
    assert "▼" in lines[6]
    assert "(0.853)" not in tables.to_markdown(table, with_published=False)


def test_two_experiments_of_one_row_are_refused(runs, tmp_path):
    write_run(
        tmp_path / "again" / "full",
        {"name": "abmil"},
        "brca",
        0,
        methods=[("subtype", "classes")],
        skill=0.6,
    )
    with pytest.raises(InputError, match="are both 'ABMIL' of brca"):
        tables.compare(find_runs([runs, tmp_path]), "subtype")


def test_seeds_with_other_cases_are_refused(tmp_path):
    for seed in (0, 1):
        write_run(
            tmp_path / "x" / "full",
            {"name": "abmil"},
            "brca",
            seed,
            methods=[("subtype", "classes")],
            skill=0.6,
        )
    path = tmp_path / "x" / "full" / "seed1" / case_scores.NAME
    case_scores.write(path, case_scores.read(path).iloc[1:])
    with pytest.raises(InputError, match="have other test cases at brca"):
        tables.compare(find_runs([tmp_path]), "subtype")


def test_command_writes_tables_and_figures(runs, tmp_path, capsys):
    report.main(["table", str(runs), "--out", str(tmp_path / "out"), "--draws", "50"])
    printed = capsys.readouterr().out
    assert "8 finished runs" in printed
    assert "**survival**, Harrell's c on test" in printed
    frame = pd.read_csv(tmp_path / "out" / "table_subtype.csv")
    assert set(frame["site"]) == {"brca", "nsclc", "overall"}
    assert (frame["num_cases"] > 0).all()
    latex = (tmp_path / "out" / "table_survival.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "forest_subtype.png",
        "forest_survival.png",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--sites", "coadread"], "no run has coadread", id="unknown site"),
        pytest.param(["--against", "Nobody"], "no row is called 'Nobody'", id="unknown row"),
        pytest.param(["--draws", "0"], "must be 1 or more", id="no draws"),
    ],
)
def test_wrong_flags_are_named(runs, flags, message, tmp_path):
    with pytest.raises(InputError, match=message):
        report.main(["table", str(runs), "--out", str(tmp_path), *flags])


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        report.main(["table", str(tmp_path)])
