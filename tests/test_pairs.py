"""A table and a model of one fit are recognised, and of two fits refused, whatever happened when they were written."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet
import pytest
import skops.io
from pandas.testing import assert_frame_equal
from sklearn.datasets import load_wine

from nmf_features import NMFFeatures, cli, pairs

SUFFIXES = list(cli.WRITERS)
MARKED = [suffix for suffix in SUFFIXES if suffix != ".csv"]
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory to work in, with two training tables."""
    monkeypatch.chdir(tmp_path)
    X = load_wine(as_frame=True).data
    X.head(100).to_csv("old.csv", index=False)
    X.tail(100).to_csv("new.csv", index=False)
    return tmp_path


def run(*arguments):
    assert cli.main([str(a) for a in arguments]) == 0


def fit(table, suffix, model="m"):
    run("fit", table, "--model", model, "--out", f"o{suffix}")


def checked(capsys, suffix, model="m"):
    """Check a pair; return what is printed if it is of one fit, else the mistake."""
    capsys.readouterr()
    code = cli.main(["check", f"o{suffix}", "--model", model])
    out, err = capsys.readouterr()
    assert code == (2 if err else 0)
    return out + err


@each_suffix
def test_one_fit(here, capsys, suffix):
    fit("old.csv", suffix)
    assert checked(capsys, suffix) == f"o{suffix} and m are of one fit.\n"


@each_suffix
@pytest.mark.parametrize("stale", ["model", "table"])
def test_two_fits(here, capsys, suffix, stale):
    fit("old.csv", suffix)
    shutil.copy("m" if stale == "model" else f"o{suffix}", "kept")
    fit("new.csv", suffix)
    assert "of one fit" in checked(capsys, suffix)
    shutil.copy("kept", "m" if stale == "model" else f"o{suffix}")
    says = "one of them is of another fit, or the table was changed" if suffix == ".csv" else "of different fits"
    assert says in checked(capsys, suffix)


@pytest.mark.parametrize("suffix", MARKED)
def test_tables_that_transform_wrote(here, capsys, suffix):
    run("fit", "old.csv", "--model", "m")
    run("fit", "new.csv", "--model", "m2")
    run("transform", "new.csv", "--model", "m", "--out", f"o{suffix}")
    assert "of one fit" in checked(capsys, suffix)
    assert "of different fits" in checked(capsys, suffix, "m2")
    if suffix == ".parquet":  # a marked table that goes on has the mark of what it became
        run("fit", f"o{suffix}", "--model", "m3", "--out", "again.parquet")
        assert pairs.mark_of("again.parquet") == pairs.comment_of("m3")[0] != pairs.comment_of("m")[0]


@pytest.mark.parametrize("suffix", MARKED)
def test_transform_says_that_a_table_is_of_another_fit(here, capsys, suffix):
    run("fit", "old.csv", "--model", "m", "--keep-original", "--out", f"o{suffix}")
    run("fit", "new.csv", "--model", "other", "--keep-original", "--prefix", "P")
    capsys.readouterr()
    run("transform", f"o{suffix}", "--model", "other", "--out", "both.csv")
    says = f"nmf-features: warning: o{suffix} was written with another fit than other: what it holds of that one passes"
    assert capsys.readouterr().err.startswith(says)
    assert {"NNMF1", "P1"} <= {*pd.read_csv("both.csv")}
    run("transform", "old.csv", "--model", "other", "--out", f"p{suffix}")
    assert capsys.readouterr().err == ""


def test_the_id_is_that_of_what_was_found(here):
    X = pd.read_csv("old.csv")
    ids = [pairs.fit_id(NMFFeatures(**p).fit(x)) for p, x in [({}, X), ({}, X), ({"prefix": "P"}, X), ({}, X + 1)]]
    assert ids[0] == ids[1]
    assert len({*ids}) == 3
    with_numbers, empty = NMFFeatures(2).fit(X.to_numpy()), NMFFeatures(0).fit(X)
    assert len({ids[0], pairs.fit_id(with_numbers), pairs.fit_id(empty)}) == 3
    nmf = NMFFeatures().fit(X)
    assert pairs.fit_id(nmf.set_params(projection="linear")) not in ids


