"""Rows of numbers in a temporary file, for tables larger than memory.

The file has no name: its place on disk is free again when the process ends, however it ends. It is read, not
mapped, so that memory holds what was asked for, and a full disk is an ordinary error.
"""

import errno
import os
import tempfile
import threading
import weakref

import numpy as np


class Spill:
    """Rows of ``width`` numbers each, on disk; rows that were never written hold zeros."""

    def __init__(self, width, dtype):
        self.width, self.dtype = width, np.dtype(dtype)
        self.row_bytes = width * self.dtype.itemsize
        self.file, self.lock = tempfile.TemporaryFile(buffering=0), threading.Lock()  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def rows(self, rows):
        """Return the rows of a slice, in a new array."""
        out = np.zeros((rows.stop - rows.start, self.width), self.dtype)
        view, at = memoryview(out).cast("B"), rows.start * self.row_bytes
        while len(view) and (count := self._read(view, at)):
            view, at = view[count:], at + count
        return out

    def put(self, start, values):
        """Write rows, from the row ``start`` on."""
        if not len(values):
            return
        view = memoryview(np.ascontiguousarray(values, self.dtype)).cast("B")
        at = start * self.row_bytes
        try:
            while len(view):
                count = self._write(view, at)
                view, at = view[count:], at + count
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno,
                f"{tempfile.gettempdir()} has no room for the temporary file of a table larger than memory (so far "
                f"{at / 1e9:.2g} GB). Set the environment variable TMPDIR to a folder with more room, or raise "
                "memory_budget",
            ) from error

    def _read(self, view, at):
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [view], at)
        with self.lock:
            self.file.seek(at)
            return self.file.readinto(view)

    def _write(self, view, at):
        if hasattr(os, "pwrite"):
            return os.pwrite(self.file.fileno(), view, at)
        with self.lock:
            self.file.seek(at)
            return self.file.write(view)
