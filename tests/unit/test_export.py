"""Models for other programs: the same letterbox, the same numbers, images of any size in any batch."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from inference_files import NAMES, save_untrained
from PIL import Image
from test_inference import speckle

from busflow.data.packing import letterbox
from busflow.engine.masks import unletterbox
from busflow.errors import BusflowError
from busflow.files import sha256
from busflow.inference.export import Letterbox, export, graph_of
from busflow.inference.members import load_members
from busflow.inference.predict import predict
from busflow.labels import LABELS

SIDE = 64
SHAPES = [(471, 562), (300, 512), (128, 128), (64, 64), (63, 64), (50, 40), (30, 224), (500, 130)]


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_graphs_letterbox_is_the_studys(side, shape):
    grey = speckle(0, *shape)
    found = Letterbox(side)(torch.from_numpy(grey)[None, None])[0, 0].numpy()
    difference = np.abs(found - letterbox(grey, side))
    # What lies just between two levels is rounded up or down; it hardly ever does.
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_come_back_as_the_study_brings_them_back(shape):
    maps = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 1, *shape, dtype=torch.uint8)
    expected = unletterbox(maps, shape[1], shape[0])
    torch.testing.assert_close(Letterbox(SIDE).undo(maps[None], images)[0], expected, atol=1e-4, rtol=0)


FAMILIES = {
    "classification": {},
    "segmentation": {},
    "detection": {"detector": "detr"},
    "segmentation upernet": {"segmenter": "upernet", "backbone": "convnext_atto"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """A family's task, weights and graph; it takes a while to make one."""
    task, folder = request.param.split()[0], tmp_path_factory.mktemp("exported")
    weights = save_untrained(folder / "weights.pth", task, SIDE, **FAMILIES[request.param])
    export(weights, folder / "model.onnx")
    return task, weights, folder / "model.onnx"


def test_onnxruntime_finds_what_torch_finds_in_fifty_images(exported):
    task, weights, path = exported
    session = onnxruntime.InferenceSession(path)
    graph = graph_of(task, load_members([weights], torch.device("cpu"))[1][0])
    rng, seen = np.random.default_rng(0), 0
    while seen < 50:
        batch, *shape = rng.integers([1, 20, 20], [5, 200, 200])
        images = np.stack([speckle(seen + k, *shape)[None] for k in range(batch)])
        found = session.run(None, {"images": images})
        with torch.inference_mode():
            expected = graph(torch.from_numpy(images))
        expected = expected if isinstance(expected, tuple) else (expected,)
        # .numpy(): exporting left no tensor of its own kind in this process.
        for one, other in zip(found, (each.numpy() for each in expected), strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape and len(one) == batch
            if one.dtype == np.float32:  # probabilities and scores, or boxes in pixels
                assert np.abs(one - other).max() <= (1e-3 if one.ndim == 3 else 1e-4)
            else:
                assert (one != other).mean() <= 1e-4
        seen += batch


def test_a_graph_finds_what_predict_finds(exported, tmp_path):
    task, weights, path = exported
    Image.fromarray(speckle(3, 150, 100)).save(tmp_path / "image.png")
    predict([weights], [str(tmp_path / "image.png")], tmp_path / "out", torch.device("cpu"), 1)
    found = onnxruntime.InferenceSession(path).run(None, {"images": speckle(3, 150, 100)[None, None]})
    if task == "classification":
        table = pd.read_csv(tmp_path / "out/predictions.csv")
        np.testing.assert_allclose(
            found[0][0], table.loc[0, [f"p_{k}" for k in LABELS]].astype(float), atol=1e-4
        )
    elif task == "segmentation":
        assert (found[0][0] != np.array(Image.open(tmp_path / "out/masks/image.png"))).mean() < 1e-3
    else:
        results = json.loads((tmp_path / "out/predictions.json").read_text())
        boxes, scores, labels = (each[0] for each in found)
        order = np.argsort(-scores)
        assert labels[order].tolist() == [each["category_id"] - 1 for each in results]
        np.testing.assert_allclose(scores[order], [each["score"] for each in results], atol=1e-4)
        x, y, w, h = np.transpose([each["bbox"] for each in results])
        np.testing.assert_allclose(boxes[order], np.stack([x, y, x + w, y + h], axis=1), atol=2e-2)


def test_the_file_says_what_it_is(exported):
    task, weights, path = exported
    said = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(NAMES[task]) and said["image_size"] == "64"
    assert said["weights_sha256"] == sha256(weights) and said["licence"] == "made: CC0-1.0"
    assert said["notice"] == "research use only"


def test_a_cascade_is_refused_with_the_reason(tmp_path):
    weights = save_untrained(tmp_path / "weights.pth", "detection", SIDE)
    with pytest.raises(BusflowError, match=r"is a detector that suppresses, .* use busflow predict"):
        export(weights, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == [weights]
