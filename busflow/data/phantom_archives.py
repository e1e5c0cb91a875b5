"""Phantoms packed as the three upstream archives, so that the real readers read them.

A URL names the layout and its parameters: ``phantom:busi?seed=27&benign=50&malignant=40&normal=30`` calls
`busi` below. The same URL gives the same bytes.

Archives that are large enough carry a few faults like those known of the real data, few enough to leave
nineteen pictures in twenty usable; ``defects=0`` leaves them out.
"""

import inspect
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
import py7zr
from PIL import Image
from py7zr.helpers import ArchiveTimestamp

from busflow.data.phantoms import Phantom, phantom, video
from busflow.errors import BusflowError
from busflow.files import atomic
from busflow.labels import LABELS

SERIES = 5  # Rodrigues: consecutive files that show one lesion
LIN_IDENTICAL = ("benign/x66ef02e7f1b9a0ef", "malignant/x3b88488853e8b7d1")  # as in the published erratum
LIN_ONE_PATIENT = (
    "benign/x63c9ba1377f35bf6",
    "benign/x5a1c46ec6377e946",
    "malignant/2390fbea047347b",
    "malignant/7a39ab5d4970bf89",
)


def write_archive(url: str, path: Path) -> None:
    """Write the archive that ``url`` describes, whole or not at all.

    Raises BusflowError for an unknown layout, and for an unknown, missing or impossible parameter.
    """
    layouts = {"busi": (busi, _write_zip), "lin": (lin, _write_7z), "rodrigues": (rodrigues, _write_zip)}
    layout = urlsplit(url).path
    if layout not in layouts:
        raise BusflowError(f"{url}: there is no phantom layout {layout!r}; use one of {', '.join(layouts)}")
    members, write = layouts[layout]
    try:
        parameters = {key: int(value) for key, value in parse_qsl(urlsplit(url).query, strict_parsing=True)}
        if any(value < 0 for value in parameters.values()):
            raise ValueError("a parameter is negative")
        inspect.signature(members).bind(**parameters)
    except (TypeError, ValueError) as error:
        known = ", ".join(inspect.signature(members).parameters)
        raise BusflowError(f"{url}: {error}; layout {layout} takes whole numbers for {known}") from error
    with atomic(path) as temporary:
        write(temporary, dict(sorted(members(**parameters).items())))


