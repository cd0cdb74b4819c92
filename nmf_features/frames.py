"""From frames to matrices, and back with index, names and dtypes. Only this module imports narwhals.

A table is a pandas or polars DataFrame (or another that narwhals knows) or a NumPy array. Columns are
identified by position; their labels are used in errors and results. The caller's table is never changed.
"""

import reprlib

import narwhals as nw
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import validate_data

from . import cells
from .core.checks import without_duplicates
from .files import refuse_source
from .nearest import MOST, some

CHUNK_ROWS = 1 << 14  # a frame is read in slices, so that conversion copies stay small
ARROW_FLOATS = {"float32": "float[pyarrow]", "float64": "double[pyarrow]"}  # pandas' names of Arrow's floats
KINDS = {"i": nw.Int64, "f": nw.Float64, "O": nw.String}  # of columns that are made here
PLAIN = ("Float", "Int", "UInt")  # what the names of polars' ordinary numbers begin with
LEFT_OUT = ("ignore", "unstored")  # values of missing_values with which NaN is no error


def is_frame(X):
    """Whether X is a dataframe; a lazy one is refused."""
    if isinstance(X, np.ndarray | pd.DataFrame) or nw.dependencies.is_polars_dataframe(X):  # quick: often asked
        return not isinstance(X, np.ndarray)
    if nw.dependencies.is_polars_lazyframe(X):
        raise TypeError(
            "X is a lazy frame; wanted an eager one: call .collect() first, and .select(...) before that if not all "
            "columns are needed."
        )
    return nw.dependencies.is_into_dataframe(X)


def as_table(X):
    """Return X in a form whose rows can be read, more than once; rows in files or of Dask are refused."""
    refuse_source(X)
    return read_once(X)


def read_once(X):
    """Return an Arrow stream (of DuckDB, say) as a table of pyarrow, a sparse matrix as compressed rows; else X."""
    if sparse.issparse(X):
        return X.tocsr()
    known = isinstance(X, np.ndarray) or is_frame(X) or nw.dependencies.is_into_series(X)
    if known or not hasattr(X, "__arrow_c_stream__"):
        return X
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            f"X is an Arrow stream ({type(X).__name__}), which only pyarrow can read: pip install pyarrow, or pass a "
            "frame of pandas or polars."
        ) from error
    return pyarrow.table(X)


def check_table(estimator, X, reset, dtype=None, seen=None):
    """Check the form of X by scikit-learn's rules (names, number of columns, rows at fit); return it as a table.

    An array is converted to ``dtype`` (None: not at all). ``seen`` holds the labels of the frame in ``fit``, if it was
    one. The cells are checked by :func:`to_matrix`.
    """
    X = as_table(X)
    if not is_frame(X):
        if not reset and _is_plain_array(X, estimator):
            return X
        return validate_data(
            estimator,
            X if dtype is None else cells.with_nan(X),
            reset=reset,
            accept_sparse="csr",
            dtype=dtype,
            ensure_all_finite=False,
            ensure_min_samples=1 if reset else 0,
        )
    columns = labels(X)
    if not columns:
        raise ValueError("X has no columns: found a frame of 0 feature(s) while a minimum of 1 is required.")
    if reset and not len(X):
        raise ValueError("X has no rows: found a frame of 0 sample(s) while a minimum of 1 is required.")
    if not reset and columns == seen:  # scikit-learn would ask the same, for longer than a row is scored
        return X
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    seen = columns if seen is None else seen
    if not all(isinstance(name, str) for name in [*columns, *seen]) and seen != columns:
        here, there = set(columns), set(seen)
        lacking, new = [name for name in seen if name not in here], [name for name in columns if name not in there]
        how = f"lacks {some(lacking)}, and fit has not seen {some(new)}" if lacking or new else "has another order"
        raise ValueError(f"X has other columns than in fit; wanted the same names, in the same order. It {how}.")
    return X


def _is_plain_array(X, estimator):
    """Whether X is an array that scikit-learn lets pass as it is: it takes longer to ask than to score a row."""
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in (np.float32, np.float64):
        return False
    return X.shape[1] == estimator.n_features_in_ and not hasattr(estimator, "feature_names_in_")


