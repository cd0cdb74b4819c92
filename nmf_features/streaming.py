"""Components beside the other columns of a table in files, written to Parquet a batch at a time.

    Source.batches -> components_of (a batch) -> Parts.write          memory holds a batch and a row group
    whole                                                             all of it appears, or nothing

What is written has one temporary name beside its place, until it is complete and on disk; then it is moved there. A
process that is killed leaves this name behind; the next one that writes to the same place takes it over. While a
process writes it holds a lock on it.
"""

import json
import os
import shutil
from contextlib import contextmanager, suppress

import numpy as np

from . import frames
from .core.projection import linear_scores
from .files import located, named
from .fitting import report_unobserved, silent_scores_of
from .pairs import MARK

SUFFIXES = (".parquet", ".pq")
GROUP_BYTES = 1 << 25  # of a row group, in memory
PART_BYTES = 1 << 28  # after which a folder gets another file


def transform_to(columns, source, destination, fit):
    """Write the table of a Source with the components of fitted columns; see :meth:`NMFFeatures.transform_to`.

    ``fit`` is the id of the fit, with which the table is marked (pairs.py), or None.
    """
    source.check(columns)
    dropped = set(columns.variables) if columns.model.drop_original and columns.n_components else set()
    source.with_floats(columns.variables)
    kept = [name for name in source.schema.names if name not in dropped]
    if clash := [name for name in columns.component_names if name in kept]:
        raise ValueError(f"{source.where} has columns {clash}, named like the components: rename them.")
    _refuse_overlap(source, destination)
    with whole(destination) as create:
        parts = Parts(schema_of(columns, source, kept, fit, create.is_folder), create, destination)
        try:
            unobserved, below = 0, np.zeros(len(columns.variables), dtype=int)
            empty, late = [name for name in source.empty if name in kept], {}  # of no type, until a value comes
            for batch, where in source.batches():
                W, outside = components_of(columns, batch, where)
                unobserved, below = unobserved + int(np.isnan(W[:, :1]).sum()), below + outside
                late |= {name: True for name in empty if batch.column(name).null_count < len(batch)}
                parts.write([*(batch.column(name) for name in kept), *W.T])
        except BaseException:
            parts.abandon()
            raise
        parts.close()
    source.report_empty(
        [*late],
        "written as such",
        'If they hold numbers, pass a dataset with their types: pyarrow.dataset.dataset(path, schema, format="csv").',
    )
    if columns.n_components:
        report_unobserved(unobserved)
        columns.scaling.report_below(below, "warn", columns.variables)


def components_of(columns, batch, where):
    """Return the scores of the rows of a batch, and how many cells of each column ``out_of_range="warn"`` reports."""
    if columns.n_components == 0:
        return np.empty((len(batch), 0)), 0
    model, warns, outside = columns.model, columns.model.out_of_range == "warn" and columns.scaling.bounded, 0
    p = len(columns.variables)
    try:
        matrix, _ = frames.to_matrix(batch.select(columns.variables), list(range(p)), model.missing_values)
        outside = columns.scaling.below(matrix) if warns else 0
        Z = columns.scale(matrix, "clip" if warns else None, overwrite=True)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return linear_scores(Z, model.components_) if model.projection == "linear" else silent_scores_of(
        columns, Z
    ), outside


def schema_of(columns, source, kept, fit, is_folder):
    """Return the schema of the result: that of the kept columns as it was, then the components, in their precision."""
    import pyarrow

    schema = pyarrow.schema([source.schema.field(name) for name in kept], source.schema.metadata)
    variables = source.schema.empty_table().select(columns.variables if columns.n_components else [])
    dtype = frames.to_matrix(variables, list(range(len(columns.variables))))[0].dtype if columns.n_components else float
    for name in columns.component_names:
        schema = schema.append(pyarrow.field(name, pyarrow.from_numpy_dtype(dtype)))
    metadata = dict(schema.metadata or {})
    if b"pandas" in metadata:
        one_range = not is_folder and len(source.files) <= 1
        described = _described(json.loads(metadata[b"pandas"]), kept, columns.component_names, dtype, one_range)
        metadata[b"pandas"] = json.dumps(described).encode()
    attrs = json.loads(metadata.pop(b"PANDAS_ATTRS", b"{}"))
    attrs = {name: value for name, value in attrs.items() if name != MARK} | ({MARK: fit} if fit else {})
    if attrs:
        metadata[b"PANDAS_ATTRS"] = json.dumps(attrs).encode()
    return schema.with_metadata(metadata or None)


