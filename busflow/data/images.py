"""Image files: decoding to 8-bit grey, and the fingerprints by which images are compared."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from busflow.data.grey import to_8_bits

MIN_SIDE = 8
MAX_PIXELS = 50_000_000
COLOUR_MODES = ("P", "RGB", "RGBA")
MODES = ("1", "L", "LA", *COLOUR_MODES)
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
DICOM = (".dcm", ".dicom")
# What readers take for images; other files are not opened.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", *DICOM)
# The flattest of 1406 real images (BUSI 780, Rodrigues 250, BUS-BRA 376) has 126 grey levels. A constant
# image has one, a mask in the place of an image two, an empty frame with noise a handful.
MIN_LEVELS = 16
# Of BUSI's 665 masks of lesions none touches a corner of the image and the largest covers 56 % of it; with
# foreground and background swapped, every one touches all four corners.
MAX_LESION = 0.75
THUMBNAIL_SIDE = 64

_FORMATS = Image.registered_extensions()


class UnusableImage(Exception):
    """An image cannot be used; the message is the reason that goes to the quarantine."""


def decode(data: bytes, suffix: str) -> np.ndarray:
    """Decode an image file to grey levels, as a person sees it.

    Colour becomes luma (ITU-R 601), so equal channels keep their value; alpha is ignored; an EXIF
    orientation is applied. Grey of 16 bits is scaled by `busflow.data.grey.to_8_bits`; DICOM files are read
    by `busflow.data.dicom.decode_dicom`.

    Args:
        data: the file's bytes.
        suffix: of the file's name, with the dot; the content must be of that format.

    Returns:
        uint8 array [height, width], 0..255 (a 1-bit image gives 0 and 255).

    Raises:
        UnusableImage: damaged, of another format than the suffix says, of a pixel type whose grey
            scale is a guess (CMYK, 16-bit colour ...), of several frames, or absurdly small or large.
    """
    return _grey(_decoded(data, suffix))


def decode_both(data: bytes, suffix: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The same, and uint8 array [height, width, 3] if the file has colours: red, green and blue."""
    picture = _decoded(data, suffix)
    coloured = isinstance(picture, Image.Image) and picture.mode in COLOUR_MODES
    return _grey(picture), np.asarray(picture.convert("RGB")) if coloured else None


