"""How much longer a described source takes to read than its images to decode.

Each kind of source is written once: a folder with a CSV whose images are PNG, JPEG or DICOM, and pairs of
images and masks.
A round decodes all its images in this process, and then reads the source: table or names, checks, hashes,
thumbnails, index of the source. Both run on one core, one after the other, so that the machine's speed
cancels out. A folder's listing and copy, with all hashes, are given as a ratio to the decoding too.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from busflow.data.archives import unpack
from busflow.data.images import decode
from busflow.data.inspection import read_source
from busflow.data.sources import fetch_source

TABLE = {"table": {"file": "cases.csv", "image": "file", "label": "diagnosis", "unit": "patient"}}
PAIRS = {"pairs": {"image": "{label}/{name}.png", "mask": "{label}/{name}_mask.png", "unit": "(?P<unit>.+)"}}


def picture(rng: np.random.Generator) -> np.ndarray:
    speckle = cv2.GaussianBlur(rng.rayleigh(60, (470, 560)).astype(np.float32), (5, 3), 0)
    return speckle.clip(0, 255).astype(np.uint8)


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def write_source(folder: Path, kind: str, n: int) -> None:
    """A folder of ``n`` images, with a table or with masks."""
    rng, rows = np.random.default_rng(0), ["file,diagnosis,patient"]
    for number in range(n):
        label = ("benign", "malignant")[number % 2]
        path = folder / label / f"{number:06}.{'png' if kind == 'pairs' else kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(rng)
        write_dicom(path, pixels) if kind == "dcm" else cv2.imwrite(str(path), pixels)
        rows.append(f"{label}/{path.name},{label},{number // 5}")
        if kind == "pairs":
            mask = np.zeros_like(pixels)
            mask[100:200, 100:200] = 255
            cv2.imwrite(str(path.with_name(f"{path.stem}_mask.png")), mask)
    if kind != "pairs":
        (folder / "cases.csv").write_text("\n".join(rows))


def seconds(work, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def decode_all(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        if path.suffix != ".csv":
            decode(path.read_bytes(), path.suffix)


def bring(source: Path, scratch: Path, number: int) -> None:
    """List the folder with hashes and copy it, as the workflow does."""
    archives = scratch / f"archives{number}"
    settings = {"archive": "mine.sha256sums", "urls": [f"folder:{source}"], "sha256": None}
    settings |= {"max_bytes": 1 << 40, "homepage": None, "licence": "", "citation": ""}
    fetch_source("mine", settings, archives, archives / "mine.json")
    unpack(archives / "mine.sha256sums", archives / "mine.json", scratch / f"raw{number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    result = {}
    for kind in ("png", "jpg", "dcm", "pairs"):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            source, reader = scratch / "source", {"reader": PAIRS if kind == "pairs" else TABLE}
            write_source(source, kind, args.images)
            decode_all(source)
            reading, bringing = [], []
            for number in range(args.rounds):
                decoding = seconds(decode_all, source)
                reading.append(seconds(read_source, "mine", reader, source, scratch / "index", 1) / decoding)
                bringing.append(seconds(bring, source, scratch, number) / decoding)
            result[kind] = {
                "read_to_decode": round(statistics.median(reading), 2),
                "list_and_copy_to_decode": round(statistics.median(bringing), 2),
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