def _described(pandas, kept, components, dtype, one_range):
    """Return what pandas wrote about its frame, now of the result. Numbered rows keep their numbers in one file."""
    added = [
        {"name": name, "field_name": name, "pandas_type": str(np.dtype(dtype)), "numpy_type": str(np.dtype(dtype))}
        | {"metadata": None}
        for name in components
    ]
    there = [column for column in pandas["columns"] if column.get("field_name", column["name"]) in kept]
    index = [name for name in pandas["index_columns"] if (one_range if isinstance(name, dict) else name in kept)]
    named = pandas.get("column_indexes", [])
    if len(named) != 1 or named[0]["pandas_type"] != "unicode":  # the names of components are words
        named = []
    return pandas | {"columns": [*there, *added], "index_columns": index, "column_indexes": named}


class Parts:
    """Parquet files that are written one after the other, with rows in the order in which they come."""

    def __init__(self, schema, create, destination):
        self.schema, self.create, self.where = schema, create, f"cannot write {destination}"
        self.writer = self.file = None
        self.waiting, self.bytes, self.written = [], 0, 0
        self._open()

    def write(self, columns):
        """Write rows, given their columns."""
        import pyarrow

        batch = pyarrow.Table.from_arrays(list(map(_as_chunks, columns)), schema=self.schema)
        if self.writer is None:
            self._open()
        self.waiting.append(batch)
        self.bytes += batch.nbytes
        if self.bytes >= GROUP_BYTES:
            self._write_group()
            if self.written >= PART_BYTES and self.create.is_folder:
                self.close()

    def close(self):
        """Finish the file."""
        if self.writer is not None:
            self._write_group()
            with named(self.where):
                self.writer.close()
                self.file.close()
            self.writer, self.written = None, 0

    def abandon(self):
        """Let go of a file that is not complete."""
        if self.writer is not None:
            with suppress(Exception):  # it would write its end
                self.writer.close()
            with suppress(Exception):
                self.file.close()

    def _open(self):
        from pyarrow.parquet import ParquetWriter

        with named(self.where):
            self.file = self.create()
            self.writer = ParquetWriter(self.file, self.schema)

    def _write_group(self):
        import pyarrow

        if self.waiting:
            table = pyarrow.concat_tables(self.waiting)
            with named(self.where):
                self.writer.write_table(table, row_group_size=max(1, len(table)))
            self.waiting, self.bytes, self.written = [], 0, self.written + self.bytes


def _as_chunks(column):
    import pyarrow

    return column if isinstance(column, pyarrow.ChunkedArray) else pyarrow.array(np.ascontiguousarray(column))


# Whole or not at all


class Files:
    """Creates the file to write, or one file after the other in a folder: their names sort in the order of the rows."""

    def __init__(self, path, is_folder, create):
        self.path, self.is_folder, self.create, self.made = path, is_folder, create, []

    def __call__(self):
        """Return the next file, open for writing."""
        self.made.append(f"{self.path}/part-{len(self.made):05d}.parquet" if self.is_folder else self.path)
        return self.create(self.made[-1])


