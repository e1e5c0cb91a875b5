"""DICOM files, written by pydicom and compared with the pixels that they were made of."""

import io
import logging
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    UltrasoundImageStorage,
)

from busflow.data.dicom import _read
from busflow.data.images import UnusableImage, decode

ROOT = Path(__file__).parents[2]

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
NAME = "Doe^Jane"


def dicom(pixels: np.ndarray, syntax=ExplicitVRLittleEndian, **elements) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.PatientID, dataset.Modality = NAME, "4711", "US"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(UnusableImage) as error:
        decode(data, ".dcm")
    return str(error.value)


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ".dicom"])
def test_grey_of_8_bits_is_taken_as_it_stands(suffix):
    np.testing.assert_array_equal(decode(dicom(GREY), suffix), GREY)


def test_monochrome1_is_inverted():
    data = dicom(GREY, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode(data, ".dcm"), 255 - GREY)


def test_rgb_and_ybr_become_luma():
    colour = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(decode(dicom(colour), ".dcm"), luma)
    ybr = np.asarray(Image.fromarray(colour).convert("YCbCr"))
    shown = decode(dicom(ybr, PhotometricInterpretation="YBR_FULL"), ".dcm")
    assert np.abs(shown.astype(int) - luma).max() <= 2


def test_planes_of_colour_are_read_as_such():
    colour = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    data = dicom(colour, PixelData=np.moveaxis(colour, 2, 0).tobytes(), PlanarConfiguration=1)
    np.testing.assert_array_equal(decode(data, ".dcm"), np.asarray(Image.fromarray(colour).convert("L")))


def test_a_palette_shows_its_colours():
    table = np.arange(256, dtype="<u2")[::-1].copy() * 257
    lut = {f"{name}PaletteColorLookupTableData": table.tobytes() for name in ("Red", "Green", "Blue")}
    lut |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    data = dicom(GREY, PhotometricInterpretation="PALETTE COLOR", **lut)
    np.testing.assert_array_equal(decode(data, ".dcm"), 255 - GREY)


def test_a_header_without_kinds_of_values_is_read_as_one_with_them():
    table = np.arange(256, dtype="<u2")[::-1].copy() * 257
    lut = {f"{name}PaletteColorLookupTableData": table.tobytes() for name in ("Red", "Green", "Blue")}
    lut |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    data = dicom(GREY, ImplicitVRLittleEndian, PhotometricInterpretation="PALETTE COLOR", **lut)
    np.testing.assert_array_equal(decode(data, ".dcm"), 255 - GREY)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_wide_grey_without_a_window_is_scaled_by_the_depth_it_uses(bits):
    top = 2**bits - 1
    wide = np.linspace(0, top, 2000).reshape(40, 50).round().astype(np.uint16)
    expected = np.rint(wide / top * 255)
    assert np.abs(decode(dicom(wide), ".dcm") - expected).max() <= 0.5


def test_the_first_window_maps_to_black_and_white():
    wide = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    shown = decode(dicom(wide, WindowCenter=[1000, 5], WindowWidth=[501, 2]), ".dcm").astype(int)
    expected = np.clip((wide.astype(float) - 749.5) / 500 * 255, 0, 255)  # PS3.3 C.11.2.1.2
    assert np.abs(shown - expected).max() <= 0.51


def test_the_usual_window_of_8_bits_changes_nothing():
    np.testing.assert_array_equal(decode(dicom(GREY, WindowCenter=128, WindowWidth=256), ".dcm"), GREY)


def test_the_rescale_comes_before_the_window():
    wide = np.arange(2000, dtype=np.int16).reshape(40, 50)
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000, "WindowWidth": 1001}
    shown = decode(dicom(wide, **rescaled), ".dcm").astype(int)
    expected = np.clip((2.0 * wide - 1000 - 499.5) / 1000 * 255, 0, 255)
    assert np.abs(shown - expected).max() <= 0.51


def test_jpeg_inside_dicom_is_decoded():
    smooth = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95)
    from pydicom.encaps import encapsulate

    data = dicom(smooth, JPEGBaseline8Bit, PixelData=encapsulate([file.getvalue()]))
    assert np.abs(decode(data, ".dcm").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(GREY, NumberOfFrames=2, PixelData=GREY.tobytes() * 2), "several frames: it holds 2 pictures"),
        (dicom(GREY, Rows=7), "absurd size: 50 × 7 px"),
        (dicom(GREY, Rows=60_000, Columns=60_000), "absurd size: "),
        (dicom(GREY, PhotometricInterpretation="HSV"), "unsupported pixels: the photometric interpretation"),
        (dicom(GREY)[:400], "no picture: the DICOM file has no pixels"),
        (dicom(GREY)[:-900], "damaged: its DICOM pixels cannot be decoded"),
        (b"plain text" * 50, "not an image: its content is no DICOM file"),
        (b"", "empty file"),
    ],
)
def test_what_is_no_single_sound_picture_is_refused(data, reason):
    assert refusal(data).startswith(reason)