def labels(X):
    """Return the column labels of a table, positions for an array; duplicated names are refused."""
    if not is_frame(X):
        return list(range(np.shape(X)[1]))
    if isinstance(X, pd.DataFrame):
        found = X.columns.tolist()
    else:
        found = list((X if nw.dependencies.is_polars_dataframe(X) else nw.from_native(X)).columns)
    if len(set(found)) < len(found):
        twice = sorted({str(name) for name in found if found.count(name) > 1})
        raise ValueError(f"X has duplicated column names: {twice}. Rename them, so that every column has its own name.")
    return found


def numeric_positions(X):
    """Return the positions of the numeric columns (booleans are not numbers here), or of all columns of an array.

    A column of objects is numeric if all are numbers or missing.
    """
    if not is_frame(X):
        return labels(X)
    dtypes = _dtypes(X)
    plain = {dtype: _is_plain(dtype) for dtype in set(dtypes)}
    others = [j for j, dtype in enumerate(dtypes) if not plain[dtype]]
    words = {j for j, column in zip(others, _columns(X, others), strict=True) if not _holds_numbers(column)}
    return [j for j in range(len(dtypes)) if j not in words]


def nearly_numeric(X, positions):
    """Return a warning about those of some columns that are words because some cells are; an empty text if none is.

    A column is judged by about a thousand cells. Categories are meant to be such.
    """
    if not positions:  # as for an array
        return ""
    names, found, of_pandas = labels(X), {}, isinstance(X, pd.DataFrame)
    for j, column in zip(positions, _columns(X, positions), strict=True):
        if not _may_hold_numbers(column):
            continue
        step = -(-len(column) // cells.SLICE)
        if cells.mean_numbers(_objects(column.iloc[::step] if of_pandas else column[::step])):
            values = _objects(column)
            at = cells.first_word(values)
            if at is not None:
                found[names[j]] = _cell(column, values, at)
    if not found:
        return ""
    convert = 'pd.to_numeric(..., errors="coerce")' if of_pandas else "a cast that makes words missing"
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        "X has columns that are left out as words, although most of their cells are numbers: "
        f"{dict(list(found.items())[:MOST])}{more}. Convert them first, as with {convert}. If they are meant as words, "
        "name the others in variables, or make categories of them."
    )


def chosen_by_rule(X, rule):
    """Return what a function of the table, or a selector of polars or skrub, chooses; None if it is none of these."""
    polars = nw.dependencies.get_polars()
    if callable(rule):
        return rule(X)
    if polars is not None and isinstance(rule, polars.Expr):
        if not isinstance(X, polars.DataFrame):
            raise TypeError(
                f"variables is a selector of polars, and X is a {type(X).__name__} of "
                f"{type(X).__module__.partition('.')[0]}; wanted a polars frame, or names of columns."
            )
        return X.select(rule).columns
    return rule.expand(X) if hasattr(rule, "expand") else None  # skrub's, which it need not be imported to ask


def _columns(X, positions):
    """Return columns of a frame; asked of all at once, since a frame of narwhals takes long to make."""
    if isinstance(X, pd.DataFrame):
        return [X.iloc[:, j] for j in positions]
    frame, names = nw.from_native(X), labels(X)
    return [frame.get_column(names[j]) for j in positions]


def _is_numeric(column):
    return _is_number(column.dtype) if isinstance(column, pd.Series) else column.dtype.is_numeric()


