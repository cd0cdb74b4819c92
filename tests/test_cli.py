"""The command line: it writes what Python returns, and a mistake gives one line and exit code 2."""

import errno
import gzip
import os
import pickle
import re
import shlex
import stat
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from pandas.testing import assert_frame_equal
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression

from nmf_features import NegativeBinomial, NMFFeatures, cli, select_components

ENTRY_POINT = Path(sys.executable).with_name("nmf-features")
SUFFIXES = list(cli.WRITERS)


@pytest.fixture
def table():
    """30 rows: text, a column with a comma in its name, a target, and six columns of rank 3 and noise."""
    rng = np.random.default_rng(0)
    values = rng.gamma(1, size=(30, 3)) @ rng.gamma(0.5, size=(3, 6)) + 0.01 * rng.random((30, 6))
    frame = pd.DataFrame(values, columns=["a", "b, c", "d", "e", "f", "g"])
    frame.insert(0, "id", [f"row {i}" for i in range(30)])
    frame.insert(3, "price", rng.normal(size=30))
    return frame


@pytest.fixture
def here(tmp_path, monkeypatch, table):
    """An empty directory to work in, with train.csv."""
    monkeypatch.chdir(tmp_path)
    table.to_csv("train.csv", index=False)
    return tmp_path


def save(frame, path):
    if str(path).endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)


def read(path):
    return pd.read_parquet(path) if str(path).endswith(".parquet") else pd.read_csv(path, **cli.EXACT)


def run(*arguments):
    assert cli.main([str(a) for a in arguments]) == 0


def refused(capsys, *arguments):
    """Run what must fail as a mistake does, leaving nothing new behind; return the one line on stderr."""
    before = sorted(os.listdir())
    assert cli.main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nmf-features: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert sorted(os.listdir()) == before
    return err


def files():
    return sorted(name for name in os.listdir() if name != "train.csv")


# What it computes


def test_select_is_python(here, table, capsys):
    run("select", "train.csv", "--target", "price", "--most", "5", "--shift", "none")
    lines = capsys.readouterr().out.splitlines()
    found = select_components(table.drop(columns=["price"]), range(1, 6), shift=None, random_state=0)
    assert found.n_components == 3  # as the table was made
    assert [line.split()[0] for line in lines if line.endswith("chosen")] == ["3"]
    assert [line.split()[1] for line in lines[1:]] == [f"{error:.3f}" for error in found.summary["error"]]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--target", "nothing"], "--target has ['nothing'], not found in train.csv"),
        (["--most", "0"], "--most is 0; wanted a number of components, 1 or more"),
        (["--variables", "nothing"], "variables has ['nothing'], not found"),
        (["--shift", "none"], "Negative values"),
    ],
)
def test_what_select_refuses(here, capsys, arguments, what):
    assert what in refused(capsys, "select", "train.csv", *arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("fit train.csv --n_components 3 --out o.csv", "no option --n_components; the nearest: --n-components; see"),
        ("fit train.csv --component=3 --out o.csv", "no option --component; the nearest: --n-components"),
        ("fit train.csv -o o.csv", "there is no option -o; see nmf-features fit --help"),
        ("demo --k 3", "there is no option --k; see nmf-features demo --help"),
        (
            "fit train.csv --variables a d --out o.csv",
            "'d' is one argument too many; each column is named by a --target",
        ),
        ("demo train.csv", "'train.csv' is one argument too many; see nmf-features demo --help"),
        ("fit train.csv --target a,d --out o.csv", "['a,d'], not found in train.csv; wanted names of columns among"),
        ("fit train.csv --target a,d --out o.csv", "To name several, repeat --target."),
        ("fit train.csv --variables A --out o.csv", "--variables has ['A'], not found in train.csv"),
    ],
)
def test_wrong_options_and_names(here, capsys, arguments, what):
    assert what in refused(capsys, *arguments.split())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fit_is_transform_is_python(here, table, suffix):
    save(table, f"t{suffix}")
    run("fit", f"t{suffix}", "--n-components", 3, "--target", "price", "--model", "m", "--out", f"fit{suffix}")
    run("transform", f"t{suffix}", "--model", "m", "--out", f"transform{suffix}")

    variables = ["a", "b, c", "d", "e", "f", "g"]
    expected = NMFFeatures(3, variables=variables).fit_transform(table)
    assert expected.columns.tolist() == ["id", "price", "NNMF1", "NNMF2", "NNMF3"]
    assert_frame_equal(read(f"fit{suffix}"), expected, check_exact=True)
    assert Path(f"fit{suffix}").read_bytes() == Path(f"transform{suffix}").read_bytes()
    assert files() == sorted(["m", f"t{suffix}", f"fit{suffix}", f"transform{suffix}"])  # no temporary file


