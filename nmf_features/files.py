"""Tables in files, read in batches by pyarrow: Parquet, CSV and Feather.

One file, a list of them, those that a pattern like "day-*.parquet" finds, a folder of them, or a dataset.

A batch is a table of pyarrow, in the order of the rows. Errors name the file, and of Parquet the row group.
"""

import glob
import os
import posixpath
import re
from bisect import bisect_right
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np

from ._warn import warn_user
from .nearest import offer, some

BATCH_CELLS = 1 << 19
HEAD_ROWS = 1000  # by which columns are chosen
CSV_BLOCK = 1 << 22  # bytes of a CSV file that are parsed at once; types are inferred from the first block
READ_BUFFER = 1 << 16  # bytes of a column of a Parquet file that are read at once
WILD = re.compile("[*?[]")  # of the names that a pattern stands for
KINDS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv", ".feather": "feather"}


def is_source(X):
    """Whether X is a path, a list of paths, a dataset of pyarrow or a Source."""
    return isinstance(X, str | Path | Source) or _are_paths(X) or type(X).__module__ == "pyarrow._dataset"


def _are_paths(X):
    return isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(path, str | Path) for path in X)


def is_pattern(path):
    """Whether a path stands for the names that match it, such as "day-*.parquet": no file has that very name."""
    return WILD.search(str(path)) is not None and not os.path.exists(path)


def is_of_dask(X):
    """Whether X is a collection of Dask of any kind."""
    return hasattr(X, "__dask_graph__") and type(X).__module__.startswith("dask")


def refuse_source(X):
    """Refuse a table in files, or of Dask, where rows in memory are wanted."""
    if is_of_dask(X):
        raise ValueError(
            f"X is Dask's {type(X).__name__}; wanted rows in memory. NMFFeatures.fit and transform take frames and "
            "arrays of Dask; for all else pass X.compute(), or that of some rows, or let X.map_partitions call it for "
            "each partition."
        )
    if is_source(X):
        raise ValueError(
            f"X is {_what(X)}; wanted rows in memory. NMFFeatures.fit takes tables in files, and transform_to(source, "
            "destination) writes their components beside the other columns; for all else read some of the rows first."
        )


def _what(X):
    if isinstance(X, str | Path):
        return f"the path {str(X)!r}"
    return f"a list of paths, {some([*map(str, X)])}" if _are_paths(X) else "a dataset of pyarrow"


def opened(X):
    """Return the Source of a path (also with a protocol that fsspec knows), of paths, or of a dataset; or itself."""
    if isinstance(X, Source):
        return X
    if not is_source(X):
        raise TypeError(
            f"source is of type {type(X).__module__.partition('.')[0]}.{type(X).__name__}; wanted a table in files: a "
            "path, a list of paths, or a dataset of pyarrow. transform takes frames, also of Dask, and "
            "transform(frame).to_parquet(...) writes the result."
        )
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise ImportError('Tables in files are read with pyarrow: pip install "nmf-features[parquet]".') from error
    if not isinstance(X, str | Path) and not _are_paths(X):
        return Source(X)
    filesystem, folder, base, found = _found(X)
    kinds = {name: _kind_of(name) for name, within in found.items() if not _is_hidden(within)}
    if base is not None:  # beside the table there may be other files
        kinds = {name: kind for name, kind in kinds.items() if kind is not None}
    if len(set(kinds.values())) != 1 or None in kinds.values():
        named_ = {kind or "unknown" for kind in kinds.values()}
        what = f"files of several kinds: {sorted(named_)}" if len(named_) > 1 else "no file of a known kind"
        raise ValueError(f"{X if isinstance(X, str | Path) else 'X'} has {what}; wanted one of {sorted(KINDS)}.")
    is_csv, names = "csv" in kinds.values(), list(kinds)
    how, parts = _csv_format() if is_csv else kinds[names[0]], None
    if base is not None:  # folders named year=2024 make a column of categories, as for pandas
        parts = pyarrow.dataset.HivePartitioning.discover(infer_dictionary=True)
    with named(names[0]):
        dataset = pyarrow.dataset.dataset(
            names, filesystem=filesystem, format=how, partitioning=parts, partition_base_dir=base
        )
        return Source(dataset, folder, _csv_schema(dataset) if is_csv else None)


