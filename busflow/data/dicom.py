"""Single frames of DICOM ultrasound, as they are meant to be shown; of the header nothing else is used."""

import io
import logging
import warnings

import numpy as np
from PIL import Image

from busflow.data.grey import to_8_bits
from busflow.data.images import UnusableImage, check_size

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
PALETTE = "PALETTE COLOR"
# What is read of a data set: its pixels, how they are laid out, and the tables and windows they go through.
LUTS = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
TAGS = [
    *(
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
    ),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *LUTS,
]
# What pydicom says of a header may quote it: it goes into no log.
logging.getLogger("pydicom").disabled = True
warnings.filterwarnings("ignore", module=r"pydicom\b")


def decode_dicom(data: bytes) -> np.ndarray:
    """Decode a DICOM file (PS3.3 C.7.6.3, C.11) to grey levels.

    Grey values go through the rescale (or modality table) and the first window (or table) of the file, whose
    range becomes 0..255; without a window, 8 bits stand as they are and more are scaled by
    `busflow.data.grey.to_8_bits`. MONOCHROME1, where low means white, is inverted. RGB, YBR and palettes
    become luma (ITU-R 601). What is burnt into the picture stays, patients' names too. Of the header only
    ``TAGS`` are read.

    Returns:
        uint8 array [height, width], 0..255.

    Raises:
        UnusableImage: no DICOM file, damaged, without a picture, of several frames, of an unknown photometric
            interpretation, or compressed in a way that no installed library undoes. No value of the header
            is told.
    """
    from pydicom import config
    from pydicom.errors import InvalidDicomError

    config.settings.reading_validation_mode = config.IGNORE
    try:
        dataset = _read(data)
        _check(dataset)
        return _shown(dataset)
    except UnusableImage:
        raise
    except InvalidDicomError:
        raise UnusableImage("not an image: its content is no DICOM file") from None
    except Exception as error:  # the error's own words may quote the header
        raise UnusableImage(f"damaged: its DICOM pixels cannot be decoded ({type(error).__name__})") from None


def _read(data: bytes):
    """The ``TAGS`` of a DICOM file; a compression that is not undone is refused before anything else is read.

    pydicom's dcmread would inflate a deflated data set whole, before its size can be known.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.tag import Tag

    stream = io.BytesIO(data)
    preamble = read_preamble(stream, force=False)
    meta = read_dataset(
        stream,
        False,
        True,
        stop_when=lambda tag, *_: tag.group != 2,
        specific_tags=[Tag("TransferSyntaxUID")],
    )
    syntax = meta.TransferSyntaxUID
    if syntax.is_deflated or (syntax.is_compressed and not _can_decode(syntax)):
        raise UnusableImage(
            f"unsupported compression: {syntax.name}; store it uncompressed (dcmconv, dcmdjpeg, gdcmconv)"
        )
    layout = syntax.is_implicit_VR, syntax.is_little_endian
    dataset = read_dataset(stream, *layout, specific_tags=[Tag(name) for name in TAGS])
    return FileDataset(stream, dataset, preamble, FileMetaDataset(meta), *layout)


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