def test_one_output_is_enough(here, capsys):
    run("fit", "train.csv", "--model", "m.skops")
    assert files() == ["m.skops"]
    run("fit", "train.csv", "--out", "OUT.CSV")
    assert files() == ["OUT.CSV", "m.skops"]
    out, err = capsys.readouterr()
    assert out.startswith("2 components of 7 columns, from 30 rows\n  NNMF1 ")
    assert err == ""


def test_defaults_are_those_of_the_estimator(here):
    run("fit", "train.csv", "--model", "m")
    assert skops.io.load("m", trusted=cli.TRUSTED).get_params() == NMFFeatures().get_params()


def test_missing_values_reach_the_estimator(here):
    run("fit", "train.csv", "--n-components", "2", "--missing-values", "ignore", "--model", "m")
    assert skops.io.load("m", trusted=cli.TRUSTED).missing_values == "ignore"


def test_parameters_reach_the_estimator(here):
    given = {
        "n_components": 3,
        "variables": ["b, c", "d", "e"],
        "penalty": 0.002,
        "l1_ratio": 0.25,
        "n_nonzero_loadings": 2,
        "shift": None,
        "scale": None,
        "clip": 0.01,
        "out_of_range": "raise",
        "projection": "linear",
        "loss": 2.0,
        "prefix": "part",
        "n_init": 2,
        "max_iter": 400,
        "tol": 1e-4,
        "random_state": 7,
    }
    elsewhere = {"missing_values", "target_weight", "target_type"}
    assert {*given, *elsewhere} == {*cli.PARAMETERS, "n_components", "variables"}
    assert not any(NMFFeatures().get_params()[name] == value for name, value in given.items())
    options = []
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            options += [f"--{name.replace('_', '-')}", "none" if each is None else each]
    run("fit", "train.csv", "--keep-original", *options, "--model", "m", "--out", "o.csv")

    params = skops.io.load("m", trusted=cli.TRUSTED).get_params()
    assert {name: params[name] for name in given} == given
    assert params["drop_original"] is False
    assert read("o.csv").columns.tolist() == [*read("train.csv").columns, "part1", "part2", "part3"]


def test_targets_are_left_out(here, table):
    run("fit", "train.csv", "--target", "price", "--target", "b, c", "--model", "m", "--out", "o.csv")
    assert skops.io.load("m", trusted=cli.TRUSTED).variables_ == ["a", "d", "e", "f", "g"]
    out = read("o.csv")
    assert out.columns.tolist() == ["id", "b, c", "price", "NNMF1", "NNMF2"]
    assert_frame_equal(out.iloc[:, :3], table[["id", "b, c", "price"]], check_exact=True)


@pytest.mark.parametrize("keep", [[], ["--keep-original"]])
def test_transform_finds_columns_by_name(here, table, keep):
    run("fit", "train.csv", "--target", "price", *keep, "--model", "m", "--out", "o.csv")
    new = table[["g", "e", "b, c", "d", "a", "f"]].assign(note=1.5)  # no id, no price, another order, one more
    save(new, "new.csv")
    run("transform", "new.csv", "--model", "m", "--out", "new_o.csv")
    components = read("o.csv")[["NNMF1", "NNMF2"]]
    others = new if keep else new[["note"]]
    assert_frame_equal(read("new_o.csv"), pd.concat([others, components], axis=1), check_exact=True)