def _is_number(dtype):
    """Whether a dtype of pandas is one of numbers, which booleans are not here, nor complex ones."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "fiu"
    test = pd.api.types
    return test.is_numeric_dtype(dtype) and not (test.is_bool_dtype(dtype) or test.is_complex_dtype(dtype))


def _is_boolean(column):
    return pd.api.types.is_bool_dtype(column) if isinstance(column, pd.Series) else column.dtype == nw.Boolean


def _holds_numbers(column):
    return _is_numeric(column) or (_is_object(column) and cells.hold_numbers(_objects(column)))


def _is_object(column):
    return column.dtype == (object if isinstance(column, pd.Series) else nw.Object)


def _may_hold_numbers(column):
    """Whether the cells must be asked: objects, and what a column of new rows becomes if all are missing, or text."""
    if not isinstance(column, pd.Series):
        return column.dtype in (nw.Object, nw.String, nw.Unknown)
    texts = ("null[pyarrow]", "string[pyarrow]", "large_string[pyarrow]")
    return _is_object(column) or isinstance(column.dtype, pd.StringDtype) or str(column.dtype) in texts


def _objects(column):
    return column.to_numpy(dtype=object) if isinstance(column, pd.Series) else column.to_numpy().astype(object)


def _is_single(dtype):
    return any(name in str(dtype).lower() for name in ("float32", "float[pyarrow]"))


def _dtypes(X):
    """Return the dtype of every column; of a polars frame, its name."""
    if isinstance(X, pd.DataFrame):
        return X.dtypes.tolist()
    if nw.dependencies.is_polars_dataframe(X):
        return [str(dtype) for dtype in X.dtypes]
    return nw.from_native(X).schema.dtypes()


def _is_plain(dtype):
    """Whether columns of such a dtype hold ordinary numbers, so that all of them can be read together."""
    if isinstance(dtype, str):
        return dtype.startswith(PLAIN)
    return not isinstance(dtype, nw.dtypes.DType | pd.SparseDtype) and _is_number(dtype)


def to_matrix(X, positions, missing_values=None):
    """Return the columns at ``positions`` as a float matrix, and whether it is a copy that may be changed.

    float32 if every column is of single precision, else float64. Missing cells are NaN, if ``missing_values`` is
    "ignore"; else ("raise", or None if the caller has no such choice) they are refused, as infinite ones always are.
    """
    if is_frame(X):
        matrix = _read(X, positions)
    elif sparse.issparse(X) or X.dtype in (np.float32, np.float64):
        matrix = X if list(positions) == labels(X) else X[:, positions]
        if matrix is not X and not sparse.issparse(matrix):
            matrix = np.ascontiguousarray(matrix)
    else:
        chosen = cells.with_nan(X[:, positions])
        matrix = check_array(chosen, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=0)
    if sparse.issparse(matrix):
        matrix = without_duplicates(matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64))
    values = matrix.data if sparse.issparse(matrix) else matrix
    for start in range(0, len(values), CHUNK_ROWS):  # a quick check; if it fails, find the columns
        with np.errstate(over="ignore"):
            total = values[start : start + CHUNK_ROWS].sum(dtype=np.float64)
        if not np.isfinite(total):
            names = labels(X)
            _refuse_nonfinite(matrix, [names[j] for j in positions], missing_values)
            break  # all cells were checked
    return matrix, matrix is not X


class Numbers:
    """The columns at ``positions`` of a frame as floats, missing cells NaN, read a slice of rows at a time.

    Frames take long to hand out one column after the other. So plain numbers are read together, and so are objects.
    With ``ahead``, for many small slices, columns are converted when this is made, unless slices of them are views.
    """

    def __init__(self, X, positions, ahead=False):
        dtypes, of_pandas = _dtypes(X), isinstance(X, pd.DataFrame)
        self.X, self.positions, self.whole = X, positions, list(positions) == list(range(len(dtypes)))
        dtypes = dtypes if self.whole else [dtypes[j] for j in positions]
        plain = {dtype: _is_plain(dtype) for dtype in set(dtypes)}
        self.are_sparse = all(isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in plain)
        self.dtype = np.dtype(np.float32 if all(map(_is_single, plain)) else np.float64)
        of_numpy = of_pandas and all(isinstance(dtype, np.dtype) for dtype in plain)  # else NA may be among the cells
        self.options = {"dtype": self.dtype, "na_value": np.nan} if of_pandas and not of_numpy else {}
        self.plain, self.objects, self.others = slice(None), [], {}
        if all(plain.values()) and (of_numpy or not ahead):
            return
        self.plain = [i for i, dtype in enumerate(dtypes) if plain[dtype] and not ahead]
        self.objects = [i for i, dtype in enumerate(dtypes) if of_pandas and dtype == np.dtype(object) and not ahead]
        others = sorted({*range(len(dtypes))} - {*self.plain, *self.objects})
        self.others = self._columns(others)
        if others:
            self._refuse_words()
        if ahead:
            self.others = {i: _to_numpy(column) for i, column in self.others.items()}

    def read(self, rows, into):
        """Copy a slice of the rows into a matrix, and return it."""
        part = _rows(self.X, rows) if self.plain or self.objects else None
        if self.plain:
            into[:, self.plain] = self._together(part, self.plain).to_numpy(**self.options)
        if self.objects:
            values = self._together(part, self.objects).to_numpy()
            floats, strange = cells.to_floats(values.ravel())
            if strange is not None:
                self._refuse_words()
            into[:, self.objects] = floats.reshape(values.shape)
        for i, column in self.others.items():
            values = column.iloc[rows] if isinstance(column, pd.Series) else column[rows]
            into[:, i] = values if isinstance(values, np.ndarray) else _to_numpy(values)
        return into

    def _together(self, part, places):
        if places != slice(None):
            return select(part, [self.positions[i] for i in places])
        return part if self.whole else select(part, self.positions)

    def _columns(self, places):
        return dict(zip(places, _columns(self.X, [self.positions[i] for i in places]), strict=True))

    def _refuse_words(self):
        names, columns = labels(self.X), self._columns(self.objects) | self.others
        _refuse_words({names[self.positions[i]]: columns[i] for i in sorted(columns)})


class Rows:
    """The columns at ``positions`` of a frame or a float array, read and checked a slice of rows at a time."""

    def __init__(self, X, positions, missing_values="raise"):
        self.table, self.positions, self.missing_values = X, positions, missing_values
        self.shape = len(X), len(self.positions)
        self.numbers = Numbers(X, positions, ahead=True) if is_frame(X) else None
        self.dtype = X.dtype if self.numbers is None else self.numbers.dtype
        self.whole = self.positions == labels(X)

    def __getitem__(self, rows):
        """Return a slice of the rows as a matrix that must not be changed."""
        if self.numbers is None:
            matrix = self.table[rows] if self.whole else self.table[rows, self.positions]
        else:
            size = len(range(*rows.indices(self.shape[0]))), self.shape[1]
            matrix = self.numbers.read(rows, np.empty(size, self.dtype))
        with np.errstate(over="ignore"):
            total = matrix.sum(dtype=np.float64)
        if not np.isfinite(total) and (self.missing_values not in LEFT_OUT or np.isinf(matrix).any()):
            to_matrix(self.table, self.positions, self.missing_values)  # raises, with counts over all rows
        return matrix


def readable_by_rows(X, positions):
    """Whether :class:`Rows` should read the columns: not few rows, sparse columns, or arrays that are not of floats."""
    if np.shape(X)[0] <= CHUNK_ROWS:
        return False
    if is_frame(X):
        return not Numbers(X, positions).are_sparse
    return not sparse.issparse(X) and X.dtype in (np.float32, np.float64)


def _refuse_words(columns):
    """Refuse columns, by name, that are not numeric."""
    strange = {}
    for name, column in columns.items():
        if _is_numeric(column) or _is_boolean(column):
            continue
        if not _may_hold_numbers(column):
            strange[name] = str(column.dtype)
            continue
        values = _objects(column)
        _, at = cells.to_floats(values)
        if at is not None:
            strange[name] = _cell(column, values, at)
    if strange:
        raise ValueError(
            f"X has chosen columns that are not numeric: {strange}. Wanted numbers, or None, NaN or NA where one is "
            "missing. Encode words first, or leave their columns out."
        )


def _cell(column, values, at):
    """Say what stands in a cell of a column of objects, and where it is."""
    label = column.index[at : at + 1].tolist()[0] if isinstance(column, pd.Series) else at
    where = f"row {at}" if label == at else f"row {at}, index {label!r}"
    return f"{column.dtype}, with {reprlib.repr(values[at])} in {where}"


def _refuse_nonfinite(matrix, names, missing_values):
    refused = [("infinite (inf)", np.isinf, "Replace them first.")]
    if missing_values not in LEFT_OUT:
        way_out = "Impute them first (for example feature-engine's MeanMedianImputer), or drop the rows."
        if missing_values == "raise":
            way_out = f'Pass missing_values="ignore" to leave them out. {way_out}'
        refused.insert(0, ("NaN or missing", np.isnan, way_out))
    for what, test, way_out in refused:
        counts = (
            np.bincount(matrix.indices[test(matrix.data)], minlength=len(names))
            if sparse.issparse(matrix)
            else test(matrix).sum(axis=0)
        )
        bad = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
        if bad:
            raise ValueError(f"X has {what} values (column: how many) {bad}. {way_out}")


def in_order(X, names, argument):
    """Return a frame of numbers as an array with its columns in the order of ``names``; refuse if it has others."""
    found = labels(X)
    place = {name: j for j, name in enumerate(found)}
    if place.keys() != set(names):
        lacking, new = [name for name in names if name not in found], [name for name in found if name not in names]
        raise ValueError(
            f"{argument} is a frame that lacks the columns {some(lacking)} and has others, {some(new)}; wanted one for "
            "each factorised column, by name, or an array with its columns in their order."
        )
    return to_matrix(X, [place[name] for name in names], "ignore")[0]


def _read(X, positions):
    """Return columns of a frame as a new C-ordered float array; missing cells become NaN.

    Sparse columns that are zero where nothing is stored become a CSR matrix.
    """
    numbers = Numbers(X, positions)
    if numbers.are_sparse:
        matrix = X.iloc[:, positions].sparse.to_coo().tocsr()
        return matrix.astype(np.float32 if matrix.dtype == np.float32 else np.float64)
    matrix = np.empty((len(X), len(positions)), numbers.dtype)
    for start in range(0, len(X), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        numbers.read(rows, matrix[rows])
    return matrix


def _to_numpy(column):
    """Return a column that :func:`_refuse_words` let pass as numbers, missing ones NaN."""
    if _may_hold_numbers(column):
        return cells.to_floats(_objects(column))[0]
    if isinstance(column, pd.Series) and pd.api.types.is_extension_array_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = column.to_numpy()
    return cells.to_floats(values)[0] if values.dtype == object else values  # decimals, and booleans of which some miss


def target_columns(y):
    """Return pairs of a name and an array, or a pandas Categorical, for the columns of y in whatever form it comes."""
    if sparse.issparse(y):
        raise ValueError("y is sparse; wanted a dense array: pass y.toarray().")
    y = read_once(y)
    if is_frame(y):
        names = list(y.columns) if isinstance(y, pd.DataFrame) else nw.from_native(y).columns
        if not names:
            raise ValueError("y is a frame without columns; wanted at least one target.")
        return [(name, _values(column)) for name, column in zip(names, _columns(y, range(len(names))), strict=True)]
    if nw.dependencies.is_into_series(y) and not isinstance(y, np.ndarray):
        y = y if isinstance(y, pd.Series) else nw.from_native(y, series_only=True)
        return [("y" if y.name in (None, "") else y.name, _values(y))]
    values = np.asarray(y, dtype=object) if isinstance(y, list | tuple) else np.asarray(y)  # 1 and "1" stay different
    if values.ndim == 1:
        return [("y", _values(pd.Series(values)))]
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"y has shape {values.shape}; wanted one value for each row, or a column for each target.")
    names = ["y"] if values.shape[1] == 1 else [f"y{j}" for j in range(values.shape[1])]
    return [(name, _values(pd.Series(column))) for name, column in zip(names, values.T, strict=True)]


def _values(column):
    """Return a column of numbers as numbers, missing ones NaN; any other as it is, missing cells None or NaN."""
    of_pandas = isinstance(column, pd.Series)
    if of_pandas and isinstance(column.dtype, pd.CategoricalDtype):
        return column.array
    column = column.infer_objects() if of_pandas and _is_object(column) else column
    if _holds_numbers(column):
        return _to_numpy(column)
    return column.to_numpy(dtype=object, na_value=None) if of_pandas else column.to_numpy()


def copy(X):
    """Return the whole table as a new object."""
    return select(X, range(len(labels(X)))) if is_frame(X) else X.copy()


def select(X, positions):
    """Return the columns at ``positions``, in that order, as a new frame of X's kind."""
    if isinstance(X, pd.DataFrame):
        return X.take(positions, axis=1)
    names = labels(X)
    names = [names[j] for j in positions]
    return X.select(names) if nw.dependencies.is_polars_dataframe(X) else nw.to_native(nw.from_native(X).select(names))