def decode_colour(data: bytes, suffix: str) -> np.ndarray:
    """The same as uint8 array [height, width, 3], red, green and blue; grey becomes three equal channels."""
    picture = _decoded(data, suffix)
    if isinstance(picture, np.ndarray):
        return np.repeat(picture[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def _grey(picture: Image.Image | np.ndarray) -> np.ndarray:
    return picture if isinstance(picture, np.ndarray) else np.asarray(picture.convert("L"))


def _decoded(data: bytes, suffix: str) -> Image.Image | np.ndarray:
    """A picture of 8 bits a channel, in colour or grey; a DICOM file, or one of 16 bits, as grey levels."""
    if not data:
        raise UnusableImage("empty file: it has no bytes")
    if suffix.lower() in DICOM:
        from busflow.data.dicom import decode_dicom  # most datasets have none

        return decode_dicom(data)
    try:
        # verify() reads every checksum but no pixels: bit flips that still inflate are found.
        Image.open(io.BytesIO(data)).verify()
        image = Image.open(io.BytesIO(data))
        _check(image, suffix)
        image.load()
        image = ImageOps.exif_transpose(image)
        return to_8_bits(np.asarray(image)) if image.mode in DEEP_MODES else image
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("not an image: its content is of no known format") from None
    except Image.DecompressionBombError:
        raise UnusableImage(f"absurd size: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # damaged data makes decoders raise nearly anything
        raise UnusableImage(f"damaged: {error}") from error


def check_size(width: int, height: int) -> None:
    """Refuse what cannot be a picture, before it is decoded.

    Raises:
        UnusableImage: a side is shorter than ``MIN_SIDE`` or it has more than ``MAX_PIXELS``.
    """
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        raise UnusableImage(
            f"absurd size: {width} × {height} px (at least {MIN_SIDE} a side, at most {MAX_PIXELS} in all)"
        )


def check_contrast(grey: np.ndarray) -> None:
    """Refuse a picture of nothing; ``grey`` is uint8 [height, width].

    Raises:
        UnusableImage: it has fewer than ``MIN_LEVELS`` grey levels, as no ultrasound image does.
    """
    levels = _levels(grey)
    if len(levels) < MIN_LEVELS:
        raise UnusableImage(
            f"no ultrasound image: it has {len(levels)} grey levels, {levels[0]} to {levels[-1]} "
            f"(at least {MIN_LEVELS})"
        )


def decode_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a lesion mask: one grey level for the lesion, black around it.

    The colour tells, not the alpha: BUSI has RGBA masks that are opaque all over.

    Args:
        path: an existing file.
        shape: height and width of the image that the mask belongs to.

    Returns:
        bool array [height, width], true in the lesion.

    Raises:
        UnusableImage: what `decode` refuses, another shape, more levels than two, or a lesion that takes all
            four corners or more than ``MAX_LESION`` of the image: foreground and background are swapped.
    """
    try:
        mask = decode(path.read_bytes(), path.suffix)
    except UnusableImage as problem:
        raise UnusableImage(f"unusable mask: {path.name} is {problem}") from problem
    if mask.shape != shape:
        sizes = f"{path.name} is {mask.shape[1]} × {mask.shape[0]} px, the image {shape[1]} × {shape[0]} px"
        raise UnusableImage(f"mask of another size: {sizes}")
    levels = _levels(mask)
    if len(levels) > 2 or levels[0] != 0:
        raise UnusableImage(
            f"mask not binary: {path.name} has {len(levels)} grey levels, {levels[0]} the lowest"
        )
    check_lesion(path.name, mask > 0)
    return mask > 0


def check_lesion(name: str, lesion: np.ndarray) -> None:
    """Refuse a lesion, bool [height, width], that is the background; ``name`` is its mask's.

    Raises:
        UnusableImage: it takes all four corners or more than ``MAX_LESION`` of the image.
    """
    if lesion[[0, 0, -1, -1], [0, -1, 0, -1]].all() or lesion.mean() > MAX_LESION:
        raise UnusableImage(
            f"swapped mask: {name} marks {lesion.mean():.0%} of the image or all its corners as lesion"
        )


def _levels(grey: np.ndarray) -> np.ndarray:
    """The grey levels of a uint8 array, sorted; np.unique would sort all pixels, which takes long."""
    return np.flatnonzero(np.bincount(grey.ravel(), minlength=256))


def pixel_sha256(grey: np.ndarray) -> str:
    """Hex SHA-256 of shape and pixels of a uint8 array [height, width], whatever file it came from."""
    height, width = grey.shape
    return hashlib.sha256(f"{height}x{width}:".encode() + grey.tobytes()).hexdigest()


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """Shrink a uint8 array [height, width] to [64, 64] by area averaging; proportions are not kept."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _check(image: Image.Image, suffix: str) -> None:
    expected = _FORMATS.get(suffix.lower())
    if image.format != expected:
        raise UnusableImage(
            f"wrong suffix: the content is {image.format}, the name says {expected or suffix}"
        )
    check_size(*image.size)
    if getattr(image, "n_frames", 1) != 1:
        raise UnusableImage(f"several frames: it holds {image.n_frames} pictures, not one")
    if image.mode in DEEP_MODES:
        return
    # Pillow reduces 16-bit colour to 8 bits without a word; only the tile's raw mode shows it.
    if ";16" in str(image.tile):
        raise UnusableImage("unsupported pixels: 16 bits per channel in colour")
    if image.mode not in MODES:
        raise UnusableImage(f"unsupported pixels: colour mode {image.mode}")