@contextmanager
def whole(destination):
    """Give the Files to write to, under a temporary name; move it to its place if the block ends without an error."""
    filesystem, path = located(destination)
    is_folder = not path.lower().endswith(SUFFIXES) or (filesystem is None and os.path.isdir(path))
    if is_folder and os.path.splitext(path.rstrip("/"))[1] and not os.path.isdir(path) and not path.endswith("/"):
        raise ValueError(f"destination is {path!r}; wanted a name that ends in .parquet, or the name of a folder.")
    if filesystem is not None:
        with _whole_elsewhere(filesystem, path, is_folder) as files:
            yield files
        return
    place = os.path.realpath(path)
    _check_place(destination, place, is_folder)
    temporary = temporary_of(place)
    with named(f"cannot write {destination}"):
        lock = _taken_over(temporary, is_folder, destination)
    try:
        import pyarrow

        files = Files(temporary, is_folder, lambda name: pyarrow.OSFile(name, "wb"))
        yield files
        with named(f"cannot write {destination}"):
            for name in files.made:
                with open(name, "r+b") as handle:
                    os.fsync(handle.fileno())
            if is_folder:
                with suppress(FileNotFoundError):
                    os.rmdir(place)  # it is empty
            elif os.path.exists(place):
                shutil.copymode(place, temporary)
            os.replace(temporary, place)
    except BaseException:
        if is_folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                os.remove(temporary)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def temporary_of(place):
    """Return the name that a file or folder has until it is complete."""
    folder, name = os.path.split(place)
    return os.path.join(folder, f".{name}.nmf-features.tmp")


@contextmanager
def _whole_elsewhere(filesystem, path, is_folder):
    """As :func:`whole`, for a file on a filesystem of fsspec: there only files can be moved as a whole."""
    if is_folder:
        raise ValueError(f"destination is the folder {path!r} on another system; wanted a file, named like x.parquet.")
    temporary = temporary_of(path)
    try:
        yield Files(temporary, False, lambda name: filesystem.open(name, "wb"))
        filesystem.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            filesystem.rm(temporary)
        raise


def _check_place(destination, place, is_folder):
    """Refuse a folder that holds something, and a place where nothing can be written."""
    if not os.path.isdir(os.path.dirname(place)):
        raise FileNotFoundError(f"cannot write {destination}: there is no folder {os.path.dirname(place)}.")
    if is_folder and os.path.exists(place) and (not os.path.isdir(place) or os.listdir(place)):
        what = "a folder that is not empty" if os.path.isdir(place) else "a file"
        raise FileExistsError(
            f"destination is {str(destination)!r}, {what}; wanted a new or an empty folder, which can appear as a "
            "whole (a file, named like x.parquet, would be replaced). Remove it first, or pass another name."
        )


def _refuse_overlap(source, destination):
    """Refuse to write to what is read."""
    filesystem, path = located(destination)
    local = getattr(getattr(source.dataset, "filesystem", None), "type_name", None) == "local"
    if local != (filesystem is None):
        return
    real = os.path.realpath if local else str
    read, place = [real(name) for name in source.files], real(path)
    if any(_holds(place, name) for name in read) or (source.folder and _holds(real(source.folder), place)):
        raise ValueError(f"destination is {str(destination)!r}, from which the rows are read; wanted another name.")


def _holds(folder, path):
    """Whether a path is a folder, or a file, or lies in it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}{os.sep}")


def _taken_over(temporary, is_folder, destination):
    """Make the temporary file or folder, or empty what a killed process left; return the lock on it.

    The lock ends with the process. Where the system has no such locks it is None.
    """
    with suppress(FileExistsError):
        if is_folder:
            os.mkdir(temporary)
        else:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        import fcntl
    except ImportError:
        lock = None
    else:
        lock = os.open(temporary, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), os.stat(temporary)):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(lock)
            raise ValueError(
                f"another process is writing {destination} now; wait for it, or pass another name."
            ) from None
    if os.path.isdir(temporary) != is_folder:  # the process that was killed wrote the other kind
        if is_folder:
            os.remove(temporary)
        else:
            shutil.rmtree(temporary)
        if lock is not None:
            os.close(lock)
        return _taken_over(temporary, is_folder, destination)
    if is_folder:
        for name in os.listdir(temporary):
            os.remove(os.path.join(temporary, name))
    return lock
