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
BLOCK = 1 << 20  # bytes that are decoded at a time
PARQUET = b"PAR1\x15"  # what every Parquet file begins with: its mark, and the first byte of what follows
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
        self.count = 0  # bytes taken from raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.left:
            block = self.raw.read(BLOCK)
            self.count += len(block)
            try:
                self.left = self.decoder.decode(block, final=not block).encode()
            except UnicodeError as error:
                before = self.count - len(error.object) if isinstance(error, UnicodeDecodeError) else 0
                raise not_encoded(self.name_shown, self.encoding, error, before) from error
            if not block and not self.left:
                return 0
        count = min(len(buffer), len(self.left))
        buffer[:count], self.left = self.left[:count], self.left[count:]
        return count


def not_encoded(name: str, encoding: str, error: UnicodeError, before: int = 0) -> Fault:
    """The fault of a file that is of another encoding; `before` it was decoded, so many bytes had gone well."""
    at = f" (byte {before + error.start})" if isinstance(error, UnicodeDecodeError) else ""
    return Fault(f"{name} is not {encoding.upper()} text{at}. Set source.encoding, as latin-1 or utf-16.")


@contextmanager
def open_text(file, encoding: str) -> Iterator[io.BufferedReader]:
    """A file's text as UTF-8 bytes without a byte-order mark, from its first byte.

    Raises:
        Fault: the file ends in the middle, or is not what its name says.
    """
    check_is_text(file)
    openers = {None: open, "gzip": gzip.open, "bz2": open_bz2, "xz": open_xz, "zstd": open_zstd}
    try:
        with openers[file.codec](file.path, "rb") as raw:
            stream = raw if is_utf8(encoding) else io.BufferedReader(Recoded(raw, encoding, file.name), BLOCK)
            stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream, BLOCK)
            if stream.peek(3)[:3] == codecs.BOM_UTF8:
                stream.read(3)
            yield stream
    except BROKEN as error:
        raise damaged(file, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(file, error) from error


def check_is_text(file) -> None:
    """Raises a Fault for a Parquet file that bears the name of a CSV."""
    with open(file.path, "rb") as raw:
        if raw.read(len(PARQUET)) == PARQUET:
            raise Fault(f"{file.name} is Parquet by its first bytes and no CSV as its name says. Name it .parquet.")


def is_text(path: str) -> bool:
    """Whether a file begins with a line of text and not with the mark of Parquet."""
    with open(path, "rb") as raw:
        line = raw.readline(BLOCK)
    return not line.startswith(b"PAR1") and line.endswith(b"\n") and all(byte >= 32 or byte in b"\t\r\n" for byte in line)


def damaged(file, error: Exception) -> Fault:
    said = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return Fault(f"{file.name} is no whole {file.codec or 'text'} file ({said}). Write or fetch it again.")


def open_bz2(path: str, mode: str) -> io.BufferedReader:
    return io.BufferedReader(Inflated(open(path, mode), bz2.BZ2Decompressor), BLOCK)


def open_xz(path: str, mode: str) -> io.BufferedReader:
    return io.BufferedReader(Inflated(open(path, mode), lzma.LZMADecompressor), BLOCK)


def open_zstd(path: str, mode: str) -> io.BufferedReader:
    """Through Arrow, which knows zstd already."""
    return io.BufferedReader(ArrowRaw(pa.CompressedInputStream(pa.OSFile(path, mode), "zstd")), BLOCK)


class Inflated(io.RawIOBase):
    """One or more compressed streams in a row; `bz2.open` and `lzma.open` would pass over a second one that is damaged."""

    def __init__(self, raw, start):
        self.raw, self.start, self.inner = raw, start, start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        content = b""
        while not content:
            block = b""
            if self.inner.eof:
                if not (block := self.next_stream()):
                    return 0
                self.inner = self.start()
            elif self.inner.needs_input and not (block := self.raw.read(BLOCK)):
                raise EOFError("it ends too early")
            content = self.inner.decompress(block, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def next_stream(self) -> bytes:
        """The first bytes after a stream and its padding."""
        block = self.inner.unused_data.lstrip(b"\0")
        while not block and (more := self.raw.read(BLOCK)):
            block = more.lstrip(b"\0")
        return block

    def close(self) -> None:
        self.raw.close()
        super().close()


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

    def close(self) -> None:
        self.stream.close()
        super().close()