def _rows(X, rows):
    """Return a slice of the rows of a frame."""
    if isinstance(X, pd.DataFrame):
        return X.iloc[rows]
    return X[rows] if nw.dependencies.is_polars_dataframe(X) else nw.to_native(nw.from_native(X)[rows])


def fill(X, positions, values, missing):
    """Return the table with ``values`` in the ``missing`` cells of the columns at ``positions``.

    Columns of floats keep their dtype; others that have missing cells become floats of their kind.
    """
    if not is_frame(X):
        X = X.copy()
        for j, column, m in zip(positions, values.T, missing.T, strict=True):
            X[m, j] = column[m]
        return X
    names = labels(X)
    changed = [(j, v, m) for j, v, m in zip(positions, values.T, missing.T, strict=True) if m.any()]
    if not isinstance(X, pd.DataFrame):
        frame = nw.from_native(X)
        new = []
        for j, filled, m in changed:
            column = frame.get_column(names[j])
            dtype = column.dtype if column.dtype.is_float() else nw.Float64
            whole = np.where(m, filled, _to_numpy(column))
            backend = nw.get_native_namespace(frame)
            new.append(nw.new_series(names[j], whole, nw.Float64, backend=backend).cast(dtype))
        return nw.to_native(frame.with_columns(*new))
    X = X.copy()
    for j, filled, m in changed:
        column = X.iloc[:, j]
        whole = np.where(m, filled, _to_numpy(column))
        dtype = column.dtype if pd.api.types.is_float_dtype(column.dtype) else _float_beside(column.dtype)
        X.isetitem(j, pd.Series(whole, index=X.index).astype(dtype))
    return X