def busi(seed: int, benign: int, malignant: int, normal: int, defects: int = 1) -> dict[str, bytes]:
    """``Dataset_BUSI_with_GT/<class>/<class> (k).png`` and ``_mask.png``: RGB pictures of many sizes.

    seed: of all randomness.
    benign, malignant, normal: pictures of the class. Every 20th benign one shows two lesions, the second in
        ``_mask_1.png``. Masks are 1-bit, but those of normals RGB and every ``_mask_1`` RGBA.
    defects: 1 adds, given 40 benign and 40 malignant pictures or more, one picture under both labels, two
        re-captures of other pictures under the same label, one empty lesion mask and one truncated file.
    """
    pictures = {}
    for label, count in zip(LABELS, (benign, malignant, normal), strict=True):
        for k in range(1, count + 1):
            rng = np.random.default_rng([seed, LABELS.index(label), k])
            lesions = 2 if label == "benign" and k % 20 == 2 else 1
            pictures[label, k] = phantom(rng, label, _shape(rng), lesions)
    faulty = defects and min(benign, malignant) >= 40
    if faulty:
        pictures["benign", benign] = pictures["malignant", malignant]
        for label in ("benign", "malignant"):
            pictures[label, 12] = _recaptured(pictures[label, 11])
        image, masks = pictures["benign", 13].image, pictures["benign", 13].masks
        pictures["benign", 13] = Phantom(image, np.zeros_like(masks))
    members = {}
    for (label, k), picture in pictures.items():
        stem = f"Dataset_BUSI_with_GT/{label}/{label} ({k})"
        members[f"{stem}.png"] = _encoded(picture.image, "RGB")
        if label == "normal":
            members[f"{stem}_mask.png"] = _encoded(picture.mask, "RGB")
        for i, mask in enumerate(picture.masks):
            members[f"{stem}_mask_{i}.png" if i else f"{stem}_mask.png"] = _encoded(
                mask, "RGBA" if i else "1"
            )
    if faulty:
        name = "Dataset_BUSI_with_GT/benign/benign (14).png"
        members[name] = members[name][: len(members[name]) // 2]
    return members


def rodrigues(seed: int, benign: int, malignant: int) -> dict[str, bytes]:
    """``originals/<class>/us<k>.bmp``: small grey close-ups, every five consecutive ones of one lesion.

    seed: of all randomness.
    benign, malignant: pictures of the class, a multiple of five; ids start at 1 with the benign ones.
    """
    if benign % SERIES or malignant % SERIES:
        raise BusflowError(
            f"phantom:rodrigues: benign={benign} and malignant={malignant} must be multiples of {SERIES}, "
            "the pictures of one lesion"
        )
    members = {}
    for first in range(1, benign + malignant + 1, SERIES):
        label = "benign" if first <= benign else "malignant"
        rng = np.random.default_rng([seed, first])
        frames = list(video(rng, label, _shape(rng, 0.65), frames=SERIES, motion=0.08))
        rows, columns = _close_up(rng, frames[0].mask)
        for k, frame in enumerate(frames, start=first):
            members[f"originals/{label}/us{k}.bmp"] = _encoded(frame.image[rows, columns], "L", "BMP")
    return members


def lin(seed: int, videos: int, frames: int, defects: int = 1) -> dict[str, bytes]:
    """``rawframes/<class>/<video>/%06d.png`` and two COCO-VID files, in ``Miccai 2022 BUV Dataset/``.

    seed: of all randomness.
    videos: at least 4; six in ten are malignant; ``imagenet_vid_val.json`` lists about a fifth of each class
        and ``imagenet_vid_train_15frames.json`` the others.
    frames: listed frames of a video, at least 1.
    defects: 1 adds, given 30 videos or more, those of the published erratum (one video under both labels, in
        val; four of one patient, all with malignant lesions, in train), one box of negative width, and two
        frames that no file lists.
    """
    if videos < 4 or frames < 1:
        raise BusflowError(f"phantom:lin: videos={videos}, frames={frames}: at least 4 and 1 are needed")
    faulty = defects and videos >= 30
    shown, val, malignant = {}, set(), round(0.6 * videos)
    for label, count in (("benign", videos - malignant), ("malignant", malignant)):
        rng = np.random.default_rng([seed, LABELS.index(label)])
        errata = [name for name in LIN_IDENTICAL + LIN_ONE_PATIENT if name.startswith(label)]
        ids = rng.integers(2**64, size=count - len(errata) * bool(faulty), dtype=np.uint64)
        names = [f"{label}/x{number:016x}" for number in ids]
        for name in names:
            unlisted = faulty and name == names[-1]
            shown[name] = list(video(rng, label, _shape(rng), frames=frames + bool(unlisted)))
        val |= set(names[: max(1, count // 5)])
    if faulty:
        rng = np.random.default_rng([seed, len(LABELS)])
        twin = list(video(rng, "malignant", _shape(rng), frames=frames))
        shown |= {LIN_IDENTICAL[0]: twin, LIN_IDENTICAL[1]: twin}
        val |= set(LIN_IDENTICAL)
        patient = list(video(rng, "malignant", _shape(rng), frames=frames * len(LIN_ONE_PATIENT)))
        shown |= {name: patient[i * frames :][:frames] for i, name in enumerate(LIN_ONE_PATIENT)}
    train = _coco_vid({name: shown[name][:frames] for name in sorted(shown) if name not in val})
    if faulty:
        x, y, width, height = train["annotations"][0]["bbox"]
        train["annotations"][0] |= {"bbox": [x + width, y, -width, height], "area": -width * height}
    listings = {
        "imagenet_vid_train_15frames": train,
        "imagenet_vid_val": _coco_vid({name: shown[name][:frames] for name in sorted(val)}),
    }
    root = "Miccai 2022 BUV Dataset"
    members = {f"{root}/{name}.json": json.dumps(listing).encode() for name, listing in listings.items()}
    for name, pictures in shown.items():
        for i, picture in enumerate(pictures):
            members[f"{root}/rawframes/{name}/{i:06d}.png"] = _encoded(picture.image, "L")
    return members


def _coco_vid(shown: dict[str, list[Phantom]]) -> dict[str, list[dict]]:
    """The upstream records of the videos: name -> frames, each with one lesion. Ids start at 1."""
    categories = [{"id": i, "name": label, "encode_name": label} for i, label in enumerate(LABELS[:2], 1)]
    videos, images, annotations = [], [], []
    for video_id, (name, pictures) in enumerate(shown.items(), start=1):
        videos.append({"id": video_id, "name": name, "vid_train_frames": list(range(len(pictures)))})
        for i, picture in enumerate(pictures):
            image_id = len(images) + 1
            height, width = picture.image.shape
            image = {"file_name": f"{name}/{i:06d}.png", "height": height, "width": width, "id": image_id}
            images.append(image | {"frame_id": i, "video_id": video_id, "is_vid_train_frame": True})
            x, y, w, h = cv2.boundingRect(picture.mask.astype(np.uint8))
            place = {"id": image_id, "video_id": video_id, "image_id": image_id}
            lesion = {"category_id": LABELS.index(name.split("/")[0]) + 1, "instance_id": video_id}
            box = {"bbox": [x, y, w, h], "area": w * h}
            annotations.append(
                place | lesion | box | {"iscrowd": False, "occluded": False, "generated": False}
            )
    return {"categories": categories, "videos": videos, "images": images, "annotations": annotations}


def _shape(rng, scale=1.0):
    """Height and width of a picture, pixels."""
    return round(scale * rng.integers(200, 290)), round(scale * rng.integers(220, 330))


def _recaptured(picture):
    """The same picture as another hand saved it: cropped by a pixel all round, a little brighter."""
    brighter = np.clip(picture.image * 1.06 + 3, 0, 255).astype(np.uint8)
    return Phantom(brighter[1:-1, 1:-1], picture.masks[:, 1:-1, 1:-1])


def _close_up(rng, mask):
    """Rows and columns around a lesion: about twice its size, and at least 60 x 80 pixels if there are."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    across = max(rng.uniform(40, 55), w * rng.uniform(0.75, 1.1))
    down = max(rng.uniform(30, 45), h * rng.uniform(0.75, 1.1))
    top, left = max(0, round(y + 0.6 * h - down)), max(0, round(x + w / 2 - across))
    return slice(top, round(y + 0.6 * h + down)), slice(left, round(x + w / 2 + across))


def _encoded(array, mode, file_format="PNG"):
    """File bytes of a grey image (uint8) or a mask (bool: 0 and 255) in a Pillow mode."""
    grey = array if array.dtype == np.uint8 else array.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(grey).convert(mode).save(buffer, file_format, compress_level=3)
    return buffer.getvalue()


def _write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def _write_7z(path: Path, members: dict[str, bytes]) -> None:
    """Members are stored, as PNG is compressed already, and re-stamped, as py7zr takes the clock's time."""
    stamp = ArchiveTimestamp.from_datetime(datetime(2022, 1, 1, tzinfo=UTC).timestamp())
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
        for name, content in members.items():
            archive.writestr(content, name)
        for info in archive.header.files_info.files:
            info |= {"creationtime": stamp, "lastwritetime": stamp, "lastaccesstime": stamp}
