"""Which fit a table and a model are of: ``fit --model --out`` writes two files, and two renames cannot be one.

    model (skops, a zip)   the comment of the archive     id of the fit, SHA-256 of the table that was written with it
    .parquet               the attrs of the frame         id of the fit
    .csv.gz                the comment of the archive     id of the fit
    .csv                   nowhere: every character is data to some reader; so the model knows the table by its SHA-256

Other readers see none of this: pandas keeps the attrs of a frame in the metadata of the file, and readers of archives
pass over comments. The id is a digest of what the fit found, so the same fit has the same id, and the same table the
same bytes. Where a mark is lost, in a table that another program wrote again, SHA-256 remains.
"""

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

MARK = "nmf_features_fit"
FITTED = ("components_", "component_scales_", "score_penalties_")
HEADER, EXTRA, NAME, COMMENT = 10, 4, 8, 16  # of gzip (RFC 1952): bytes that are always there, and flags


def fit_id(model):
    """Return a digest of all that scores depend on, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    arrays = {name: getattr(model, name) for name in FITTED if hasattr(model, name)} | getattr(model, "scaling_", {})
    for name, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    names = [str(name) for name in (*model.variables_, *model.get_feature_names_out())]
    digest.update(json.dumps([names, model.projection]).encode())
    return digest.hexdigest()[:32]


def sha256_of(handle):
    """Return the SHA-256 of a whole file that is open for reading."""
    handle.seek(0)
    return hashlib.file_digest(handle, "sha256").hexdigest()


def marked(table, fit):
    """Return a table that remembers its fit, in its attrs; the mark of another fit goes."""
    table = table.copy(deep=False)
    table.attrs = {name: value for name, value in table.attrs.items() if name != MARK} | ({MARK: fit} if fit else {})
    return table


def with_comment(model, fit, table):
    """Return the bytes of a zip with a comment that names the fit, and the SHA-256 of a table (None: there is none)."""
    data = io.BytesIO(model)
    with zipfile.ZipFile(data, "a") as archive:
        archive.comment = json.dumps({MARK: fit, "table": table}).encode()
    return data.getvalue()


def comment_of(path):
    """Return the fit of a model file and the SHA-256 of its table; None for what is not there."""
    with zipfile.ZipFile(path) as archive:
        try:
            comment = json.loads(archive.comment)
            return comment[MARK], comment["table"]
        except (ValueError, KeyError, TypeError):
            return None, None


def mark_of(path):
    """Return the fit that a table, or all files in a folder, are marked with; None if there is no mark, or several."""
    if os.path.isdir(path):
        marks = {mark_of(part) for part in Path(path).glob("*.parquet")}
        return marks.pop() if len(marks) == 1 else None
    with open(path, "rb") as handle:
        start = handle.read(4)
        if start == b"PAR1":
            return _mark_of_parquet(path)
        return _mark_of_gzip(handle) if start[:3] == b"\x1f\x8b\x08" else None


def _mark_of_parquet(path):
    from pyarrow.parquet import read_schema

    attrs = json.loads((read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", "{}"))
    return attrs.get(MARK)


def _mark_of_gzip(handle):
    handle.seek(3)
    flags = handle.read(1)[0]
    handle.seek(HEADER)
    if flags & EXTRA:
        handle.seek(struct.unpack("<H", handle.read(2))[0], io.SEEK_CUR)
    if flags & NAME:
        _text(handle)
    kind, _, fit = (_text(handle) if flags & COMMENT else "").partition(" ")
    return fit if kind == MARK else None


def _text(handle):
    return b"".join(iter(lambda: handle.read(1).replace(b"\0", b""), b"")).decode("latin-1")


class MarkedGzip(io.BufferedIOBase):
    """A gzip file to write to: as of ``gzip.GzipFile`` without name and time, but with a mark as its comment."""

    def __init__(self, handle, fit):
        self.handle, self.check, self.size = handle, 0, 0
        self.deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        comment = f"{MARK} {fit}\0".encode("latin-1") if fit else b""
        handle.write(b"\x1f\x8b\x08" + bytes([COMMENT if comment else 0, 0, 0, 0, 0, 2, 255]) + comment)

    def writable(self):
        """Whether it can be written to."""
        return True

    def write(self, data):
        """Compress and write bytes."""
        self.check, self.size = zlib.crc32(data, self.check), self.size + len(data)
        self.handle.write(self.deflate.compress(data))
        return len(data)

    def close(self):
        """Write the rest, with the check sum."""
        if not self.closed:
            self.handle.write(self.deflate.flush() + struct.pack("<II", self.check, self.size & 0xFFFFFFFF))
        super().close()