def _float_beside(dtype):
    """Return the dtype of floats of the same kind as a dtype of pandas."""
    if isinstance(dtype, pd.ArrowDtype):
        return ARROW_FLOATS["float64"]
    return "Float64" if pd.api.types.is_extension_array_dtype(dtype) and dtype.na_value is pd.NA else np.float64


def rename(X, names):
    """Return the frame with other column labels."""
    if list(names) == labels(X):
        return X
    if isinstance(X, pd.DataFrame):
        return X.set_axis(pd.Index(names, tupleize_cols=False), axis=1)
    return nw.to_native(nw.from_native(X).rename(dict(zip(labels(X), names, strict=True))))


def make(matrix, names, like):
    """Return a frame of the kind of ``like``, with its index and attrs; backed by Arrow if all its numbers are."""
    if isinstance(like, pd.DataFrame):
        columns = like.columns
        if list(names) != columns.tolist():
            columns = pd.Index(list(names), tupleize_cols=False, name=columns.name if columns.nlevels == 1 else None)
        frame, dtypes = pd.DataFrame(matrix, columns=columns, index=like.index), set(like.dtypes.to_numpy())
        if {type(dtype) for dtype in dtypes if _is_number(dtype)} == {pd.ArrowDtype}:
            frame = frame.astype(ARROW_FLOATS[np.asarray(matrix).dtype.name])
        frame.attrs = dict(like.attrs)
        return frame
    if nw.dependencies.is_polars_dataframe(like):
        return type(like)(matrix, schema=list(names), orient="row")
    return nw.to_native(nw.from_numpy(matrix, schema=list(names), backend=nw.get_native_namespace(like)))


