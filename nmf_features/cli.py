"""nmf-features on the command line: components for a table in a file, without writing Python.

    nmf-features demo                                          see it work on a small table
    nmf-features fit TABLE --model FILE --out TABLE            learn components; keep the model, the scores or both
    nmf-features transform TABLE --model FILE --out TABLE      the same components of new rows
    nmf-features check TABLE --model FILE                      are they of one fit?
    nmf-features select TABLE                                  how many components?

Everything that can go wrong with files is handled here. A mistake gives one line on stderr and exit code 2. An output
appears complete or not at all; two cannot appear in one step, so they carry the id of their fit (pairs). Models are
skops files: no pickle is ever loaded, nor any type but NMFFeatures, its losses and those that skops itself trusts.
"""

import argparse
import csv
import gzip
import importlib
import os
import re
import secrets
import shutil
import sys
import time
import warnings
import zipfile
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from . import files, streaming
from .estimator import NMFFeatures, nnmf
from .memory import budget_of
from .nearest import offer, some
from .pairs import MARK, MarkedGzip, comment_of, fit_id, mark_of, marked, sha256_of, with_comment
from .selection import select_components
from .selection.components import TOL

# pandas reads floats to the last bit by default since 3.1, and before only when asked
EXACT = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
# All that a model file may hold besides what skops itself trusts.
TRUSTED = [
    "nmf_features.core.beta.BetaDivergence",
    "nmf_features.core.negative_binomial.NegativeBinomial",
    "nmf_features.estimator.NMFFeatures",
]


class _Mistake(Exception):
    """Something the user can correct: reported in one line, without a traceback."""