# Marks disturb nobody


def test_other_readers_of_parquet(here):
    fit("old.csv", ".parquet")
    expected = NMFFeatures().fit_transform(pd.read_csv("old.csv"))
    assert_frame_equal(pd.read_parquet("o.parquet"), expected)
    assert_frame_equal(pl.read_parquet("o.parquet").to_pandas(), expected)
    assert pyarrow.parquet.read_table("o.parquet").column_names == expected.columns.tolist()


def test_other_readers_of_gzip(here):
    fit("old.csv", ".csv.gz")
    run("fit", "old.csv", "--out", "o.csv")
    plain, compressed = Path("o.csv").read_bytes(), Path("o.csv.gz").read_bytes()
    assert gzip.decompress(compressed) == zlib.decompress(compressed, wbits=31) == plain
    assert_frame_equal(pl.read_csv("o.csv.gz").to_pandas(), pd.read_csv("o.csv"))
    if shutil.which("gzip"):
        assert subprocess.run(["gzip", "-dc", "o.csv.gz"], capture_output=True, check=True).stdout == plain
        subprocess.run(["gzip", "-t", "o.csv.gz"], check=True)


def test_gzip_without_a_mark_is_what_gzip_writes(tmp_path):
    data = np.random.default_rng(0).integers(0, 9, 100_000).astype(np.uint8).tobytes()
    for name, kind in {"ours": pairs.MarkedGzip, "theirs": None}.items():
        with open(tmp_path / name, "wb") as handle:
            file = kind(handle, None) if kind else gzip.GzipFile("", "wb", fileobj=handle, mtime=0)
            with file:
                file.write(data[:7])
                file.write(data[7:])
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_gzip_with_other_fields(tmp_path):
    """Those of RFC 1952 that stand before the comment."""
    path, fields = tmp_path / "t.csv.gz", b"\x03\0abcname.csv\0"
    path.write_bytes(b"\x1f\x8b\x08" + bytes([4 + 8 + 16]) + bytes(6) + fields + b"nmf_features_fit 12ab\0")
    assert pairs.mark_of(path) == "12ab"
    path.write_bytes(b"\x1f\x8b\x08" + bytes([4 + 8 + 16]) + bytes(6) + fields + b"a comment\0")
    assert pairs.mark_of(path) is None
    path.write_bytes(b"\x1f\x8b\x08" + bytes([16]) + bytes(6) + b"nmf_features_fit 12")  # cut off
    assert pairs.mark_of(path) == "12"
    path.write_bytes(gzip.compress(b"a,b\n"))
    assert pairs.mark_of(path) is None


def test_skops_reads_a_model_with_a_comment(here):
    fit("old.csv", ".csv")
    assert skops.io.get_untrusted_types(file="m") == ["nmf_features.estimator.NMFFeatures"]
    nmf = skops.io.load("m", trusted=cli.TRUSTED)
    assert pairs.comment_of("m")[0] == pairs.fit_id(nmf)


# What cannot be said


@each_suffix
def test_a_table_that_was_written_again(here, capsys, suffix):
    """Without a mark, a changed table cannot be told from one of another fit."""
    fit("old.csv", suffix)
    if suffix == ".parquet":
        pl.read_parquet("o.parquet").with_columns(more=1).write_parquet("o.parquet")
    else:
        pd.read_csv(f"o{suffix}").assign(more=1).to_csv(f"o{suffix}", index=False)
    assert "or the table was changed since" in checked(capsys, suffix)


def test_a_model_that_fit_did_not_write(here, capsys):
    fit("old.csv", ".csv")
    skops.io.dump(NMFFeatures().fit(pd.read_csv("old.csv")), "m")
    assert "m does not say which fit it is of" in checked(capsys, ".csv")
    run("transform", "new.csv", "--model", "m", "--out", "t.csv.gz")
    assert pairs.mark_of("t.csv.gz") is None
    pd.read_csv("new.csv").pipe(pairs.marked, "of another fit").to_parquet("marked.parquet")
    run("transform", "marked.parquet", "--model", "m", "--out", "t.parquet")
    assert pairs.mark_of("t.parquet") is None
    run("fit", "old.csv", "--model", "m")  # without a table
    assert "or the table was changed since" in checked(capsys, ".csv")