def long(columns, like, rows=()):
    """Return a frame of the kind of ``like`` (pandas for an array) with these columns; each line is about one of rows.

    A pandas frame has their labels as its index. Columns are arrays, or come from :func:`named`.
    """
    if not is_frame(like):
        return pd.DataFrame(columns)
    if isinstance(like, pd.DataFrame):
        return pd.DataFrame(columns, index=like.index[np.asarray(rows, dtype=np.intp)])
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    schema = {name: KINDS[array.dtype.kind] for name, array in arrays.items()}  # there may be no line to tell it from
    return nw.to_native(nw.from_dict(arrays, schema, backend=nw.get_native_namespace(like)))


def named(names, at):
    """Return names at positions as a column for :func:`long`, of the same dtype for any positions, or none."""
    return pd.Series(objects(names)).array[at]


def objects(names):
    """Return names of any kind, also tuples, as an array of objects."""
    out = np.empty(len(names), dtype=object)
    for i, name in enumerate(names):
        out[i] = name
    return out


def beside(left, right):
    """Return the columns of two frames with the same rows side by side."""
    if isinstance(left, pd.DataFrame):
        both = pd.concat([left, right], axis=1)
        both.columns = pd.Index([*labels(left), *labels(right)], tupleize_cols=False, name=left.columns.name)
        both.attrs = dict(left.attrs)
        return both
    if not labels(left):  # a polars frame without columns does not know how many rows it had
        return right
    return nw.to_native(nw.concat([nw.from_native(left), nw.from_native(right)], how="horizontal"))


def configured(estimator):
    """Return which kind of frame ``set_output`` or ``set_config`` asks for: "default" is that of X."""
    return _get_output_config("transform", estimator)["dense"]


def as_configured(estimator, frame):
    """Return a frame of the kind that ``set_output`` or ``set_config`` asks for (by default, unchanged)."""
    kind = configured(estimator)
    if kind == "pandas" and not isinstance(frame, pd.DataFrame):
        return nw.from_native(frame).to_pandas()
    if kind == "polars" and not nw.dependencies.is_polars_dataframe(frame):
        return nw.from_native(frame).to_polars()
    return frame
