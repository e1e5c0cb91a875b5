"""A page of a task's failures: the worst images, those that divide models, and doubtful labels."""

import base64
import io
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import cv2
import jinja2
import numpy as np
import pandas as pd
from faster_coco_eval.core import mask as rle
from markupsafe import Markup
from PIL import Image

from busflow.data.masks import load_mask
from busflow.data.packing import PackedImages, placement
from busflow.failures.detection import operating_point
from busflow.failures.errors import MODEL, Files
from busflow.files import read_csv, write_text
from busflow.labels import LABELS, LESIONS
from busflow.metrics import detection_inputs, segmentation_inputs
from busflow.metrics.detection_inputs import BOX, read_detections
from busflow.metrics.inputs import PROBABILITIES, read_predictions, read_table
from busflow.units import Unit, units

MOST = 12  # images of a section
SIDE, QUALITY = 128, 80  # of a thumbnail: pixels of its longer side, JPEG
BOXES = 5  # predicted ones of an image
DETAIL = 0.5  # pixels of a thumbnail by which an outline may be simplified
TEMPLATE = files("busflow.tables") / "template"


class Shape(NamedTuple):
    """An outline: corners in pixels of the thumbnail, and ``truth`` or the predicted label."""

    points: np.ndarray
    look: str

    @property
    def text(self) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


class Picture(NamedTuple):
    """``source``: a data URI; sides in pixels."""

    source: str
    width: int
    height: int
    shapes: list[Shape]
    words: str


class Case(NamedTuple):
    """``answers``: each model's label and answer."""

    name: str
    facts: list[str]
    pictures: list[Picture]
    answers: list[tuple[str, str]]


class Section(NamedTuple):
    heading: str
    words: str
    cases: list[Case]


class Thumbnails:
    """Pictures of a task's images from its packed array, by image_id."""

    def __init__(self, images: Path, packed: PackedImages):
        columns = ["image_id", "label", "group", "width", "height", "pixel_sha256"]
        table = read_csv(images)[columns]
        self.images = table.astype({"width": int, "height": int}).set_index("image_id")
        self.packed = packed

    def picture(self, image_id: str, words: str, shapes: Iterable[tuple[np.ndarray, str]] = ()) -> Picture:
        """The image without its margins; ``shapes`` have their corners in pixels of the original image."""
        image = self.images.loc[image_id]
        array = self.packed.images[self.packed.rows([image["pixel_sha256"]])[0]]
        left, top, width, height = placement(image["width"], image["height"], len(array))
        array = array[top : top + height, left : left + width]
        scale = min(1, SIDE / max(width, height))
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in (width, height))
            array = cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)
        ratio = np.array([width / image["width"], height / image["height"]])
        drawn = [Shape(_simplified(points * ratio), look) for points, look in shapes]
        return Picture(_data_uri(array), width, height, drawn, words)


def write_gallery(
    html: Path,
    failures: Path,
    predictions: list[Path],
    split: Path,
    known: Files,
    packed: PackedImages,
    settings: dict,
    label_errors: Path | None = None,
) -> None:
    """Write the page of one task and protocol. It loads nothing and needs no script; all text is escaped.

    Args:
        html: the page.
        failures: ``results/failures/{task}.csv``.
        predictions: of the protocol's units. Drawn is what the model of the greatest mean score says, in its
            first seed.
        split: ``.../{protocol}/{task}.csv``, whose test images are shown.
        known: the index and, of segmentation, the masks.
        packed: the task's packed array.
        settings: the part of the config that is for presentation.
        label_errors: of classification, ``results/failures/label_errors.csv``.
    """
    found = units(predictions, settings)
    task, protocol = found[0].task, found[0].protocol
    table, models = _scores(failures, protocol)
    labels = {model: settings["models"][task][model]["label"] for model in models}
    best = table[[MODEL + model for model in models]].mean().fillna(0).idxmax().removeprefix(MODEL)
    how, drawn = HOW[task], next(unit for unit in found if unit.model == best)
    thumbnails, draw = Thumbnails(known.images, packed), how.draw(drawn, split, known)
    answers = _answers(found) if task == "classification" else {}

    def case(row: pd.Series) -> Case:
        facts = [_origin(row, settings), f"{how.title}: {row['score']:.2f}"]
        if not np.isnan(row["disagreement"]):
            facts.append(f"Disagreement: {row['disagreement']:.2f}")
        said = []
        for model in models:
            label = answers.get((model, row["image_id"]))
            said.append((labels[model], " ".join([*filter(None, [label]), f"{row[MODEL + model]:.2f}"])))
        picture = thumbnails.picture(row["image_id"], row["image_id"], draw(row["image_id"]))
        return Case(row["image_id"], facts, [picture], said)

    worst = table.sort_values("score", kind="stable")
    divided = table[table["disagreement"] > 0].sort_values("disagreement", ascending=False, kind="stable")
    sections = [
        Section(heading, words, [case(row) for _, row in _one_of_each_group(chosen).iterrows()])
        for heading, words, chosen in (
            ("Worst", f"Least {how.words}, as the mean over {len(models)} models and their seeds.", worst),
            ("Most disagreement", "Greatest standard deviation of the models' scores.", divided),
        )
    ]
    if label_errors:
        sections.append(_doubtful(read_csv(label_errors), thumbnails, settings))
    words = ["Of each group (video, patient) one image stands in each section."]
    if how.drawn:
        words.append(f"Dashed: the truth. In colour: {how.drawn.format(labels[best])}.")
    title = f"{task.capitalize()}: failures, {settings['protocols'][protocol]['label'].lower()}"
    write_text(html, _page(title, settings["study"]["notice"], " ".join(words), sections))