def test_what_check_refuses(here, capsys):
    fit("old.csv", ".csv")
    for arguments, what in [
        (["no.csv", "--model", "m"], "there is no file no.csv"),
        (["o.csv", "--model", "no"], "there is no file no"),
        (["o.csv", "--model", "old.csv"], "old.csv is not a model"),
        (["m", "--model", "m"], "not named like a table"),
    ]:
        assert cli.main(["check", *arguments]) == 2
        assert what in capsys.readouterr().err
    Path("bad.parquet").write_bytes(b"PAR1 and no more")
    assert cli.main(["check", "bad.parquet", "--model", "m"]) == 2
    assert "cannot read bad.parquet" in capsys.readouterr().err


# Killed, full, disturbed


def in_a_process(program, *arguments):
    """Run the command after a program that changes the process."""
    code = f"{program}\nimport sys\nfrom nmf_features import cli\nsys.exit(cli.main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


KILLED = """
import os, signal
replace, calls = os.replace, []
def killed(source, target):
    calls.append(target)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be handled")
@each_suffix
def test_killed_between_the_two_moves(here, capsys, suffix):
    fit("old.csv", suffix)
    before = Path("m").read_bytes(), Path(f"o{suffix}").read_bytes()
    done = in_a_process(KILLED, "fit", "new.csv", "--model", "m", "--out", f"o{suffix}")
    assert done.returncode == -signal.SIGKILL
    assert [Path("m").read_bytes() == before[0], Path(f"o{suffix}").read_bytes() == before[1]] == [True, False]
    assert "another fit" in checked(capsys, suffix) or "different fits" in checked(capsys, suffix)
    fit("new.csv", suffix)
    assert "of one fit" in checked(capsys, suffix)


FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [100, 4000, "model"])
def test_no_room(here, capsys, limit):
    """What a full disk gives: the table, or the model after it, cannot be written; the old pair stays."""
    fit("old.csv", ".csv")
    before = sorted(os.listdir()), Path("m").read_bytes(), Path("o.csv").read_bytes()
    if limit == "model":
        limit = len(before[2]) + 500
        assert limit < len(before[1])
    done = in_a_process(FULL.format(limit=limit), "fit", "new.csv", "--model", "m", "--out", "o.csv")
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (sorted(os.listdir()), Path("m").read_bytes(), Path("o.csv").read_bytes()) == before
    assert "of one fit" in checked(capsys, ".csv")


def test_the_second_move_fails(here, capsys, monkeypatch):
    fit("old.csv", ".csv")
    replace = os.replace

    def fails(source, target):
        if Path(target).name == "m":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    assert cli.main(["fit", "new.csv", "--model", "m", "--out", "o.csv"]) == 2
    err = capsys.readouterr().err
    assert "cannot write m: Input/output error. But o.csv was written, so they are of different fits" in err
    monkeypatch.setattr(os, "replace", replace)
    assert "another fit" in checked(capsys, ".csv")


@pytest.mark.parametrize("when", ["between", "after"])
def test_two_writers(here, capsys, monkeypatch, when):
    """The other one writes both files between our two moves, or its table alone is moved before our second one."""
    replace, inside = os.replace, []

    def interrupted(source, target):
        if not inside and Path(target).name == "m":
            inside.append(True)
            if when == "between":
                fit("new.csv", ".csv")
            else:
                run("fit", "new.csv", "--out", "o.csv")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    assert cli.main(["fit", "old.csv", "--model", "m", "--out", "o.csv"]) == 2
    assert "another process has written o.csv meanwhile, so it is of another fit than m" in capsys.readouterr().err
    assert "another fit" in checked(capsys, ".csv")