def test_no_components_leave_the_table_as_it_is(here):
    run("fit", "train.csv", "--n-components", 0, "--model", "m", "--out", "o.csv")
    run("transform", "train.csv", "--model", "m", "--out", "o2.csv")
    assert Path("train.csv").read_bytes() == Path("o.csv").read_bytes() == Path("o2.csv").read_bytes()


@pytest.mark.parametrize("name", ["when", None])
def test_parquet_keeps_the_index(here, table, name):
    table.index = pd.date_range("2024-01-01", periods=30, name=name)
    table.to_parquet("t.parquet")
    run("fit", "t.parquet", "--model", "m", "--out", "o.parquet")
    run("transform", "t.parquet", "--model", "m", "--out", "o.csv")
    assert_frame_equal(pd.read_parquet("o.parquet"), NMFFeatures().fit_transform(table), check_freq=False)
    assert read("o.csv").columns.tolist() == ["id", "NNMF1", "NNMF2"]


def test_labels_that_are_not_text(here):
    X = pd.DataFrame(np.random.default_rng(0).random((20, 4)))
    X.to_parquet("t.parquet")
    run("fit", "t.parquet", "--variables", 1, "--variables", 3, "--model", "m", "--out", "o.csv")
    assert read("o.csv").columns.tolist() == ["0", "2", "NNMF1", "NNMF2"]


def test_compressed_output_depends_on_the_table_alone(here):
    run("fit", "train.csv", "--out", "o.csv")
    run("fit", "train.csv", "--out", "o.csv.gz")
    run("fit", "train.csv", "--out", "again.csv.gz")
    assert Path("o.csv.gz").read_bytes() == Path("again.csv.gz").read_bytes()
    header = Path("o.csv.gz").read_bytes()[:10]
    assert header[3] == 16  # a comment, which says the fit, and no name of a temporary file
    assert header[4:8] == bytes(4)  # no time
    assert gzip.decompress(Path("o.csv.gz").read_bytes()) == Path("o.csv").read_bytes()


def test_demo(capsys):
    run("demo")
    out, err = capsys.readouterr()
    assert err == ""
    X, y = load_diabetes(as_frame=True, scaled=False, return_X_y=True)
    nmf = NMFFeatures(5).fit(X)
    assert f"|X - column means|^2: {nmf.score(X):.2f}\n" in out
    assert f"NNMF5  {nmf.explained_[4]:4.0%}   sex {nmf.components_[4, 1]:.2f}, " in out
    assert f"{nmf.transform(X).head(3).round(2).to_string()}\n" in out
    rmse = {name: float(error) for name, error in re.findall(r"^  (.+?) +([0-9.]+) \+- [0-9.]+$", out, re.MULTILINE)}
    assert list(rmse) == ["5 components of NMFFeatures", "5 of PCA, standardised", "all 10 columns"]
    assert 50 < min(rmse.values()) < max(rmse.values()) < 0.75 * y.std()  # any of the three beats the mean by far


def test_the_example_in_the_help_runs(here, table, capsys):
    save(table.drop(columns="price"), "new.csv")
    for line in cli.EXAMPLE.strip().splitlines():
        _, *arguments = shlex.split(line)
        run(*arguments)
    assert read("new_nmf.csv").columns.tolist() == ["id", *[f"NNMF{t}" for t in range(1, 6)]]
    assert len(files()) == 4