def _found(X):
    """Return the filesystem of a path or of paths, the ``folder`` of the Source, and the files.

    ``base`` is the folder in which the names of folders say something of the rows, None for files that were named.
    Each file comes with its place in it.
    """
    if _are_paths(X):
        return _listed(X)
    filesystem, path = located(X)
    there, paths = (filesystem, posixpath) if filesystem is not None else (os.path, os.path)
    if filesystem is None:
        path = str(Path(path))  # "./t" and "t//" are t, as in the names of the files that are found there
    folder = base = path
    if there.isfile(path):
        return filesystem, None, None, {path: ""}
    if (wild := WILD.search(path)) and not there.exists(path):
        folder, base = "", paths.dirname(path[: wild.start()])
        names = glob.glob(path, recursive=True) if filesystem is None else filesystem.glob(path)
        names = [name for name in sorted(names) if there.isfile(name)]
    elif filesystem is not None:
        names = sorted(filesystem.find(path))
    else:
        names = [str(name) for name in sorted(Path(path).rglob("*.*")) if name.is_file()]
    if not names and not there.isdir(path):
        where = "which no file matches" if folder == "" else "where there is no file or folder"
        raise FileNotFoundError(f"X is the path {path!r}, {where}; wanted a table to read.")
    return filesystem, folder, base, {name: paths.relpath(name, base or ".") for name in names}


def _listed(X):
    """Return what :func:`_found` does, for a list of files."""
    places = [located(path) for path in X]
    filesystem, names = places[0][0], [path for _, path in places]
    is_file = os.path.isfile if filesystem is None else filesystem.isfile
    if any(other != filesystem for other, _ in places):
        raise ValueError("X is a list of paths on several systems; wanted files on one.")
    if lost := [name for name in names if not is_file(name)]:
        hint = (
            " A pattern stands alone, not in a list: glob.glob finds its files." if any(map(is_pattern, lost)) else ""
        )
        raise FileNotFoundError(f"X is a list of paths with {some(lost)}, where there is no file; wanted files.{hint}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"X is a list of paths with {some(twice)} more than once; wanted each file once.")
    return filesystem, "", None, dict.fromkeys(names, "")


def located(path):
    """Return the filesystem of fsspec (None: the local one), and the path there."""
    path = str(path)
    if "://" not in path:
        return None, path
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f"The path {path!r} has a protocol, which fsspec reads: pip install fsspec.") from error
    filesystem, path = fsspec.core.url_to_fs(path)
    return (None if "file" in filesystem.protocol else filesystem), path


def _is_hidden(within):
    """Whether a file in a folder is none of the table, as pyarrow has it: by its name, or that of a folder in it."""
    return any(part.startswith((".", "_")) for part in Path(within).parts)


def _kind_of(name):
    """Return the format of a file, by suffix; None for other files."""
    return next((kind for suffix, kind in KINDS.items() if name.lower().endswith(suffix)), None)


def _csv_format():
    """Return how CSV files are read: what is missing to pandas is missing here, and quoted fields may hold lines."""
    from pyarrow import csv
    from pyarrow.dataset import CsvFileFormat, CsvFragmentScanOptions

    missing = [*csv.ConvertOptions().null_values, "None", "<NA>"]
    options = CsvFragmentScanOptions(
        csv.ConvertOptions(null_values=missing, strings_can_be_null=True), csv.ReadOptions(block_size=CSV_BLOCK)
    )
    return CsvFileFormat(csv.ParseOptions(newlines_in_values=True), options)


def _csv_schema(dataset):
    """Return the types of a CSV file: dates are words, as for pandas, and so are columns that begin without a value."""
    import pyarrow

    names, test = dataset.schema.names, pyarrow.types
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise ValueError(f"{dataset.files[0]} has one column, {names[0]!r}; wanted columns separated by commas.")
    if strange := [field.name for field in dataset.schema if test.is_binary(field.type)]:
        raise ValueError(f"{dataset.files[0]} has columns that are not UTF-8: {some(strange)}.")
    fields = [
        field.with_type(pyarrow.string()) if test.is_temporal(field.type) or test.is_null(field.type) else field
        for field in dataset.schema
    ]
    return pyarrow.schema(fields)