def main(argv=None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        0, or 2 after a user's mistake, 130 after Ctrl-C, 1 if nobody reads the output any more.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # also the second time in one process
        warnings.showwarning = _print_warning
        try:
            arguments, unknown = _parser().parse_known_args(argv)
            if unknown:
                raise _Mistake(_about_unknown(unknown[0], arguments.parser))
            arguments.run(arguments)
            sys.stdout.flush()
        except _Mistake as mistake:
            print(f"nmf-features: error: {_one_line(mistake)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("nmf-features: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # as in `nmf-features demo | head`; Python would complain again when it closes stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    return 0


def _print_warning(message, *_, **__):
    print(f"nmf-features: warning: {_one_line(message)}", file=sys.stderr)


def _one_line(message):
    return " ".join(str(message).split())


def _reason(error):
    """Return what an exception says, without the temporary names that an OSError would quote."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.removeprefix("Error tokenizing data. C error: ")


# The commands


def _fit(arguments):
    if not (arguments.model or arguments.out):
        raise _Mistake("fit would keep nothing: pass --model FILE, --out TABLE, or both.")
    _need_target(arguments)
    streamed = _is_streamed(arguments)
    _check_files([arguments.table], [arguments.model, arguments.out], streamed)
    if arguments.model:
        if _kind(arguments.model):
            raise _Mistake(f"--model {arguments.model} is the name of a table; wanted another, like model.skops.")
        _need("skops")
    if streamed:
        _fit_streamed(arguments)
        return
    if arguments.out:
        _check_table_name(arguments.out)
    table = _read_table(arguments.table)
    _check_columns(table, arguments)
    try:
        result, model = nnmf(
            table,
            arguments.n_components,
            target=arguments.target,
            return_transformer=True,
            variables=arguments.variables,
            drop_original=not arguments.keep_original,
            **{name: getattr(arguments, name) for name in PARAMETERS},
        )
    except (ValueError, MemoryError) as error:
        raise _Mistake(_reason(error)) from error
    outputs, fit = {}, fit_id(model)
    if arguments.out:  # before the model, which is told its SHA-256
        outputs[arguments.out] = _table_writer(result, arguments.out, fit)
    if arguments.model:
        outputs[arguments.model] = _model_writer(model, fit)
    _write(outputs)
    _print_model(model, len(table))


def _print_model(model, n):
    print(f"{model.n_components_} components of {len(model.variables_)} columns, from {n} rows")
    print(_loadings(model), end="")


def _transform(arguments):
    streamed = _is_streamed(arguments)
    _check_files([arguments.table, arguments.model], [arguments.out], streamed)
    if streamed:
        model, source = _read_model(arguments.model), _opened(arguments.table)
        fit, _ = comment_of(arguments.model)
        _write_streamed(model, source, arguments.out, fit)
        return
    _check_table_name(arguments.out)
    model = _read_model(arguments.model)
    table = _read_table(arguments.table)
    missing = [name for name in model.variables_ if name not in table.columns]
    if missing:
        raise _Mistake(
            f"{arguments.table} lacks the columns {some(missing)}, which {arguments.model} was fitted on; it has "
            f"{offer(missing, table.columns)}."
        )
    try:
        result = _components_beside(model, table)
    except (ValueError, MemoryError) as error:
        raise _Mistake(_reason(error)) from error
    fit, _ = comment_of(arguments.model)
    if fit and mark_of(arguments.table) not in (None, fit):
        warnings.warn(
            f"{arguments.table} was written with another fit than {arguments.model}: what it holds of that one passes "
            "through.",
            stacklevel=2,
        )
    _write({arguments.out: _table_writer(result, arguments.out, fit)})


def _check(arguments):
    table, model = arguments.table, arguments.model
    _check_files([table, model], [], os.path.isdir(table))
    if not os.path.isdir(table):
        _check_table_name(table)
    _read_model(model)
    fit, written = comment_of(model)
    if fit is None:
        raise _Mistake(f"{model} does not say which fit it is of: nmf-features fit did not write it. Fit anew.")
    try:
        mark = mark_of(table)
        same = mark == fit
        if not same and not os.path.isdir(table):
            with open(table, "rb") as handle:
                same = sha256_of(handle) == written
    except Exception as error:  # whatever the file holds, and whatever the library reports
        raise _Mistake(f"cannot read {table}: {_reason(error)}") from error
    if mark is None and not same:
        raise _Mistake(
            f"{table} is not the table that was written with {model}: one of them is of another fit, or the table was "
            "changed since. It holds no mark of its fit, as CSV files have no place for one. Run fit again."
        )
    if not same:
        raise _Mistake(f"{table} and {model} are of different fits. Run fit again, and transform for other tables.")
    print(f"{table} and {model} are of one fit.")


def _components_beside(model, table):
    """Return the other columns of the table, then the components, as ``model.transform`` would return them.

    Columns are found by name. Those that the model does not factorise may be absent (the target of new rows) or
    new; they pass through.
    """
    if model.n_components_ == 0:
        return table
    X = table.reindex(columns=list(model.feature_names_in_))
    components = model.transform(X).iloc[:, -model.n_components_ :]
    kept = table.drop(columns=model.variables_) if model.drop_original else table
    clash = [name for name in components if name in kept.columns]
    if clash:
        raise ValueError(f"The table has columns {clash}, named like the components: rename them.")
    return pd.concat([kept, components], axis=1)


def _select(arguments):
    _need_target(arguments)
    _check_files([arguments.table], [])
    table = _read_table(arguments.table)
    _check_columns(table, arguments)
    if arguments.most is not None and arguments.most < 1:
        raise _Mistake(f"--most is {arguments.most}; wanted a number of components, 1 or more.")
    try:
        found = select_components(
            table.drop(columns=arguments.target or []),
            range(1, arguments.most + 1) if arguments.most else None,
            y=table[arguments.target] if arguments.target else None,
            variables=arguments.variables,
            **{name: getattr(arguments, name) for name in PARAMETERS},
        )
    except (ValueError, MemoryError) as error:
        raise _Mistake(_reason(error)) from error
    errors = [name for name in ("error", "target_error") if name in found.summary]
    print("components  error of hidden cells (column means: 1)" + ", and of hidden targets" * (len(errors) - 1))
    for k, *row in found.summary[["n_components", *errors]].itertuples(index=False):
        shown = "  ".join(f"{error:.3f}" for error in row)
        print(f"{k:10}  {shown}{'  chosen' if k == found.n_components else ''}")


def _demo(_):
    from sklearn.datasets import load_diabetes
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    k = 5
    X, y = load_diabetes(as_frame=True, scaled=False, return_X_y=True)
    X = X.rename(columns={"s1": "chol", "s2": "ldl", "s3": "hdl", "s4": "chol/hdl", "s5": "log_trig", "s6": "glucose"})
    nmf = NMFFeatures(n_components=k)
    scores = nmf.fit_transform(X)
    print(
        f"The diabetes table of scikit-learn: {len(X)} patients, {X.shape[1]} columns, and a target, the disease's\n"
        "progression after a year. A good first table: years, mmHg and mg/dl stand side by side, the blood values\n"
        "overlap, so that fewer numbers can say the same, and nothing needs to be downloaded.\n\n"
        f"{X.head(3).to_string()}\n\n"
        f"NMFFeatures(n_components={k}).fit(X). What each component is made of (its loadings sum to 1), and its\n"
        "share of the sum of squares:\n\n"
        f"{_loadings(nmf)}\n"
        f"Share explained, 1 - |X - W H|^2 / |X - column means|^2: {nmf.score(X):.2f}\n\n"
        "The new features, transform(X): how much of each component a patient has.\n\n"
        f"{scores.head(3).round(2).to_string()}\n\n"
        "Linear regression on them, error (RMSE) in 10-fold cross-validation, +- standard error:\n"
    )
    folds = KFold(10, shuffle=True, random_state=0)
    for name, features in {
        f"{k} components of NMFFeatures": [nmf],
        f"{k} of PCA, standardised": [StandardScaler(), PCA(k)],
        f"all {X.shape[1]} columns": [],
    }.items():
        model = make_pipeline(*features, LinearRegression())
        errors = -cross_val_score(model, X, y, cv=folds, scoring="neg_root_mean_squared_error")
        print(f"  {name:28} {errors.mean():5.1f} +- {errors.std(ddof=1) / np.sqrt(len(errors)):.1f}")
    print("\nOn a table of your own: nmf-features fit TABLE --out TABLE; see nmf-features fit --help.")


def _loadings(model):
    """Return one line per component: its share of the sum of squares, and its largest loadings."""
    lines = {name: f"  {name}  {share:4.0%}   " for name, share in zip(_names(model), model.explained_, strict=True)}
    for name, top in model.top_features(4).groupby("component"):
        lines[name] += ", ".join(f"{term} {value:.2f}" for term, value in zip(top["terms"], top["value"], strict=True))
    return "".join(f"{line.rstrip()}\n" for line in lines.values())


def _names(model):
    names = model.get_feature_names_out().tolist()
    return names[len(names) - model.n_components_ :]


# Tables that are larger than memory, or in many files


def _is_streamed(arguments):
    """Whether rows are read and written a batch at a time: in folders, and where a frame would not fit in the budget.

    pandas writes CSV files; where it has to, all rows are in memory.
    """
    table, out = arguments.table, arguments.out
    many = os.path.isdir(table) or files.is_pattern(table)
    if many or (out and _kind(out) is None and (os.path.isdir(out) or not out.suffix)):
        if out and _kind(out) not in (None, ".parquet"):
            raise _Mistake(f"{table} is several files, so rows are written as they are read: wanted --out as .parquet.")
        _need("pyarrow", "parquet")
        return True
    if not os.path.isfile(table) or _kind(table) is None or (out and _kind(out) != ".parquet"):
        return False
    try:
        return COPIES * _bytes_in_memory(table) > budget_of(arguments.memory_budget)
    except ImportError:  # without pyarrow, pandas alone reads CSV
        return False


def _bytes_in_memory(path):
    """Return about how much memory the rows of a file need."""
    import pyarrow.parquet

    if _kind(path) != ".parquet":
        return os.path.getsize(path) * (PACKED if _kind(path) == ".csv.gz" else 1)
    with suppress(pyarrow.ArrowException, OSError):  # reported when it is read
        found = pyarrow.parquet.read_metadata(path)
        sizes = [found.row_group(i).total_byte_size for i in range(found.num_row_groups)]
        return max(sum(sizes), 8 * found.num_rows * found.num_columns)
    return 0


def _opened(path):
    try:
        source = files.opened(path)
        if source.count_rows() == 0:
            raise _Mistake(f"{path} has no rows.")
    except (ValueError, OSError, NotImplementedError) as error:
        raise _Mistake(f"cannot read {path}: {_reason(error)}") from error
    return source


def _fit_streamed(arguments):
    source = _opened(arguments.table)
    _check_columns(source.head().to_pandas(), arguments)
    options = {name: getattr(arguments, name) for name in PARAMETERS}
    model = NMFFeatures(
        arguments.n_components,
        variables=arguments.variables,
        drop_original=not arguments.keep_original,
        memory_budget=arguments.memory_budget,
        **options,
    )
    try:
        with _counted(source, "fit") as rows:
            model.set_params(verbose=int(sys.stderr.isatty())).fit(source, arguments.target).set_params(verbose=0)
    except (ValueError, OSError, MemoryError, NotImplementedError) as error:
        raise _Mistake(_reason(error)) from error
    fit = fit_id(model)
    if arguments.out:
        _write_streamed(model, source, arguments.out, fit)
    if arguments.model:
        try:
            _write({arguments.model: _model_writer(model, fit)})
        except _Mistake as mistake:
            mixed = f". But {arguments.out} was written: run fit again" if arguments.out else ""
            raise _Mistake(f"{mistake}{mixed}") from mistake
    _print_model(model, rows[-1])


def _write_streamed(model, source, out, fit):
    try:
        with _counted(source, "transform"):
            streaming.transform_to(model.columns_, source, out, fit)
    except (ValueError, OSError, MemoryError, NotImplementedError) as error:
        raise _Mistake(_reason(error)) from error


@contextmanager
def _counted(source, what):
    """Give a list whose last entry is how many rows were read; a terminal sees it, and how long it will take."""
    rows, shown, total = [0], sys.stderr.isatty(), source.count_rows()
    started = last = time.monotonic()
    within = False  # a line

    def told(n):
        nonlocal last, within
        rows[-1], now = n, time.monotonic()
        if shown and (now - last > 0.2 or (within and n == total)):
            last, within = now, n != total
            left = f" of {total:,}, {(now - started) / n * (total - n):.0f} s left" if total and n else ""
            print(f"\r{what}: {n:,} rows read{left} ", end="\n" * (not within), file=sys.stderr, flush=True)

    source.told = told
    try:
        yield rows
    finally:
        source.told = None
        if within:
            print(file=sys.stderr)


# Checks before anything is read or computed


def _need_target(arguments):
    if arguments.target_weight and not arguments.target:
        raise _Mistake(f"--target-weight {arguments.target_weight:g} needs a target: pass --target NAME.")


def _check_files(inputs, outputs, streamed=False):
    """Refuse missing inputs, outputs that could not be written, and outputs that would overwrite another file.

    A table that is streamed may be a folder, or a pattern that files match.
    """
    for path in inputs:
        if streamed and path == inputs[0] and (os.path.isdir(path) or files.is_pattern(path)):
            continue
        if not os.path.isfile(path):  # os.path, unlike Path, gives False, not an error, without permission
            raise _Mistake(f"{path} is not a file." if os.path.exists(path) else f"there is no file {path}.")
    others = list(inputs)
    for path in filter(None, outputs):
        if same := [other for other in others if _same_file(path, other)]:
            raise _Mistake(f"{path} and {same[0]} are one file; an output needs a file of its own.")
        others.append(path)
        place = os.path.realpath(path)
        directory, exists = os.path.dirname(place), os.path.exists(place)
        if exists and not os.path.isfile(place) and not (streamed and path == outputs[-1]):
            raise _Mistake(f"cannot write {path}: it exists and is not a file.")
        if not os.path.isdir(directory):
            raise _Mistake(f"cannot write {path}: there is no directory {directory}.")
        if not os.access(directory, os.W_OK | os.X_OK) or (exists and not os.access(place, os.W_OK)):
            raise _Mistake(f"cannot write {path}: Permission denied.")


def _same_file(one, other):
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def _kind(path):
    """Return the suffix that says what kind of table a file holds, or None."""
    return next((suffix for suffix in WRITERS if path.name.lower().endswith(suffix)), None)


def _check_table_name(path):
    kind = _kind(path)
    if kind is None:
        raise _Mistake(f"{path} is not named like a table; wanted a name ending in {', '.join(WRITERS)}.")
    if kind == ".parquet":
        _need("pyarrow", "parquet")


def _need(package, extra=None):
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise _Mistake(
            f'{package} is needed and cannot be imported: pip install "nmf-features[{extra or package}]"'
        ) from error


def _check_columns(table, arguments):
    """Refuse unknown names, and row numbers that were saved as a column without a name: numeric, but no feature."""
    for option in ("target", "variables"):
        if unknown := [name for name in getattr(arguments, option) or [] if name not in table]:
            several = f" To name several, repeat --{option}." if any("," in name for name in unknown) else ""
            raise _Mistake(
                f"--{option} has {some(unknown)}, not found in {arguments.table}; wanted "
                f"{offer(unknown, table.columns)}.{several}"
            )
    if arguments.variables:
        return
    for name in table.select_dtypes("number"):
        if re.fullmatch(r"(Unnamed: \d+)?", name) and name not in (arguments.target or []):
            raise _Mistake(
                f"{arguments.table} has a numeric column without a name (row numbers?): leave it out with "
                f'--target "{name}", or name the columns to factorise with --variables.'
            )


# Tables


def _read_table(path):
    """Return a table with at least one row and with strings as column names."""
    _check_table_name(path)
    try:
        table = pd.read_parquet(path, engine="pyarrow") if _kind(path) == ".parquet" else _read_csv(path)
    except _Mistake:
        raise
    except Exception as error:  # whatever the file holds, and whatever the library reports
        raise _Mistake(f"cannot read {path}: {_reason(error)}") from error
    if not len(table):
        raise _Mistake(f"{path} has no rows.")
    table.columns = [str(name) for name in table.columns]
    return table


def _read_csv(path):
    """Read a CSV file, and refuse what pandas would take for an index, rename or pad."""
    compressed = _kind(path) == ".csv.gz"
    how = {"index_col": False, "compression": "gzip" if compressed else None}
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **how).iloc[0].tolist()
    if len(header) == 1 and re.search("[;\t|]", header[0]):
        raise _Mistake(f"{path} has one column, {header[0]!r}; wanted columns separated by commas.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise _Mistake(f"{path} has duplicated column names: {twice}. Rename them.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(path, low_memory=False, **EXACT, **how)
        except pd.errors.ParserWarning:
            raise _Mistake(f"cannot read {path}: rows have more fields than the header's {len(header)}.") from None
    if table.iloc[:, -1].isna().any():  # pandas pads short rows with missing values
        with (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines)
            for row in rows:
                if len(row) < len(header) and (len(row) > 1 or "".join(row).strip()):
                    raise _Mistake(
                        f"cannot read {path}: line {rows.line_num} has {len(row)} fields, the header {len(header)}."
                    )
    return table


def _write_csv(table, handle):
    table.to_csv(handle, mode="wb", index=False)


def _write_csv_gz(table, handle):
    with MarkedGzip(handle, table.attrs.get(MARK)) as compressed:  # same table, same bytes
        _write_csv(table, compressed)


def _write_parquet(table, handle):
    table.to_parquet(handle, engine="pyarrow")


def _table_writer(table, path, fit):
    return lambda handle, _: WRITERS[_kind(path)](marked(table, fit), handle)


# Models


def _read_model(path):
    """Return the fitted NMFFeatures in a skops file; no other object in it is ever created."""
    _need("skops")
    import skops.io

    try:
        data = path.read_bytes()
    except OSError as error:
        raise _Mistake(f"cannot read {path}: {_reason(error)}") from error
    if not zipfile.is_zipfile(path):
        raise _Mistake(f"{path} is not a model that nmf-features fit wrote (a skops file; pickles are never loaded).")
    try:
        untrusted = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
        if untrusted:
            raise _Mistake(f"{path} is refused: a model of nmf-features does not hold the types {untrusted}.")
        model = skops.io.loads(data, trusted=TRUSTED)
    except _Mistake:
        raise
    except Exception as error:  # whatever the file holds, and whatever the library reports
        raise _Mistake(f"cannot read a model from {path}: {_reason(error)}") from error
    if not isinstance(model, NMFFeatures):
        raise _Mistake(f"{path} holds a {type(model).__name__}; wanted NMFFeatures, as nmf-features fit writes it.")
    try:  # a model that is not fitted, has no column names, or comes from a version that wrote less fails here
        _components_beside(model, pd.DataFrame(columns=list(model.feature_names_in_), dtype=float))
    except Exception as error:
        raise _Mistake(f"{path} holds a model that cannot be used ({_reason(error)}); fit it anew.") from error
    return model


def _model_writer(model, fit):
    import skops.io

    return lambda handle, table: handle.write(with_comment(skops.io.dumps(model), fit, table))


def _write(outputs):
    """Write all files or none: each is written beside its place, and when all are on disk, they are moved there.

    ``outputs`` has for each path a function that writes to an open binary file; it is given the SHA-256 of the file
    before it too. A link stays, and the file it points to is replaced; permissions are those of the previous file, or
    given by the umask.

    Of two processes that write the same pair, the one whose model stays finds its table replaced, if the other's stays:
    the table is moved before the model, so the other moved its table before this one moved its model.
    """
    staged, moved, digest = [], [], None
    try:
        for path, write in outputs.items():
            place = Path(os.path.realpath(path))
            temporary = place.with_name(f".nmf-features-{secrets.token_hex(8)}.tmp")
            staged.append((temporary, place))
            with open(temporary, "x+b") as handle:
                if place.exists():
                    shutil.copymode(place, temporary)
                write(handle, digest)
                handle.flush()
                os.fsync(handle.fileno())
                digest = sha256_of(handle) if len(outputs) > 1 else None
        for path, (temporary, place) in zip(outputs, staged, strict=True):
            written = os.stat(temporary)
            os.replace(temporary, place)
            moved.append((path, place, written))
        for path, place, written in moved[:-1]:
            if not os.path.samestat(os.stat(place), written):
                raise _Mistake(
                    f"another process has written {path} meanwhile, so it is of another fit than {moved[-1][0]}. Run "
                    "fit again, one process at a time."
                )
    except (OSError, ValueError, TypeError, NotImplementedError) as error:  # the last three: what Parquet cannot hold
        mixed = f". But {moved[0][0]} was written, so they are of different fits: run fit again" if moved else ""
        raise _Mistake(f"cannot write {path}: {_reason(error)}{mixed}") from error
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


# Arguments


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports errors in one line, too."""

    def error(self, message):
        raise _Mistake(f"{message}; see {self.prog} --help")


def _about_unknown(argument, parser):
    """Say what is wrong with an argument that a command does not know."""
    options, see = re.findall(r"--[\w-]+", parser.format_usage()), f"see {parser.prog} --help"
    if not argument.startswith("-"):
        each = "; each column is named by a --target or --variables of its own" if "--target" in options else ""
        if "--memory-budget" in options and argument.lower().endswith(tuple(WRITERS)):
            each = '; several files are one table as a folder, or as a pattern in quotes, like "days/*.parquet"'
        return f"{argument!r} is one argument too many{each}; {see}"
    option = argument.partition("=")[0]
    near = get_close_matches(option.replace("_", "-"), options, n=2)
    return f"there is no option {option}{'; the nearest: ' if near else ''}{', '.join(near)}; {see}"


def _parser():
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(
        prog="nmf-features",
        description="Non-negative matrix factorisation components as features for tabular modelling.",
        epilog=f"{TABLES}\nexample:\n  nmf-features demo\n{EXAMPLE}",
        **look,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('nmf-features')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    about = "Show what the components of a small table look like, and how well they predict beside PCA."
    demo = commands.add_parser("demo", help="see it work on a small table", description=about, **look)
    demo.set_defaults(run=_demo)

    about = (
        "Learn components of the numeric columns of TABLE. Keep the model for new rows (--model), the table with\n"
        "components in place of those columns (--out), or both."
    )
    fit = commands.add_parser(
        "fit", help="learn components", description=about, epilog=f"{TABLES}\nexample:\n{EXAMPLE}", **look
    )
    fit.add_argument("table", type=Path, metavar="TABLE", help="training rows")
    fit.add_argument("--model", type=Path, metavar="FILE", help="where to write the model, for example model.skops")
    fit.add_argument("--out", type=Path, metavar="TABLE", help="where to write the other columns and the components")
    columns = fit.add_argument_group("columns")
    _add_columns(columns)
    columns.add_argument(
        "--keep-original", action="store_true", help="keep the factorised columns beside the components"
    )
    parameters = fit.add_argument_group("parameters, as of nmf_features.NMFFeatures")
    parameters.add_argument(
        "--n-components",
        type=int,
        metavar="K",
        default=NMFFeatures().n_components,
        help="number of components (default: %(default)s)",
    )
    _add_parameters(parameters)
    _add_budget(fit)
    fit.set_defaults(run=_fit)

    about = (
        "Add the components of a model to other rows. Columns are found by name: those that the model factorises\n"
        "must be there, all others pass through."
    )
    transform = commands.add_parser(
        "transform",
        help="the same components of new rows",
        description=about,
        epilog=f"{TABLES}\nexample:\n{EXAMPLE}",
        **look,
    )
    transform.add_argument("table", type=Path, metavar="TABLE", help="rows to transform")
    transform.add_argument("--model", type=Path, metavar="FILE", required=True, help="what fit --model wrote")
    transform.add_argument("--out", type=Path, metavar="TABLE", required=True, help="where to write the result")
    _add_budget(transform)
    transform.set_defaults(run=_transform)

    about = (
        "Say whether TABLE and a model are of one fit: the table that fit wrote with the model, or one that transform\n"
        "wrote with it. If fit was killed while it moved its two files to their places, only one of them is new.\n"
        "Tables carry the id of the fit, but CSV has no place for it: of CSV, only the very file that fit wrote is\n"
        "recognised."
    )
    check = commands.add_parser("check", help="are a table and a model of one fit?", description=about, **look)
    check.add_argument("table", type=Path, metavar="TABLE", help="what fit or transform wrote")
    check.add_argument("--model", type=Path, metavar="FILE", required=True, help="what fit --model wrote")
    check.set_defaults(run=_check)

    about = (
        "Choose the number of components of the numeric columns of TABLE: some cells are hidden, and predicted from\n"
        "the others with 1, 2, 3, ... components. The fewest within one standard error of the best are chosen."
    )
    select = commands.add_parser(
        "select", help="how many components?", description=about, epilog=f"{TABLES}\nexample:\n{EXAMPLE}", **look
    )
    select.add_argument("table", type=Path, metavar="TABLE", help="training rows")
    select.add_argument(
        "--most", type=int, metavar="K", help="most components to try (default: 10, or as many as columns)"
    )
    _add_columns(select.add_argument_group("columns"))
    _add_parameters(
        select.add_argument_group("parameters, as of nmf_features.NMFFeatures"), {"random_state": 0, "tol": TOL}
    )
    select.set_defaults(run=_select)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


def _add_columns(group):
    group.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="column to leave out and pass through, which --target-weight makes components serve; may be repeated",
    )
    group.add_argument(
        "--variables",
        action="append",
        metavar="NAME",
        help="column to factorise; may be repeated (default: all numeric columns but the targets)",
    )


def _add_budget(command):
    command.add_argument(
        "--memory-budget",
        type=_bytes,
        metavar="BYTES",
        help="memory that a table may take, like 2GB; larger ones are read in pieces (default: a quarter of what is "
        "free)",
    )


def _add_parameters(group, others=None):
    """Add the parameters of NMFFeatures, with its defaults or others."""
    defaults = NMFFeatures().get_params() | (others or {})
    for name, (kind, metavar, about) in PARAMETERS.items():
        default = "none" if defaults[name] is None else defaults[name]
        group.add_argument(
            *[f"--{flag.replace('_', '-')}" for flag in (name, *ALIASES.get(name, ()))],
            dest=name,
            type=kind,
            metavar=metavar,
            default=defaults[name],
            help=f"{about} (default: {default})",
        )


def _bytes(text):
    """Return a number of bytes, like 500000, 512MB or 2GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(i?)B?|B)?", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of bytes, like 500000, 512MB or 2GiB")
    power = " KMGT".index((found[2] or " ").upper())
    return max(1, int(float(found[1]) * (1024 if found[3] else 1000) ** power))


def _choice_or_none(text):
    return None if text == "none" else text


def _number_or_name(text):
    try:
        return float(text)
    except ValueError:
        return text


# Parameters that are passed on unchanged to NMFFeatures, which checks them; its defaults apply.
PARAMETERS = {
    "penalty": (float, "NUMBER", "strength of the penalty, 0 or more; larger is sparser"),
    "l1_ratio": (float, "SHARE", "share of the penalty that is L1, 0 to 1"),
    "n_nonzero_loadings": (int, "N", "most columns that a component is made of"),
    "shift": (_choice_or_none, "HOW", "how columns become non-negative: min, mode, split or none"),
    "scale": (_choice_or_none, "HOW", "what columns are divided by: std, max, mean, robust or none"),
    "clip": (float, "SHARE", "share of the rows, below 0.5, at either end of each column, that is cut off"),
    "out_of_range": (str, "WHAT", "what happens to new values below the training minimum: clip, warn or raise"),
    "loss": (_number_or_name, "LOSS", "a name (frobenius, kullback-leibler, ...), or a number: beta"),
    "missing_values": (str, "WHAT", "what missing cells are: raise (an error) or ignore (left out)"),
    "target_weight": (float, "NUMBER", "how much the components have to explain the targets too, 0 or more"),
    "target_type": (str, "TYPE", "what the targets are: auto, continuous, binary or multiclass"),
    "projection": (str, "HOW", "scores: nnls (exact non-negative least squares) or linear (X H')"),
    "prefix": (str, "TEXT", "the components' names are this and a number"),
    "n_init": (int, "N", "number of starts that are run to the end, of which the best is kept"),
    "max_iter": (int, "N", "most passes over the data for each start"),
    "tol": (float, "NUMBER", "relative fall of the objective per pass below which the fit stops"),
    "random_state": (int, "SEED", "seed of random starts"),
}

ALIASES = {"loss": ["beta_loss"]}

COPIES = 3  # of a table, which are in memory at once
PACKED = 5  # how much larger a CSV file is without gzip
WRITERS = {".csv": _write_csv, ".csv.gz": _write_csv_gz, ".parquet": _write_parquet}  # the tables we know, by suffix

TABLES = """\
tables:
  By suffix: .csv or .csv.gz (comma-separated, UTF-8, with a header) or .parquet (needs the extra "parquet").
  What passes through a CSV file does so as pandas reads it: 007 becomes 7, NA becomes an empty field. An index
  is kept from Parquet to Parquet; CSV has none. In messages, X (or df) is the table.
  A folder of such files is one table, for fit and transform, and so are those that a pattern in quotes finds, like
  "days/2024-*.parquet"; --out may be a new folder. There, and where the table would not fit in --memory-budget,
  rows are read and written in pieces, to Parquet; of CSV files the types then come from the first 4 MB, and whole
  numbers stay whole where some are missing.
"""

EXAMPLE = """\
  nmf-features select train.csv --target price
  nmf-features fit train.csv --n-components 5 --target price --model model.skops --out train_nmf.csv
  nmf-features transform new.csv --model model.skops --out new_nmf.csv
"""