@pytest.mark.parametrize("command", [[], ["fit"], ["transform"], ["demo"], ["select"], ["check"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(" ".join(["usage: nmf-features", *command]))
    assert (cli.EXAMPLE in out) == (command not in (["demo"], ["check"]))


def test_installed_command(here):
    done = subprocess.run([ENTRY_POINT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nmf-features {version('nmf-features')}\n"
    done = subprocess.run([ENTRY_POINT, "fit", "no.csv", "--out", "o.csv"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nmf-features: error: there is no file no.csv.\n"


def test_nobody_reads_the_output(here):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [ENTRY_POINT, "fit", "train.csv", "--out", "o.csv"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
    assert files() == ["o.csv"]


# Warnings


def test_warnings_are_one_line_each(here, table, capsys):
    save(table.assign(flat=1.0), "flat.csv")
    for _ in range(2):  # the second time in one process, too
        run("fit", "flat.csv", "--max-iter", 1, "--out", "o.csv")
        constant, convergence = capsys.readouterr().err.splitlines()
        assert constant == "nmf-features: warning: Constant columns carry nothing and get loading 0: ['flat']."
        assert convergence.startswith("nmf-features: warning: NMF stopped at max_iter=1 passes")


def test_warning_of_words_among_numbers(here, table, capsys):
    table["g"] = table["g"].map("{:.2f}".format).where(table.index != 7, "?")
    save(table, "t.csv")
    for command in ("fit t.csv --model m", "fit t.csv --target price --out o.csv", "select t.csv --most 2"):
        run(*command.split())
        line, *_ = capsys.readouterr().err.splitlines()
        assert line.startswith("nmf-features: warning: X has columns that are left out as words")
        assert "'g': \"" in line
        assert "with '?' in row 7" in line


def test_warning_of_values_out_of_range(here, table, capsys):
    run("fit", "train.csv", "--target", "price", "--out-of-range", "warn", "--model", "m")
    save(table.assign(d=-1.0), "low.csv")
    capsys.readouterr()
    run("transform", "low.csv", "--model", "m", "--out", "o.csv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nmf-features: warning: X has values below")
    assert "{'d': 30}" in line


# Mistakes: arguments


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["fit", "--out", "o.csv"], "TABLE"),
        (["fit", "train.csv"], "pass --model FILE, --out TABLE, or both"),
        (["fit", "train.csv", "--out", "o.csv", "--mod", "m"], "no option --mod; the nearest: --model"),
        (["transform", "train.csv", "--out", "o.csv"], "--model"),
        (["transform", "train.csv", "--model", "train.csv"], "--out"),
        *[
            (["fit", "train.csv", "--out", "o.csv", *option], what)
            for option, what in [
                (["--n-components", "two"], "--n-components: invalid int value: 'two'"),
                (["--n-components", "-1"], "'n_components' parameter"),
                (["--penalty", "-1"], "'penalty' parameter"),
                (["--penalty", "nan"], "'penalty' parameter"),
                (["--l1-ratio", "2"], "'l1_ratio' parameter"),
                (["--shift", "max"], "'shift' parameter"),
                (["--shift", "none"], "Negative values"),
                (["--scale", "min"], "'scale' parameter"),
                (["--clip", "0.5"], "'clip' parameter"),
                (["--out-of-range", "none"], "'out_of_range' parameter"),
                (["--projection", "none"], "'projection' parameter"),
                (["--n-init", "0"], "'n_init' parameter"),
                (["--random-state", "-1"], "'random_state' parameter"),
                (["--target", "prize"], "['prize']"),
                (["--variables", "prize"], "['prize']"),
                (["--variables", "id", "--variables", "d"], "not numeric"),
                (["--variables", "d", "--variables", "d"], "each once"),
                (["--variables", "d", "--target", "d"], "share ['d']"),
            ]
        ],
    ],
)
def test_wrong_arguments(here, capsys, arguments, what):
    assert what in refused(capsys, *arguments)


# Mistakes: tables


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("empty.csv", b"", "No columns"),
        ("blank.csv", b"\n\n", "No columns"),
        ("header.csv", b"a,b\n", "has no rows"),
        ("long.csv", b"a,b\n1,2\n3,4,5\n", "cannot read long.csv: Expected 2 fields in line 3, saw 3"),
        ("all_long.csv", b"a,b\n1,2,3\n4,5,6\n7,8,10\n", "more fields than the header's 2"),
        ("first_long.csv", b"a,b\n1,2,3\n4,5\n7,8\n", "more fields than the header's 2"),
        ("short.csv", b"a,b,c\n1,2,x\n3,5,\n\n5,6\n", "line 5 has 2 fields, the header 3"),
        ("quote.csv", b'a,b\n1,2\n3,"4\n', "EOF inside string"),
        ("twice.csv", b"a,b,a\n1,2,3\n4,5,7\n", "duplicated column names: ['a']"),
        ("semicolon.csv", b"a;b\n1,5;2\n3;4\n", "separated by commas"),
        ("latin.csv", "a,é\n1,2\n3,5\n".encode("latin-1"), "codec can't decode"),
        ("binary.csv", bytes(range(128, 256)), "cannot read binary.csv"),
        ("numbers.csv", b",a,b\n0,1,2\n1,2,1\n2,0,1\n", '--target "Unnamed: 0"'),
        ("nan.csv", b"a,b\n1,2\n3,NA\n", "{'b': 1}"),
        ("text.csv", b"a,b\nx,y\nz,w\n", "no numeric column"),
        ("plain.csv.gz", b"a,b\n1,2\n3,5\n", "cannot read plain.csv.gz"),
        ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-20], "cannot read cut.csv.gz"),
        ("empty.parquet", b"", "cannot read empty.parquet"),
        ("csv.parquet", b"a,b\n1,2\n3,5\n", "cannot read csv.parquet"),
        ("table.xlsx", b"a,b\n1,2\n3,5\n", "wanted a name ending in .csv, .csv.gz, .parquet"),
        ("csv", b"a,b\n1,2\n3,5\n", "wanted a name ending in"),
    ],
)
@pytest.mark.filterwarnings("ignore::pandas.errors.ParserWarning")  # the command itself must make it an error
def test_unusable_table(here, capsys, name, content, what):
    Path(name).write_bytes(content)
    assert what in refused(capsys, "fit", name, "--model", "m", "--out", "o.csv")


def test_usable_oddities(here):
    """What looks ragged and is not: a byte order mark, blank lines, CRLF, missing cells that are passed through."""
    rows = "".join(f"{i},{i * i % 7},{'' if i % 2 else 'x'}\r\n" for i in range(9))
    Path("t.csv").write_bytes(f"\ufeffa,b,c\r\n{rows}  \r\n\r\n".encode())
    run("fit", "t.csv", "--n-components", 1, "--out", "o.csv")
    out = read("o.csv")
    assert out.columns.tolist() == ["c", "NNMF1"]
    assert out["c"].isna().tolist() == [i % 2 == 1 for i in range(9)]


def test_row_numbers_can_be_left_out(here, table):
    table.to_csv("t.csv")  # with pandas' index
    run("fit", "t.csv", "--target", "Unnamed: 0", "--model", "m", "--out", "o.csv")
    assert read("o.csv").columns.tolist() == ["Unnamed: 0", "id", "NNMF1", "NNMF2"]
    run("fit", "t.csv", "--variables", "d", "--variables", "e", "--model", "m2")


def test_missing_table(here, capsys):
    assert "no file no.csv" in refused(capsys, "fit", "no.csv", "--model", "m")
    Path("folder.csv").mkdir()
    assert "folder.csv has no file of a known kind" in refused(capsys, "fit", "folder.csv", "--model", "m")
    run("fit", "train.csv", "--model", "m")
    capsys.readouterr()
    assert "no file no.csv" in refused(capsys, "transform", "no.csv", "--model", "m", "--out", "o.csv")
    assert "no file no.skops" in refused(capsys, "transform", "train.csv", "--model", "no.skops", "--out", "o.csv")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.drop(columns=["d", "b, c"]), "lacks the columns ['b, c', 'd']"),
        (lambda t: t.assign(d="x"), "not numeric"),
        (lambda t: t.assign(d=t["d"].where(t.index != 3)), "{'d': 1}"),
        (lambda t: t.assign(d=-1.0), "below what was seen in training"),
        (lambda t: t.assign(NNMF2=1.0), "columns ['NNMF2'], named like the components"),
        (lambda t: t.iloc[:0], "no rows"),
    ],
)
def test_unusable_new_rows(here, table, capsys, change, what):
    run("fit", "train.csv", "--target", "price", "--out-of-range", "raise", "--model", "m")
    capsys.readouterr()
    save(change(table), "new.csv")
    assert what in refused(capsys, "transform", "new.csv", "--model", "m", "--out", "o.csv")