def _scores(failures: Path, protocol: str) -> tuple[pd.DataFrame, list[str]]:
    """The scored images of a protocol, sorted by image_id; and the models."""
    table = read_table(
        failures, ["image_id", "protocol", "source", "label", "group", "score", "disagreement"]
    )
    models = [name.removeprefix(MODEL) for name in table if name.startswith(MODEL)]
    numbers = ["score", "disagreement", *(MODEL + model for model in models)]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    scored = table[(table["protocol"] == protocol) & table["score"].notna()]
    return scored.sort_values("image_id"), models


def _one_of_each_group(table: pd.DataFrame) -> pd.DataFrame:
    """The first images, none of one group with another: else the frames of one video would fill the page."""
    return table.drop_duplicates("group").head(MOST)


def _origin(row: pd.Series, settings: dict) -> str:
    return f"{settings['sources'].get(row['source'], {}).get('label', row['source'])}, {row['label']}"


def _page(title: str, notice: str | None, words: str, sections: list[Section]) -> str:
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = {name: (TEMPLATE / name).read_text(encoding="utf-8") for name in ("gallery.html", "document.html")}
    body = page.from_string(text["gallery.html"]).render(
        title=title, notice=notice, words=words, sections=sections
    )
    sheets = ("page.css", "document.css", "gallery.css")
    css = "\n".join((TEMPLATE / sheet).read_text(encoding="utf-8") for sheet in sheets)
    return page.from_string(text["document.html"]).render(title=title, css=css, body=Markup(body), head=None)


def _doubtful(table: pd.DataFrame, thumbnails: Thumbnails, settings: dict) -> Section:
    """Images whose neighbours have another label, each beside the neighbour that says so."""
    table = table[table["probable_label"] != table["label"]]
    table = table.assign(group=thumbnails.images["group"][table["image_id"]].to_numpy())
    cases = []
    for _, row in _one_of_each_group(table).iterrows():
        image_id, nearest = row["image_id"], row["nearest_image_id"]
        facts = [
            f"{_origin(row, settings)}; probably {row['probable_label']}",
            f"Confidence in its label: {float(row['confidence']):.2f}",
            f"Similarity: {float(row['similarity']):.3f}",
        ]
        pictures = [
            thumbnails.picture(each, f"{each}: {thumbnails.images.loc[each, 'label']}")
            for each in (image_id, nearest)
        ]
        cases.append(Case(f"{image_id} and {nearest}", facts, pictures, []))
    return Section(
        "Probable label errors",
        "Of all images, those of training too: the most similar images have another label. On the right the "
        "most similar one with that label. Images may look alike and differ: a reader has to decide.",
        cases,
    )


def _answers(found: list[Unit]) -> dict[tuple[str, str], str]:
    """The label that each classifier gives an image, of the mean probabilities over its seeds."""
    tables = [read_predictions(unit.path).assign(model=unit.model) for unit in found]
    means = pd.concat(tables).groupby(["model", "image_id"])[PROBABILITIES].mean()
    return {place: LABELS[k] for place, k in zip(means.index, means.to_numpy().argmax(axis=1), strict=True)}


def _nothing(unit: Unit, split: Path, known: Files) -> Callable:
    return lambda image_id: ()


def _boxes(unit: Unit, split: Path, known: Files) -> Callable:
    """The true boxes, and the surest of the predicted ones that the score counts."""
    truth = detection_inputs.read_truth(split, known.annotations, known.images)
    detections = read_detections(unit.path, truth)
    detections = detections[detections["score"] > operating_point(truth, detections)]
    detections = detections.groupby("image").head(BOXES)
    rows = pd.Series(truth.images.index, truth.images["image_id"])

    def draw(image_id: str) -> list[tuple[np.ndarray, str]]:
        true, said = (each[each["image"] == rows[image_id]] for each in (truth.boxes, detections))
        shapes = [
            (_corners(box), label) for box, label in zip(said[BOX].to_numpy(), said["label"], strict=True)
        ]
        return [*shapes, *((_corners(box), "truth") for box in true[BOX].to_numpy())]

    return draw


def _masks(unit: Unit, split: Path, known: Files) -> Callable:
    """The outlines of the true lesion and of the predicted ones."""
    truth = segmentation_inputs.read_truth(split, known.masks)
    masks = segmentation_inputs.read_segmentations(unit.path, truth)
    rows = pd.Series(truth.index, truth["image_id"])

    def draw(image_id: str) -> list[tuple[np.ndarray, str]]:
        shapes = [
            (points, label)
            for label in LESIONS
            for points in _outlines(rle.decode(masks[label][rows[image_id]]))
        ]
        true = load_mask(known.masks, image_id) > 0
        return [*shapes, *((points, "truth") for points in _outlines(true.astype(np.uint8)))]

    return draw


class How(NamedTuple):
    """How a task's failures are shown: its score, what is drawn, and the function that draws it."""

    title: str
    words: str
    drawn: str
    draw: Callable


HOW = {
    "classification": How("Probability of the true class", "probability of the true class", "", _nothing),
    "detection": How(
        "F1 of boxes",
        "F1 of boxes at an IoU of 0.5",
        f"boxes of {{}}, the surest {BOXES}, at one false positive per image",
        _boxes,
    ),
    "segmentation": How("Dice", "Dice", "what {} outlines", _masks),
}


def _corners(box: np.ndarray) -> np.ndarray:
    x, y, w, h = box
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [points[:, 0] + 0.5 for points in found]


def _simplified(points: np.ndarray) -> np.ndarray:
    return cv2.approxPolyDP(points[:, None].astype(np.float32), DETAIL, closed=True)[:, 0]


def _data_uri(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
