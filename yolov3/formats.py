"""Read the picture files that TensorFlow does not decode by Pillow, and name the formats that cannot be read.

A format is recognised by the content of the file, whatever its name.
"""

import contextlib
import io
import os
import re
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

from yolov3.checks import UserError

import numpy as np

HEAD_BYTES = 64  # that tell a format
PILLOW = ("AVIF", "WEBP", "TIFF", "JPEG2000", "BMP", "PPM", "HEIF")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
TIFF = (b"II*\0", b"MM\0*")
UNREADABLE = {  # first bytes -> format
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL",
    b"8BPS": "a Photoshop file",
    b"v/1\x01": "an OpenEXR",
    b"FUJIFILMCCD-RAW": "a raw picture of a camera",
    b"IIU\0": "a raw picture of a camera",
    b"IIRO": "a raw picture of a camera",
    b"\0\0\0\x18ftypcrx ": "a raw picture of a camera",
    b"<svg": "an SVG drawing",
}
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
PLAIN_BMP_BITS = (8, 24, 32)
NEW_SUBFILE_TYPE, DNG_VERSION = 254, 50706  # TIFF tags
REDUCED = 1  # of NEW_SUBFILE_TYPE: a preview of another picture in the file
HEIF_REMEDY = "pip install -r requirements/heic.txt, or save it as JPEG or PNG"
SAVE_AS = "save it as JPEG or PNG"
DECODERS_WORDS = (  # with which libjpeg, libpng and libtiff begin the lines that they print
    *("Corrupt JPEG", "Premature end of", "Improper call to JPEG", "Empty JPEG", "Empty input", "Not a JPEG", "Bogus "),
    *("Invalid JPEG", "Invalid SOS", "Invalid component", "Invalid progressive", "Invalid scan", "Invalid crop"),
    *("Invalid color", "Inconsistent prog", "Quantization table", "Arithmetic table", "Huffman ", "Missing Huffman"),
    *("Unsupported JPEG", "Unsupported marker", "Unsupported color", "Unknown Adobe", "Warning: unknown "),
    *("JPEG datastream", "Application transferred", "Fractional sampling", "Sampling factors", "Component index"),
    *("Too many color", "Cannot quantize", "DCT coefficient", "DCT scaled", "CCIR601 ", "Maximum supported image"),
    *("Insufficient memory (", "Backing store", "Suspension not allowed", "Input file read", "Didn't expect more than"),
    *("libpng ", "tempfile.tif: "),
)
DECODERS_WARNINGS = re.compile(
    rb"^(" + "|".join(map(re.escape, DECODERS_WORDS)).encode() + rb"|(JPEG|TIFF)\w*: )[^\n]*\n?", re.MULTILINE
)


def looks_like_picture(head: bytes) -> bool:
    """Return whether a file's first HEAD_BYTES are those of a picture, of whatever format, readable or not."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", *TIFF, *JPEG_2000, *UNREADABLE)
    is_ppm = head[:1] == b"P" and head[1:2] in (b"4", b"5", b"6") and head[2:3].isspace()
    return head.startswith(starts) or is_ppm or _is_bmp(head) or _is_webp(head) or bool(_iso_brand(head))


def is_plain_bmp(data: bytes) -> bool:
    """Return whether a BMP is one that TensorFlow decodes: whole bytes for each pixel, not compressed."""
    size, _, _, _, bits, compression = struct.unpack("<IiiHHI", data[14:34].ljust(20, b"\0"))
    return size >= 40 and bits in PLAIN_BMP_BITS and compression == 0


def read_with_pillow(data: bytes, path, max_pixels: int) -> np.ndarray:
    """Return the first picture of a file's bytes as uint8 (H, W, 3), RGB, upright.

    Raises UserError, naming `path`, if its format cannot be read, it is truncated or damaged, or, before it is decoded,
    has more than max_pixels.
    """
    from PIL import Image, ImageOps  # only here: few pictures need it, and inference under TensorFlow 2.10 none

    brand = _iso_brand(data)
    if brand == "HEIF":
        try:
            import pi_heif
        except ImportError:
            raise UserError(f"picture {path} is a HEIC, which needs pi-heif: {HEIF_REMEDY}") from None
        pi_heif.register_heif_opener()
    known = next((name for start, name in UNREADABLE.items() if data.startswith(start)), None)
    if known:
        raise UserError(f"picture {path} is {known}, which cannot be read: {SAVE_AS}")
    try:
        Image.MAX_IMAGE_PIXELS = None  # max_pixels is the limit, whichever module was imported first
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata
        with Image.open(io.BytesIO(data), formats=PILLOW if brand == "HEIF" else PILLOW[:-1]) as image:
            _check(image, path, max_pixels)
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image), path)
    except UserError:
        raise
    except Image.UnidentifiedImageError:
        if not (looks_like_picture(data[:HEAD_BYTES]) or data.startswith(b"BM")):
            formats = "JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF, HEIC or JPEG 2000"
            raise UserError(f"{path} is not a picture that can be read: it must be {formats}") from None
    except MemoryError:
        raise UserError(f"picture {path} does not fit into memory: make it smaller") from None
    except Exception:  # Pillow's decoders raise what they meet: struct.error, KeyError, SyntaxError, OSError ...
        pass
    raise UserError(f"picture {path} is truncated or damaged")


class _Quiet:
    """Hide the warnings that C libraries print about damaged pictures, about which our own messages tell.

    The libraries write to file descriptor 2, so that it is a temporary file while any thread decodes. Everything else
    that was written meanwhile is printed when the last thread is done.
    """

    def __init__(self):
        self._lock, self._threads = threading.Lock(), 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._threads:
                self._start()
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    self._end()

    def _start(self):
        self._kept = None
        with contextlib.suppress(OSError):  # standard error may be closed, or no file can be made
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed in _end
            self._kept = os.dup(2)
            os.dup2(self._file.fileno(), 2)

    def _end(self):
        if self._kept is None:
            return
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        os.dup2(self._kept, 2)
        os.close(self._kept)
        with self._file as file:
            if file.tell():
                file.seek(0)
                if rest := DECODERS_WARNINGS.sub(b"", file.read()):
                    with contextlib.suppress(OSError):
                        os.write(2, rest)


quiet = _Quiet()  # with quiet(): decode


def _check(image, path, max_pixels):
    """Raise UserError if an opened picture is too large, or is not the picture that the file is about."""
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(f"picture {path} is {width} x {height}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows")
    if image.format == "TIFF":
        tags = image.tag_v2
        if DNG_VERSION in tags or tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED:
            raise UserError(f"picture {path} is a raw picture of a camera, which cannot be read: {SAVE_AS}")


def _as_rgb(image, path):
    """Return a Pillow picture as uint8 (H, W, 3), RGB, without alpha; of 16 bits the upper 8, as TensorFlow does."""
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    elif image.mode in ("I", "F", "LAB"):
        raise UserError(f"picture {path} has pixels of a kind that cannot be read ({image.mode}): {SAVE_AS}")
    return np.array(image.convert("RGB"))


def _is_bmp(head):
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS


def _is_webp(head):
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


def _iso_brand(head):
    """Return "HEIF" or "AVIF" by the brands of an ISO media file, "" for any other file."""
    if head[4:8] != b"ftyp":
        return ""
    brands = [head[i : i + 4] for i in (8, *range(16, min(len(head), int.from_bytes(head[:4], "big"), HEAD_BYTES), 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIF" if any(brand in HEIF_BRANDS for brand in brands) else ""
