"""Tiny copies of the three datasets' layouts, to be read as they are or bent by a test."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from busflow.data.inspection import read_source

RNG = np.random.default_rng(0)


def picture(width=50, height=40) -> np.ndarray:
    return RNG.integers(0, 256, (height, width), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read(raw: Path, reader: str, threads=1) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    output = raw.parent / "index" / reader
    read_source(reader, {"reader": reader}, raw, output, threads)
    names = ("images", "annotations", "quarantine")
    return tuple(pd.read_csv(output / f"{name}.csv", keep_default_na=False) for name in names)


def read_described(raw: Path, reader: dict, source="mine") -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The same for a dataset that the config describes."""
    output = raw.parent / "index" / source
    read_source(source, {"reader": reader}, raw, output, threads=1)
    names = ("images", "annotations", "quarantine")
    return tuple(pd.read_csv(output / f"{name}.csv", keep_default_na=False) for name in names)


def reasons(quarantine: pd.DataFrame, raw: Path) -> dict[str, str]:
    assert (quarantine["scope"] == "all").all()
    return {
        Path(path).relative_to(raw).as_posix(): reason
        for path, reason in zip(quarantine["path"], quarantine["reason"], strict=True)
    }


def mask_of(*boxes, width=50, height=40) -> np.ndarray:
    """A 1-bit mask; boxes are (x, y, w, h)."""
    mask = np.zeros((height, width), bool)
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = True
    return mask


LESION = mask_of((10, 5, 20, 15))


def busi_layout(folder: Path) -> Path:
    """Two images of each class with their masks; returns the folder that holds the classes."""
    raw = folder / "busi" / "raw" / "Dataset_BUSI_with_GT"
    for label in ("benign", "malignant", "normal"):
        for number in (1, 2):
            save(raw / label / f"{label} ({number}).png", picture())
            lesion = [] if label == "normal" else [(10, 5, 20, 15)]
            save(raw / label / f"{label} ({number})_mask.png", mask_of(*lesion))
    return raw


def rodrigues_layout(folder: Path) -> Path:
    """us1 to us5 benign, us6 to us15 malignant; returns the folder that holds the classes."""
    raw = folder / "rodrigues" / "raw" / "originals"
    for number in range(1, 16):
        save(raw / ("benign" if number <= 5 else "malignant") / f"us{number}.bmp", picture())
    return raw


TRAIN, VAL = "imagenet_vid_train_15frames.json", "imagenet_vid_val.json"
VIDEOS = ("benign/x1a", "malignant/x2b", "malignant/3c")


def frame_list(videos: list[str]) -> dict:
    """Two frames and as many boxes for each video; ids start at 1, as upstream's do."""
    names = [f"{video}/{frame:06d}.png" for video in videos for frame in range(2)]
    return {
        "categories": [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}],
        "videos": [],
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1 if name.startswith("benign") else 2,
                "bbox": [10, 5, 20, 15],
            }
            for number, name in enumerate(names, 1)
        ],
    }


class LinLayout:
    """Three videos of three frames; ``write`` after bending ``lists``."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "lin" / "raw"
        self.root = self.raw / "Miccai 2022 BUV Dataset"
        self.paths = {
            "train": self.root / TRAIN,
            "val": self.root / VAL,
        }
        for video in VIDEOS:
            for frame in range(3):  # the third frame is in no list
                save(self.root / "rawframes" / video / f"{frame:06d}.png", picture())
        self.lists = {"train": frame_list(list(VIDEOS[:2])), "val": frame_list([VIDEOS[2]])}
        self.write()

    def write(self) -> None:
        for split, content in self.lists.items():
            self.paths[split].write_text(json.dumps(content))