def test_a_compression_that_nothing_here_undoes_is_named():
    data = dicom(GREY, JPEGLSLossless, PixelData=pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"]))
    assert "unsupported compression: JPEG-LS Lossless" in refusal(data)


def test_a_deflated_file_is_refused_before_it_is_inflated():
    small = dicom(GREY, DeflatedExplicitVRLittleEndian)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = small[: small.index(b"1.2.840.10008.1.2.1.99") + 22] + squeezer.compress(bytes(64 << 20))
    tracemalloc.start()
    for data in (small, bomb + squeezer.flush()):
        assert refusal(data).startswith(
            "unsupported compression: Deflated Explicit VR Little Endian; store it"
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_nothing_of_the_header_is_told(caplog, recwarn):
    warnings.simplefilter("always")
    with caplog.at_level(logging.DEBUG):
        odd = dicom(GREY)
        odd = odd.replace(b"4711", b"47\xff1")
        decode(odd, ".dcm")
        refusal(dicom(GREY, WindowWidth=0, WindowCenter=3)[:-900])
    assert NAME not in caplog.text and "47" not in caplog.text
    assert [w for w in recwarn if NAME in str(w.message)] == []


def with_charset(data: bytes, charset: bytes) -> bytes:
    """The file with a character set of the data set's own, which nobody knows."""
    element = b"\x08\0\5\0CS" + len(charset).to_bytes(2, "little") + charset
    start = data.index(b"\x08\0\x60\0CS")  # the modality
    return data[:start] + element + data[start:]


def with_private_sequence(data: bytes) -> bytes:
    """A sequence of unknown length at the end, in which a character set is the patient's name."""
    item = b"\xfe\xff\0\xe0" + b"\xff" * 4 + b"\x08\0\5\0CS\x08\0" + NAME.encode()
    item += b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    start = data.index(b"\x28\0\2\0US")  # samples per pixel
    return data[:start] + b"\x11\0\x10\x10SQ\0\0" + b"\xff" * 4 + item + data[start:]


def test_nothing_of_the_header_is_told_when_warnings_are_errors(tmp_path):
    """In a process of its own, which prints all that is logged or warned of."""
    odd = {
        "sound": dicom(GREY),
        "birthday": dicom(GREY, PatientBirthDate="20200101").replace(b"20200101", NAME.encode()),
        "charset": with_charset(dicom(GREY), NAME.encode()),
        "nested": with_private_sequence(dicom(GREY)),
        "window": dicom(GREY, WindowCenter=12345678, WindowWidth=20).replace(b"12345678", NAME.encode()),
        "frames": dicom(GREY, NumberOfFrames=12345678).replace(b"12345678", NAME.encode()),
        "kind": dicom(GREY, PhotometricInterpretation=NAME),
        "syntax": dicom(GREY).replace(b"1.2.840.10008.1.2.1\0", NAME.encode().ljust(20, b"\0")),
        "cut off": dicom(GREY)[:-900],
    }
    for name, data in odd.items():
        (tmp_path / f"{name}.dcm").write_bytes(data)
    program = """
import logging, pathlib, sys
logging.basicConfig(level=logging.DEBUG)
from busflow.data.images import UnusableImage, decode
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print(path.stem, decode(path.read_bytes(), ".dcm").shape)
    except UnusableImage as error:
        print(path.stem, error)
"""
    command = [sys.executable, "-W", "error", "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "" and "Doe" not in done.stdout
    shown = {line.removesuffix(" (40, 50)") for line in done.stdout.splitlines() if "(40, 50)" in line}
    assert shown == {"sound", "birthday", "charset", "nested"} and len(done.stdout.splitlines()) == len(odd)


def test_tags_of_the_patient_are_not_read():
    dataset = _read(dicom(GREY, WindowCenter=128, WindowWidth=256))
    assert "PatientName" in pydicom.dcmread(io.BytesIO(dicom(GREY)))
    assert {"PatientName", "PatientID", "Modality"}.isdisjoint(dataset.dir())
    assert dataset.WindowWidth == 256 and len(dataset.PixelData) == GREY.size