@contextmanager
def named(where):
    """Name the file in errors of reading or writing."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        if str(where) in str(error):
            raise
        text = f"{where}: {' '.join(str(getattr(error, 'strerror', None) or error).split())}"
        if "CSV conversion error" in text:
            text += (
                f". The types of a CSV file come from its first {CSV_BLOCK >> 20} MB, where this column has no such "
                "cell. If the cell is wrong, correct it; else pass a dataset that is told the type of the column: "
                'pyarrow.dataset.dataset(path, schema, format="csv")'
            )
        if isinstance(error, UnicodeError):
            raise ValueError(text) from error
        raise (OSError(error.errno, text) if getattr(error, "errno", None) else type(error)(text)) from error


class Source:
    """Rows in the files of a dataset. Files that change while they are read are refused.

    ``folder`` is the one that the files were found in, "" if they were listed or match a pattern: their columns must be
    of the same types. It is None for one file, and for a dataset, whose schema is the choice of who made it: files are
    read as it says. ``index`` names the columns that pandas wrote
    as the index of its frame: they are no features. ``empty`` names the columns of a CSV file that begin without a
    value: they are words, unless they are wanted as floats. ``told``, if set, is called with the number of rows read,
    batch by batch.
    """

    def __init__(self, dataset, folder=None, schema=None):
        self.dataset, self.folder, self.schema = dataset, folder, dataset.schema if schema is None else schema
        names = self.schema.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{self.where} has duplicated column names: {some(twice)}. Rename them.")
        described = (self.schema.pandas_metadata or {}).get("index_columns", [])
        self.index = [name for name in described if isinstance(name, str) and name in names]
        self.empty = [field.name for field in dataset.schema if self.is_csv and str(field.type) == "null"]
        self.marks = self._marks()
        self.told = None

    @property
    def is_csv(self):
        """Whether the files are CSV, whose types were inferred from the first rows."""
        return _format_of(self.dataset) == "csv"

    @property
    def files(self):
        """Paths of the files."""
        return getattr(self.dataset, "files", [])

    @property
    def where(self):
        """A name for the whole, in errors."""
        if len(self.files) > 1:
            return f"the dataset of {len(self.files)} files, {self.files[0]} and others"
        return self.files[0] if self.files else "X"

    def with_floats(self, names):
        """Take these columns for floats, where a CSV file begins with whole numbers, or with nothing."""
        if self.is_csv:
            self.schema = _as_floats(self.schema, {*names} & {*_whole(self.schema), *self.empty})

    def check(self, columns):
        """Refuse a table that lacks columns of a fitted model."""
        if not columns.from_frame:
            raise ValueError(
                "The model was fitted to an array, whose columns have no names; wanted one fitted to a frame."
            )
        lost = [name for name in columns.variables if name not in self.schema.names]
        if lost and columns.n_components:
            raise ValueError(
                f"{self.where} lacks the columns {some(lost)}, which the model was fitted on; it has "
                f"{offer(lost, self.schema.names)}."
            )

    def report_empty(self, names, what, way_out):
        """Warn of columns of a CSV file that begin without a value."""
        if names:
            warn_user(
                f"{self.where} has the columns {some(names)} without a value in its first {CSV_BLOCK >> 20} MB: they "
                f"are read as words, and {what}. {way_out}"
            )

    def head(self):
        """Return the first rows. Of CSV files more is read ahead, where whole numbers may have ended."""
        schema = _as_floats(self.schema, _whole(self.schema)) if self.is_csv else self.schema
        ahead = Source(self.dataset, self.folder, schema)
        first, _ = next(ahead.batches(cells=HEAD_ROWS * len(schema)), (schema.empty_table(), None))
        return first.cast(self.schema) if self.is_csv else first

    def count_rows(self):
        """Return the number of rows if the files say so, else None."""
        if _format_of(self.dataset) != "parquet":
            return None
        with named(self.where):
            return self.dataset.count_rows()

    def batches(self, columns=None, cells=BATCH_CELLS):
        """Yield tables of consecutive rows with these columns (None: all), and where each stands, for errors."""
        import pyarrow

        columns = self.schema.names if columns is None else columns
        rows, read = max(1, cells // max(len(columns), 1)), 0
        for fragment in self.dataset.get_fragments():
            where = getattr(fragment, "path", None) or "X"
            with named(where):
                self._check_schema(fragment, columns, where)
                place = _Place(fragment, where)
                found = self._read(fragment, columns, rows)
            first = 0
            while True:
                with named(place.of(first, first + rows)):
                    batch = next(found, None)
                if batch is None:
                    break
                if len(batch):
                    yield pyarrow.Table.from_batches([batch]), place.of(first, first + len(batch))
                first, read = first + len(batch), read + len(batch)
                if self.told is not None:
                    self.told(read)
        if self._marks() != self.marks:
            raise ValueError(f"{self.where} changed while it was read: wait until it is complete, or read a copy.")

    def _read(self, fragment, columns, rows):
        """Return an iterator over the record batches of a file.

        A dataset would decode whole row groups of Parquet, which may be a whole file; the file itself is read by pages.
        """
        there = set(fragment.physical_schema.names)
        own = [name for name in columns if name in there]
        if _format_of(fragment) == "parquet" and own:
            from pyarrow.parquet import ParquetFile

            words = list(fragment.format.read_options.dictionary_columns)
            file = ParquetFile(
                fragment.path,
                filesystem=fragment.filesystem,
                read_dictionary=words or None,
                buffer_size=READ_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,  # of pages that have one
            )
            groups = [group.id for group in fragment.row_groups]
            keys = _partition_of(fragment)
            return (self._with_partition(batch, columns, keys) for batch in file.iter_batches(rows, groups, own))
        return iter(
            fragment.to_batches(
                schema=self.schema, columns=columns, batch_size=rows, batch_readahead=2, fragment_readahead=1
            )
        )

    def _with_partition(self, batch, columns, keys):
        """Return the columns of rows of a file: what it lacks is said by the names of its folders."""
        import pyarrow

        schema, arrays = pyarrow.schema([self.schema.field(name) for name in columns], self.schema.metadata), []
        place = {name: j for j, name in enumerate(batch.schema.names)}  # to ask a schema for a name takes a search
        for field in schema:
            if field.name in place:
                column = batch.column(place[field.name])
                arrays.append(column if column.type == field.type else column.cast(field.type))
            else:
                same = pyarrow.array([keys[field.name]], field.type)
                arrays.append(same.take(pyarrow.array(np.zeros(len(batch), dtype=np.int64))))
        return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)

    def _check_schema(self, fragment, columns, where):
        """Refuse a file whose columns differ: pyarrow would fill those it lacks."""
        kind = _format_of(fragment)
        if kind is None:
            return
        there, keys = fragment.physical_schema, _partition_of(fragment)
        wrong = {name: "is not there" for name in columns if name not in there.names and name not in keys}
        if kind != "csv" and self.folder is not None:
            types = {name: there.field(name).type for name in columns if name in there.names}
            wrong |= {name: str(found) for name, found in types.items() if found != self.schema.field(name).type}
        if wrong:
            wanted = {name: str(self.schema.field(name).type) for name in wrong}
            raise ValueError(f"{where} has other columns than the first file: {wrong}; wanted {wanted}.")

    def _marks(self):
        """Return size and time of every file."""
        filesystem = getattr(self.dataset, "filesystem", None)
        if filesystem is None:
            return []
        return [(info.path, info.size, info.mtime_ns) for info in filesystem.get_file_info(self.files)]


class _Place:
    """Where rows of a file are, for errors."""

    def __init__(self, fragment, where):
        self.where, groups = where, getattr(fragment, "row_groups", None) or []
        self.ids, self.ends = [group.id for group in groups], list(accumulate(group.num_rows for group in groups))

    def of(self, start, stop):
        """Return the file, and the row groups that the rows are in, if it has some."""
        first, last = (bisect_right(self.ends, row) for row in (start, stop - 1))
        if first >= len(self.ids):
            return self.where
        first, last = self.ids[first], self.ids[min(last, len(self.ids) - 1)]
        return f"{self.where}, row group {first}" if first == last else f"{self.where}, row groups {first} to {last}"


def _whole(schema):
    """Return the names of the columns of whole numbers."""
    from pyarrow.types import is_integer

    return [field.name for field in schema if is_integer(field.type)]


def _as_floats(schema, names):
    import pyarrow

    return pyarrow.schema([field.with_type(pyarrow.float64()) if field.name in names else field for field in schema])


def _format_of(X):
    """Return the kind of the files of a dataset or a fragment; None for rows in memory."""
    return getattr(getattr(X, "format", None), "default_extname", None)


def _partition_of(fragment):
    """Return what the names of its folders say of a file, such as {"year": 2024}."""
    from pyarrow.dataset import get_partition_keys

    return get_partition_keys(fragment.partition_expression)


def column_of(batch, name):
    """Return a column of a batch as an array of floats, missing ones NaN."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
