"""What README.md says works: its Python blocks run in order, its commands, images and files exist."""

import contextlib
import io
import re
import shlex
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from nmf_features.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Code of the blocks in one language, and the number of the line before each."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [(block[1], README.count("\n", 0, block.start(1))) for block in found]


COMMANDS = [line for code, _ in blocks("sh") for line in code.splitlines()]
COMMANDS += re.findall(r"`((?:make|nmf-features|pip|python) [^`]+)`", README)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Names that the Python blocks leave behind, run one after the other in an empty folder, and what they print."""
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with (
        contextlib.chdir(tmp_path_factory.mktemp("readme")),
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        # feature-engine up to 1.9.4 calls DataFrame.drop with a keyword that pandas 3.1 is about to drop.
        warnings.filterwarnings("ignore", "The inplace keyword in DataFrame.drop", DeprecationWarning, "feature_engine")
        for code, line in blocks("python"):
            exec(compile("\n" * line + code, "README.md", "exec"), names)
    return names, printed.getvalue().splitlines()


def test_printed_as_the_comments_say(told):
    _, printed = told
    comments = re.findall(r"^print\(.*\)  # (\[.*\]|\d+)$", README, flags=re.MULTILINE)
    assert len(comments) == 3
    assert [line for line in printed if re.fullmatch(r"\[.*\]|\d+", line)] == comments


def test_pipeline(told):
    names, _ = told
    assert names["X"].isna().any().sum() == 2  # the quick start has cells to impute, of both kinds
    assert names["features"].index.equals(names["X_test"].index)
    assert set(names["features"]["sex_a"]) == {0, 1}  # passed through, neither scaled nor factorised
    assert (names["features"].filter(like="NNMF") >= 0).all(axis=None)
    error = np.square(names["predicted"] - names["y_test"]).mean()
    assert error < 0.8 * names["y_test"].var()  # four components of nine columns keep what predicts


def test_search(told):
    names, printed = told
    search, grid = names["search"], names["grid"]
    assert all(search.best_params_[name] in values for name, values in grid.items())
    assert str(search.best_params_) in printed
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()  # no fit of the grid failed


def test_objective(told):
    names, printed = told
    # Both are sums of about 2,000 terms of one sign in float64: 1e-12 is far above their rounding.
    [difference] = re.findall(r"^(-?\d\.\S+)$", "\n".join(printed), flags=re.MULTILINE)
    assert abs(float(difference)) < 1e-12 * names["nmf"].objective_
    assert_allclose(names["H"].sum(axis=1), 1, rtol=1e-12)  # "the loadings of a component add up to 1"
    totals = names["W"].sum().to_numpy()
    assert (np.diff(totals) <= 0).all()  # "the component with the largest total comes first"


def test_missing_cells_are_filled_in(told):
    names, _ = told
    holes, filled = names["holes"], names["filled"]
    assert holes.isna().any(axis=None)
    assert filled.notna().all(axis=None)
    assert filled.where(holes.notna()).equals(holes)


def test_loaded_model_is_the_saved_one(told):
    names, _ = told
    assert names["nmf"].transform(names["df"]).equals(names["W"])


def test_there_are_commands():
    assert {command.split()[0] for command in COMMANDS} == {"make", "nmf-features", "pip", "python"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command, capsys):
    program, *arguments = shlex.split(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in arguments if not word.startswith("ARGS=")]
        assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = re.findall(r"\w+", "".join(re.findall(r"\.\[(.+)\]", arguments[-1])))
        assert set(extras) <= set(project["optional-dependencies"])
    else:
        with pytest.raises(SystemExit) as end:  # argparse leaves with 0 once it has printed the help
            main([arguments[0], "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert [option for option in arguments if option.startswith("--") and option not in text] == []


def test_files_exist():
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert images
    assert [path for path in links if not (ROOT / path).is_file()] == []  # images are links too
