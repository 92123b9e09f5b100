"""The bytes of a CSV as UTF-8, whatever they were compressed or encoded with."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from models.errors import Fault

CODECS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
# Encodings whose bytes below 128 are always those of ASCII, so that rows can be told apart without decoding.
PLAIN = {"utf-8", "ascii", "iso8859-1", "latin-1", "iso8859-15", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254"}
BROKEN = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, pa.ArrowException)


def find_encoding(encoding: str) -> codecs.CodecInfo:
    """Python's codec of that name.

    Raises:
        Fault: there is none that reads text.
    """
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, UnicodeError, ValueError) as error:
        raise Fault(f"source.encoding {encoding!r} is none that Python knows; use one as utf-8, latin-1 or utf-16.") from error
    return found


def is_plain(encoding: str) -> bool:
    return find_encoding(encoding).name in PLAIN


def is_utf8(encoding: str) -> bool:
    return find_encoding(encoding).name in ("utf-8", "ascii")


class Recoded(io.RawIOBase):
    """A stream of another encoding, read as UTF-8."""

    def __init__(self, raw, encoding: str, name: str):
        self.raw, self.encoding, self.name_shown = raw, encoding, name
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.left:
            block = self.raw.read(1 << 20)
            try:
                self.left = self.decoder.decode(block, final=not block).encode()
            except UnicodeError as error:
                raise not_encoded(self.name_shown, self.encoding, error) from error
            if not block and not self.left:
                return 0
        count = min(len(buffer), len(self.left))
        buffer[:count], self.left = self.left[:count], self.left[count:]
        return count


def not_encoded(name: str, encoding: str, error: UnicodeError) -> Fault:
    at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
    return Fault(f"{name} is not {encoding.upper()} text{at}. Set source.encoding, as latin-1 or utf-16.")


@contextmanager
def open_text(file, encoding: str) -> Iterator[io.BufferedReader]:
    """A file's text as UTF-8 bytes without a byte-order mark, from its first byte.

    Raises:
        Fault: the file ends in the middle, or is not what its name says.
    """
    openers = {None: open, "gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, "zstd": open_zstd}
    try:
        with openers[file.codec](file.path, "rb") as raw:
            stream = raw if is_utf8(encoding) else io.BufferedReader(Recoded(raw, encoding, file.name), 1 << 20)
            stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream, 1 << 20)
            if stream.peek(3)[:3] == codecs.BOM_UTF8:
                stream.read(3)
            yield stream
    except BROKEN as error:
        raise damaged(file, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(file, error) from error


def damaged(file, error: Exception) -> Fault:
    said = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return Fault(f"{file.name} is no whole {file.codec or 'text'} file ({said}). Write or fetch it again.")


def open_zstd(path: str, mode: str):
    """Through Arrow, which knows zstd already."""
    return io.BufferedReader(ArrowRaw(pa.CompressedInputStream(pa.OSFile(path), "zstd")), 1 << 20)


class ArrowRaw(io.RawIOBase):
    """An Arrow stream as Python's own kind."""

    def __init__(self, stream):
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
