"""Single frames of DICOM ultrasound, as they are meant to be shown; of the header nothing else is used."""

import io
import logging

import numpy as np
from PIL import Image

from busflow.data.grey import to_8_bits
from busflow.data.images import UnusableImage, check_size

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
PALETTE = "PALETTE COLOR"
# What pydicom says of a header may quote it, the patient's name included: it goes into no log.
logging.getLogger("pydicom").disabled = True


def decode_dicom(data: bytes) -> np.ndarray:
    """Decode a DICOM file (PS3.3 C.7.6.3, C.11) to grey levels.

    Grey values go through the rescale (or modality table) and the first window (or table) of the file, whose
    range becomes 0..255; without a window, 8 bits stand as they are and more are scaled by
    `busflow.data.grey.to_8_bits`. MONOCHROME1, where low means white, is inverted. RGB, YBR and palettes
    become luma (ITU-R 601). What is burnt into the picture stays, patients' names too.

    Returns:
        uint8 array [height, width], 0..255.

    Raises:
        UnusableImage: no DICOM file, damaged, without a picture, of several frames, of an unknown photometric
            interpretation, or compressed in a way that no installed library undoes. No value of the header
            is told.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        _check(dataset)
        return _shown(dataset)
    except UnusableImage:
        raise
    except InvalidDicomError:
        raise UnusableImage("not an image: its content is no DICOM file") from None
    except Exception as error:  # the error's own words may quote the header
        raise UnusableImage(f"damaged: its DICOM pixels cannot be decoded ({type(error).__name__})") from None


def _check(dataset) -> None:
    if "PixelData" not in dataset:
        raise UnusableImage("no picture: the DICOM file has no pixels")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise UnusableImage(f"several frames: it holds {frames} pictures, not one")
    check_size(int(dataset.Columns), int(dataset.Rows))
    kind = str(dataset.PhotometricInterpretation)
    if kind not in (*GREY, *COLOUR, PALETTE):
        raise UnusableImage(
            "unsupported pixels: the photometric interpretation is none of grey, RGB, YBR, palette"
        )
    if kind in COLOUR and dataset.BitsAllocated != 8:
        raise UnusableImage("unsupported pixels: 16 bits per channel in colour")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not _can_decode(syntax):
        raise UnusableImage(
            f"unsupported compression: {syntax.name}; store it uncompressed (dcmdjpeg, gdcmconv)"
        )


def _can_decode(syntax) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _shown(dataset) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    kind = str(dataset.PhotometricInterpretation)
    pixels = dataset.pixel_array  # YBR is RGB by now
    if kind == PALETTE:
        colours = apply_color_lut(pixels, dataset)
        pixels = (colours >> 8 if colours.dtype == np.uint16 else colours).astype(np.uint8)
    if pixels.ndim == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    values = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence") or dataset.get("WindowWidth"):
        grey = _windowed(values, dataset)
    elif dataset.BitsAllocated == 8 and values.dtype == np.uint8:
        grey = values
    else:
        grey = to_8_bits(np.clip(np.rint(values), 0, 0xFFFF).astype(np.uint16))
    return 255 - grey if kind == "MONOCHROME1" else grey


def _windowed(values: np.ndarray, dataset) -> np.ndarray:
    """The values through the first table or window of the file, whose range becomes 0..255."""
    from pydicom.pixels import apply_voi, apply_windowing

    if dataset.get("VOILUTSequence"):
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
        shown = apply_voi(values, dataset, index=0)
    else:
        with np.errstate(over="ignore"):  # a sigmoid window, far from its centre
            low, high = apply_windowing(np.array([-1e9, 1e9]), dataset, index=0)
            shown = apply_windowing(values, dataset, index=0)
    if not low < high:
        raise UnusableImage("unsupported pixels: the window of the DICOM file has no width")
    return np.clip(np.rint((shown - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