def test_out_of_memory(here, capsys, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(cli, "nnmf", full)
    assert "Unable to allocate 7 TiB" in refused(capsys, "fit", "train.csv", "--model", "m")


@pytest.mark.parametrize(
    ("package", "extra", "out"), [("skops", "skops", "o.csv"), ("pyarrow", "parquet", "o.parquet")]
)
def test_extras_that_are_not_installed(here, capsys, monkeypatch, package, extra, out):
    Path("t.parquet").touch()
    Path("m").touch()
    monkeypatch.setitem(sys.modules, package, None)
    way_out = f'pip install "nmf-features[{extra}]"'
    assert way_out in refused(capsys, "fit", "train.csv", "--model", "m2", "--out", out)
    assert way_out in refused(capsys, "transform", "t.parquet", "--model", "m", "--out", out)


def test_csv_needs_no_extra(here):
    """In a process of its own, because pandas remembers whether there was pyarrow when it was imported."""
    program = """
import sys
sys.modules.update(dict.fromkeys(["pyarrow", "skops", "matplotlib", "polars", "dask"]))
from nmf_features import cli
sys.exit(cli.main(["fit", "train.csv", "--out", "o.csv"]))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert read("o.csv").columns.tolist() == ["id", "NNMF1", "NNMF2"]


# Mistakes: outputs


@pytest.mark.parametrize("name", ["no/o.csv", "folder.csv", "train.csv/o.csv"])
def test_unwritable_output(here, capsys, monkeypatch, name):
    Path("folder.csv").mkdir()
    monkeypatch.setattr(cli, "nnmf", None)  # found before anything is computed
    reason = "it exists and is not a file" if name == "folder.csv" else "there is no directory"
    assert f"cannot write {name}: {reason}" in refused(capsys, "fit", "train.csv", "--out", name)
    assert "cannot write no/m: there is no directory" in refused(
        capsys, "fit", "train.csv", "--out", "o.csv", "--model", "no/m"
    )


@pytest.mark.parametrize("protected", ["closed", "o.csv"])
def test_output_without_permission(here, capsys, monkeypatch, protected):
    Path("closed").mkdir()
    Path("o.csv").touch()
    allowed = os.access  # root may write anywhere, so ask for what others would be told
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != protected and allowed(path, mode))
    monkeypatch.setattr(cli, "nnmf", None)
    name = "closed/o.csv" if protected == "closed" else "o.csv"
    assert f"cannot write {name}: Permission denied" in refused(capsys, "fit", "train.csv", "--out", name)


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs /dev/null")
def test_device_is_not_replaced(here, capsys):
    assert "not a file" in refused(capsys, "fit", "train.csv", "--model", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_wrong_output_names(here, capsys):
    assert "wanted a name ending in" in refused(capsys, "fit", "train.csv", "--out", "o.xlsx")
    assert "is the name of a table" in refused(capsys, "fit", "train.csv", "--model", "test.csv")


@pytest.mark.parametrize("same", [lambda p: Path(p), os.path.abspath, lambda p: f"../{Path.cwd().name}/{p}"])
def test_output_is_an_input(here, capsys, same):
    run("fit", "train.csv", "--model", "m")
    os.rename("m", "m.csv")  # else its name alone would tell that it is no table
    capsys.readouterr()
    before = Path("train.csv").read_bytes()
    assert "are one file" in refused(capsys, "fit", "train.csv", "--out", same("train.csv"))
    assert "are one file" in refused(capsys, "fit", "train.csv", "--model", same("train.csv"))
    assert "are one file" in refused(capsys, "fit", "train.csv", "--model", "new.csv", "--out", same("new.csv"))
    assert "are one file" in refused(capsys, "transform", "train.csv", "--model", "m.csv", "--out", same("train.csv"))
    assert "are one file" in refused(capsys, "transform", "train.csv", "--model", "m.csv", "--out", same("m.csv"))
    assert Path("train.csv").read_bytes() == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_output_is_a_link_to_an_input(here, capsys, link):
    link("train.csv", "o.csv")
    assert "are one file" in refused(capsys, "fit", "train.csv", "--out", "o.csv")


# Outputs are whole or not at all


def half_a_table(error):
    def write(table, handle):
        handle.write(b"id,NN")
        handle.flush()
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: cannot write o.csv: No space left on device"),
        (ValueError("no such type"), 2, "error: cannot write o.csv: no such type"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failure_in_the_middle_of_writing(here, capsys, monkeypatch, error, code, says):
    Path("o.csv").write_text("old")
    Path("m").write_text("old")
    monkeypatch.setitem(cli.WRITERS, ".csv", half_a_table(error))
    assert cli.main(["fit", "train.csv", "--model", "m", "--out", "o.csv"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"nmf-features: {says}\n")
    assert files() == ["m", "o.csv"]
    assert Path("o.csv").read_text() == Path("m").read_text() == "old"


def test_a_bug_keeps_its_traceback_and_leaves_no_file(here, monkeypatch):
    monkeypatch.setitem(cli.WRITERS, ".csv", half_a_table(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fit", "train.csv", "--model", "m", "--out", "o.csv"])
    assert files() == []


def test_output_appears_in_one_step(here, monkeypatch):
    """Until it is complete and on disk, the new table is in another file of the same directory."""
    Path("sub").mkdir()
    Path("sub/o.csv").write_text("old")
    steps = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor):
        (temporary,) = set(os.listdir("sub")) - {"o.csv"}
        assert os.path.samestat(os.fstat(descriptor), os.stat(f"sub/{temporary}"))
        steps.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def watch_replace(source, target):
        assert Path("sub/o.csv").read_text() == "old"
        steps.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setitem(cli.WRITERS, ".csv", lambda table, handle: handle.write(b"complete"))
    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    run("fit", "train.csv", "--out", "sub/o.csv")
    assert Path("sub/o.csv").read_text() == "complete"
    assert steps == [("fsync", len("complete")), ("replace", len("complete"))]
    assert os.listdir("sub") == ["o.csv"]


def test_interrupted_while_computing(here, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "nnmf", interrupted)
    assert cli.main(["fit", "train.csv", "--model", "m", "--out", "o.csv"]) == 130
    assert capsys.readouterr().err == "nmf-features: interrupted\n"
    assert files() == []


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_permissions(here, umask):
    def mode(path):
        return stat.S_IMODE(Path(path).stat().st_mode)

    Path("private.csv").touch()
    Path("private.csv").chmod(0o600)
    before = os.umask(umask)
    try:
        run("fit", "train.csv", "--model", "m", "--out", "o.csv")
        run("fit", "train.csv", "--out", "private.csv")
    finally:
        os.umask(before)
    assert mode("o.csv") == mode("m") == 0o666 & ~umask
    assert mode("private.csv") == 0o600
    assert Path("private.csv").stat().st_size > 0


@pytest.mark.parametrize("there", [True, False])
def test_link_stays_a_link(here, there):
    Path("disk").mkdir()
    if there:
        Path("disk/o.csv").write_text("old")
    os.symlink("disk/o.csv", "o.csv")
    run("fit", "train.csv", "--out", "o.csv")
    assert os.readlink("o.csv") == "disk/o.csv"
    assert os.listdir("disk") == ["o.csv"]
    assert len(read("disk/o.csv")) == 30


# Model files that are none, or hold more than a model


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("hacked"),)


def fitted(table, **state):
    model = NMFFeatures().fit(table)
    vars(model).update(state)
    return model


REFUSED = "m.skops is refused: a model of nmf-features does not hold the types "
MODELS = {
    "empty": (lambda table: b"", "is not a model"),
    "table": (lambda table: table.to_csv().encode(), "is not a model"),
    "pickle": (lambda table: pickle.dumps(fitted(table, extra=Payload())), "pickles are never loaded"),
    "cut": (lambda table: skops.io.dumps(fitted(table))[:-99], "is not a model"),
    "damaged": (lambda table: skops.io.dumps(fitted(table)).replace(b"__class__", b"__klass__"), "cannot read a model"),
    "other zip": (lambda table: skops.io.dumps([1]).replace(b"schema.json", b"schema.jpeg"), "cannot read a model"),
    "untrusted type": (lambda table: skops.io.dumps(Fraction(1, 2)), f"{REFUSED}['fractions.Fraction']"),
    "untrusted part": (
        lambda table: skops.io.dumps(fitted(table, extra=Fraction(1, 2))),
        f"{REFUSED}['fractions.Fraction']",
    ),
    "untrusted function": (
        lambda table: skops.io.dumps(fitted(table, extra=os.system)),
        f"{REFUSED}['{os.name}.system']",
    ),
    "other model": (lambda table: skops.io.dumps(LogisticRegression()), "holds a LogisticRegression; wanted NMF"),
    "list": (lambda table: skops.io.dumps([NMFFeatures()]), "holds a list; wanted NMFFeatures"),
    "not fitted": (lambda table: skops.io.dumps(NMFFeatures()), "cannot be used"),
    "array": (lambda table: skops.io.dumps(NMFFeatures().fit(table[["d", "e"]].to_numpy())), "cannot be used"),
    "other version": (lambda table: skops.io.dumps(fitted(table, scaling_={})), "cannot be used"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_unusable_model(here, table, capsys, kind):
    content, what = MODELS[kind]
    Path("m.skops").write_bytes(content(table))
    line = refused(capsys, "transform", "train.csv", "--model", "m.skops", "--out", "o.csv")
    assert what in line
    assert "m.skops" in line


def test_skops_is_told_what_to_trust(here, capsys, monkeypatch):
    """Should our own look at the types miss one, skops still refuses it."""
    Path("m").write_bytes(skops.io.dumps(Fraction(1, 2)))
    monkeypatch.setattr(skops.io, "get_untrusted_types", lambda data: [])
    line = refused(capsys, "transform", "train.csv", "--model", "m", "--out", "o.csv")
    assert "cannot read a model from m: Untrusted types" in line


def test_model_holds_what_is_trusted_and_no_more(here, table):
    run("fit", "train.csv", "--random-state", 1, "--model", "m")
    assert skops.io.get_untrusted_types(file="m") == ["nmf_features.estimator.NMFFeatures"]
    model = skops.io.load("m", trusted=cli.TRUSTED)
    assert_frame_equal(model.transform(table), NMFFeatures().fit_transform(table), check_exact=True)


def test_model_with_a_loss_of_ours_is_trusted(here, table):
    fitted = NMFFeatures(2, loss=NegativeBinomial(0.5), scale="mean").fit(table)
    skops.io.dump(fitted, "m")
    run("transform", "train.csv", "--model", "m", "--out", "out.csv")
    assert_frame_equal(pd.read_csv("out.csv"), fitted.transform(table))
