"""Tables in files, read in batches by pyarrow: Parquet and CSV, one file, a folder of files, or a dataset.

A batch is a table of pyarrow, in the order of the rows. Errors name the file, and of Parquet the row group.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np

BATCH_CELLS, BUFFER = 1 << 19, 1 << 18  # cells of a batch; bytes of a column that are read at once
HEAD_ROWS = 1000  # by which columns are chosen
KINDS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv", ".feather": "feather"}


def is_source(X):
    """Whether X is a path or a dataset of pyarrow."""
    return isinstance(X, str | Path) or type(X).__module__ == "pyarrow._dataset"


def opened(X):
    """Return the Source of a path (a string, also with a protocol that fsspec knows, or a Path) or of a dataset."""
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise ImportError('Tables in files are read with pyarrow: pip install "nmf-features[parquet]".') from error
    if not isinstance(X, str | Path):
        return Source(X)
    path, filesystem = str(X), None
    if "://" in path:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(path)
    elif not Path(path).exists():
        raise FileNotFoundError(f"X is the path {path!r}, where there is no file or folder; wanted a table to read.")
    with _named(path):
        return Source(pyarrow.dataset.dataset(path, filesystem=filesystem, format=_kind_of(path, filesystem)))


def _kind_of(path, filesystem):
    """Return the format of a file, or of the files in a folder, by suffix."""
    if filesystem is not None:
        names = filesystem.find(path)
    else:
        names = [str(p) for p in ([path] if Path(path).is_file() else sorted(Path(path).rglob("*.*")))]
    kinds = {kind for name in names for suffix, kind in KINDS.items() if name.endswith(suffix)}
    if len(kinds) != 1:
        found = f"files of several kinds: {sorted(kinds)}" if kinds else "no file of a known kind"
        raise ValueError(f"{path} has {found}; wanted one of {sorted(KINDS)}.")
    return kinds.pop()


@contextmanager
def _named(where):
    """Name the file in errors of reading."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        if str(where) in str(error):
            raise
        raise type(error)(f"{where}: {error}") from error


class Source:
    """Rows in the files of a dataset. Files that change while they are read are refused."""

    def __init__(self, dataset):
        self.dataset, self.schema = dataset, dataset.schema
        self.marks = self._marks()

    def head(self):
        """Return the first rows."""
        width = max(1, len(self.schema.names))
        return next((batch for batch, _ in self.batches(cells=HEAD_ROWS * width)), self.schema.empty_table())

    def count_rows(self):
        """Return the number of rows if the files say so, else None."""
        if not _is_parquet(self.dataset):
            return None
        with _named(self._where()):
            return self.dataset.count_rows()

    def batches(self, columns=None, cells=BATCH_CELLS):
        """Yield tables of consecutive rows with these columns (None: all), and where each stands, for errors."""
        import pyarrow

        columns = self.schema.names if columns is None else columns
        rows = max(1, cells // max(len(columns), 1))
        for fragment in self.dataset.get_fragments():
            where = getattr(fragment, "path", None) or "X"
            with _named(where):
                self._check_schema(fragment, columns, where)
                found = _read(fragment, self.schema, columns, rows)
            first = 0
            while True:
                with _named(f"{where}, {_place(fragment, first)}"):
                    batch = next(found, None)
                if batch is None:
                    break
                if len(batch):
                    yield pyarrow.Table.from_batches([batch]), f"{where}, {_place(fragment, first)}"
                first += len(batch)
        if self._marks() != self.marks:
            raise ValueError(f"{self._where()} changed while it was read: wait until it is complete, or read a copy.")

    def _check_schema(self, fragment, columns, where):
        """Refuse a file whose columns differ: pyarrow would fill those it lacks."""
        if getattr(fragment, "format", None) is None or fragment.format.default_extname == "csv":
            return
        there = fragment.physical_schema
        wrong = {
            name: str(there.field(name).type) if name in there.names else "is not there"
            for name in columns
            if name not in there.names or there.field(name).type != self.schema.field(name).type
        }
        partition = {
            name for name in wrong if name not in there.names and str(name) in str(fragment.partition_expression)
        }
        wrong = {name: what for name, what in wrong.items() if name not in partition}
        if wrong:
            wanted = {name: str(self.schema.field(name).type) for name in wrong}
            raise ValueError(f"{where} has other columns than the first file: {wrong}; wanted {wanted}.")

    def _where(self):
        files = getattr(self.dataset, "files", [])
        return files[0] if len(files) == 1 else f"The dataset of {len(files)} files"

    def _marks(self):
        """Return size and time of every file."""
        files, filesystem = getattr(self.dataset, "files", []), getattr(self.dataset, "filesystem", None)
        if filesystem is None:
            return []
        return [(info.path, info.size, info.mtime_ns) for info in filesystem.get_file_info(files)]


def _read(fragment, schema, columns, rows):
    """Yield the batches of a file. Parquet is read as a stream: ahead of it would be whole groups of rows."""
    import pyarrow.parquet

    plain = not _is_parquet(fragment) or set(columns) - set(fragment.physical_schema.names)  # of a partition
    if plain:
        return fragment.to_batches(schema=schema, columns=columns, batch_size=rows, batch_readahead=2)
    file = pyarrow.parquet.ParquetFile(fragment.open(), pre_buffer=False, buffer_size=BUFFER)
    return file.iter_batches(rows, [group.id for group in fragment.row_groups], columns)


def _is_parquet(what):
    return getattr(getattr(what, "format", None), "default_extname", None) == "parquet"


def _place(fragment, first):
    """Return where a row of a file is."""
    groups, end = getattr(fragment, "row_groups", None) or [], 0
    for group in groups:
        end += group.num_rows
        if first < end:
            return f"row group {group.id}"
    return f"from row {first}"


def column_of(batch, name):
    """Return a column of a batch as an array of floats, missing ones NaN."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
