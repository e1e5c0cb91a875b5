"""Operators without compiled mmcv: RoIAlign and non-maximum suppression against literal loops."""

import importlib
import itertools
import math
import sys

import mmcv.ops
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from busflow.errors import BusflowError
from busflow.models import ops
from busflow.models.nms import BLOCK, nms
from busflow.models.roi_align import roi_align, roi_align_backward

SHAPE = (3, 4, 11, 13)  # features: images, channels, rows, columns
SIZE = (3, 2)  # bins
SCALE = 0.25
ROIS = torch.tensor(
    [
        [0, 4.0, 6.0, 30.0, 28.0],
        [2, 0.0, 0.0, 52.0, 44.0],  # the whole image
        [1, -9.0, -13.0, 20.0, 9.0],  # over the top left corner
        [1, 41.0, 30.0, 66.0, 59.0],  # over the bottom right corner
        [0, 80.0, 80.0, 120.0, 99.0],  # outside
        [2, 17.3, 9.1, 17.9, 9.4],  # less than a pixel
        [2, 10.0, 10.0, 10.0, 10.0],  # a point
        [0, 3.0, 1.0, 7.0, 43.5],  # tall
        [1, 2.0, 2.0, 2.0, 30.0],  # a line
    ],
    dtype=torch.float64,
)
SETTINGS = list(itertools.product((0, 1, 3), (True, False)))  # sampling ratio, aligned


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def bilinear(image: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """Interpolate [C, H, W] at a point; up to one pixel outside counts as on the border, further as 0."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(image.shape[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    total = image.new_zeros(image.shape[0])
    for row, column in itertools.product(
        (math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)
    ):
        weight = (1 - abs(y - row)) * (1 - abs(x - column))
        if weight > 0:
            total += weight * image[:, row, column]
    return total


def roi_align_by_loops(features, rois, size, scale, ratio, aligned):
    """Mask R-CNN, section 3: the mean of regularly placed bilinear samples in every bin."""
    out = features.new_zeros(len(rois), features.shape[1], *size)
    for number, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * scale - (0.5 if aligned else 0.0) for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_height, bin_width = height / size[0], width / size[1]
        n_y, n_x = (ratio, ratio) if ratio else (math.ceil(bin_height), math.ceil(bin_width))
        for row, column, i, j in itertools.product(*map(range, (*size, n_y, n_x))):
            y = y1 + (row + (i + 0.5) / n_y) * bin_height
            x = x1 + (column + (j + 0.5) / n_x) * bin_width
            out[number, :, row, column] += bilinear(features[int(image)], y, x) / (n_y * n_x)
    return out


def nms_by_loops(boxes, scores, threshold, offset=0):
    """Greedy suppression, one pair at a time."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(iou_of_pair(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def iou_of_pair(a, b, offset):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    union = sum((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)) - width * height
    return width * height / union if union else 0.0


def random_boxes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes at whole pixels and scores in steps of 0.01, so that there are ties of both."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (n, 2), generator=generator)
    sides = torch.randint(0, 40, (n, 2), generator=generator)
    scores = torch.randint(0, 100, (n,), generator=generator) / 100
    return torch.cat([corners, corners + sides], 1).double(), scores.double()


@pytest.mark.parametrize(("ratio", "aligned"), SETTINGS)
def test_roi_align_equals_the_loops_of_its_definition(features, ratio, aligned):
    expected = roi_align_by_loops(features, ROIS, SIZE, SCALE, ratio, aligned)
    pooled = roi_align(features, ROIS, SIZE, SCALE, ratio, aligned)
    assert torch.allclose(pooled, expected, rtol=0, atol=1e-12)
    assert torch.allclose(
        mmcv.ops.roi_align(features, ROIS, SIZE, SCALE, ratio, "avg", aligned), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("ratio", "aligned"), SETTINGS)
def test_roi_align_equals_torchvisions_reference_in_python(features, ratio, aligned):
    reference = importlib.import_module("torchvision.ops.roi_align")._roi_align.__wrapped__
    rois = ROIS[[0, 1, 5, 7]]  # it knows neither samples outside the map nor RoIs without area
    expected = reference(features, rois, SCALE, *SIZE, ratio, aligned)
    assert torch.allclose(
        roi_align(features, rois, SIZE, SCALE, ratio, aligned), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("y", "value"), [(-1.0, 1.0), (-1.01, 0.0), (11.0, 1.0), (11.01, 0.0)])
def test_samples_count_up_to_one_pixel_outside_the_map(y, value):
    ones = torch.ones(1, 1, 11, 13, dtype=torch.float64)
    pixel = torch.tensor([[0, 5.0, y - 0.5, 6.0, y + 0.5]], dtype=torch.float64)  # its sample is at 5.5, y
    assert roi_align(ones, pixel, (1, 1), 1.0, 1, False).item() == value


@pytest.mark.parametrize(("ratio", "aligned"), SETTINGS)
def test_roi_align_passes_gradcheck(ratio, aligned):
    features = torch.randn(3, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = ROIS * torch.tensor([1, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: mmcv.ops.roi_align(x, rois, SIZE, SCALE, ratio, "avg", aligned), features
    )


@pytest.mark.parametrize(("ratio", "aligned"), SETTINGS)
def test_the_gradient_in_plain_torch_is_that_of_the_loops(features, ratio, aligned):
    inputs = features.clone().requires_grad_()
    pooled = roi_align_by_loops(inputs, ROIS, SIZE, SCALE, ratio, aligned)
    weights = torch.randn(pooled.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(pooled, inputs, weights)
    gradient = roi_align_backward(weights, ROIS, SHAPE, SCALE, ratio, aligned)
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)


def test_no_rois_give_an_empty_result_and_no_gradient(features):
    inputs = features.clone().requires_grad_()
    pooled = mmcv.ops.RoIAlign(7, SCALE, 0)(inputs, ROIS[:0])
    assert pooled.shape == (0, SHAPE[1], 7, 7)
    pooled.sum().backward()
    assert not inputs.grad.any()
    assert roi_align(features, ROIS[:0], SIZE, SCALE, 0, True).shape == (0, SHAPE[1], *SIZE)


def test_a_roi_turned_inside_out_or_undefined_pools_to_zero(features):
    rois = torch.tensor([[0, 30.0, 30, 10, 10], [1, math.nan, 4, math.nan, 20]], dtype=torch.float64)
    assert not roi_align(features, rois, SIZE, SCALE, 0, True).any()


def test_the_memory_layout_of_the_features_does_not_matter(features):
    expected = roi_align(features, ROIS, SIZE, SCALE, 0, True)
    layer = mmcv.ops.RoIAlign(SIZE, SCALE, 0)
    results, gradients = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = features.detach().to(memory_format=layout).requires_grad_()
        results.append(layer(inputs, ROIS))
        results[-1].square().sum().backward()
        gradients.append(inputs.grad)
    assert all(torch.allclose(result, expected, rtol=0, atol=1e-12) for result in results)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_single_and_rounds_once(features, dtype):
    halves, rois = features.to(dtype), ROIS.to(dtype)
    inputs = halves.clone().requires_grad_()
    pooled = mmcv.ops.RoIAlign(SIZE, SCALE, 0)(inputs, rois)
    expected = roi_align(halves.float(), rois.float(), SIZE, SCALE, 0, True).to(dtype)
    assert pooled.dtype == dtype and torch.equal(pooled, expected)
    pooled.sum().backward()
    assert inputs.grad.dtype == dtype


def test_max_pooling_is_refused(features):
    with pytest.raises(BusflowError, match="use pool_mode avg"):
        mmcv.ops.RoIAlign(7, pool_mode="max")(features, ROIS)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7])
def test_nms_equals_the_greedy_loop_with_ties_and_boxes_without_area(threshold, offset):
    boxes, scores = random_boxes(2 * BLOCK + 50, seed=3)
    expected = nms_by_loops(boxes.tolist(), scores.tolist(), threshold, offset)
    assert 0 < len(expected) < len(boxes)
    assert nms(boxes, scores, threshold, offset).tolist() == expected
    _, kept = mmcv.ops.nms(boxes.float(), scores.float(), threshold, offset)
    assert kept.tolist() == expected


def test_nms_of_a_chain_in_which_every_second_box_survives():
    """Each box overlaps the next only, so whether a box stays depends on all before it."""
    corners = torch.arange(3.0 * BLOCK)[:, None] * torch.tensor([6.0, 0.0])
    boxes = torch.cat([corners, corners + 10], 1)
    scores = torch.linspace(1, 0, len(boxes))
    assert nms(boxes, scores, 0.2).tolist() == list(range(0, len(boxes), 2))


def test_nms_keeps_a_box_whose_iou_is_just_the_threshold():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 2, 1.5]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 1]


def test_nms_takes_the_first_of_equal_boxes():
    boxes = torch.tensor([[0.0, 0, 5, 5]]).repeat(9, 1)
    assert nms(boxes, torch.full((9,), 0.5), 0.5).tolist() == [0]


def test_nms_keeps_all_boxes_without_area():
    boxes = torch.zeros(3, 4)
    assert nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


def test_nms_of_nothing_is_nothing():
    detections, kept = mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert detections.shape == (0, 5) and kept.shape == (0,)
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).dtype == torch.int64


def test_nms_of_half_precision_boxes_equals_that_of_the_same_in_single():
    boxes, scores = random_boxes(100, seed=4)
    half, half_scores = boxes.half(), scores.half()
    expected = nms(half.float(), half_scores.float(), 0.5)
    assert torch.equal(nms(half, half_scores, 0.5), expected)
    assert torch.equal(mmcv.ops.nms(half, half_scores, 0.5)[1], expected)


def test_batched_nms_suppresses_within_a_class_only():
    boxes, scores = random_boxes(300, seed=5)
    classes = torch.arange(300) % 3
    config = {"type": "nms", "iou_threshold": 0.4}
    _, kept = mmcv.ops.batched_nms(boxes.float(), scores.float(), classes, config)
    expected = set()
    for label in range(3):
        rows = (classes == label).nonzero()[:, 0]
        expected |= {int(rows[i]) for i in nms_by_loops(boxes[rows].tolist(), scores[rows].tolist(), 0.4)}
    assert set(kept.tolist()) == expected


def test_nms_obeys_score_threshold_and_number_of_boxes():
    boxes, scores = random_boxes(200, seed=6)
    expected = [i for i in nms_by_loops(boxes.tolist(), scores.tolist(), 0.5) if scores[i] > 0.4]
    detections, kept = mmcv.ops.nms(boxes.float(), scores.float(), 0.5, score_threshold=0.4, max_num=7)
    assert kept.tolist() == expected[:7]
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], 1)[kept].float())


def test_torchvisions_operators_are_taken_where_they_run(features, monkeypatch):
    """Their places are taken by functions with their signatures, since not every machine has them."""
    called = []

    def forward(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
        called.append("roi_align")
        size = (pooled_height, pooled_width)
        return roi_align_by_loops(input, rois, size, spatial_scale, sampling_ratio, aligned)

    def backward(
        grad,
        rois,
        spatial_scale,
        pooled_height,
        pooled_width,
        batch_size,
        channels,
        height,
        width,
        ratio,
        aligned,
    ):
        called.append("backward")
        shape = (batch_size, channels, height, width)
        return roi_align_backward(grad, rois, shape, spatial_scale, ratio, aligned)

    def suppress(dets, scores, iou_threshold):
        called.append("nms")
        return torch.tensor(nms_by_loops(dets.tolist(), scores.tolist(), iou_threshold))

    monkeypatch.setattr(ops, "torchvision_runs_on", lambda device: True)
    for name, operator in (("roi_align", forward), ("_roi_align_backward", backward), ("nms", suppress)):
        monkeypatch.setattr(torch.ops.torchvision, name, operator, raising=False)
    inputs = features.clone().requires_grad_()
    pooled = mmcv.ops.roi_align(inputs, ROIS, SIZE, SCALE, 2, "avg", False)
    pooled.sum().backward()
    assert torch.allclose(pooled, roi_align(features, ROIS, SIZE, SCALE, 2, False), rtol=0, atol=1e-12)
    ones = torch.ones_like(pooled)
    assert torch.equal(inputs.grad, roi_align_backward(ones, ROIS, SHAPE, SCALE, 2, False))
    boxes, scores = random_boxes(50, seed=7)
    assert torch.equal(mmcv.ops.nms(boxes, scores, 0.5)[1], nms(boxes, scores, 0.5))
    assert torch.equal(mmcv.ops.nms(boxes, scores, 0.5, offset=1)[1], nms(boxes, scores, 0.5, offset=1))
    assert called == ["roi_align", "backward", "nms"]  # they have no offset


@pytest.fixture
def without_mmcv(monkeypatch):
    """Forget mmcv, to find it anew on a path of the test's own; afterwards all is as before."""
    for name in [name for name in sys.modules if name.split(".")[0] == "mmcv"]:
        monkeypatch.delitem(sys.modules, name)
    return monkeypatch


def test_a_compiled_mmcv_is_left_alone(tmp_path, without_mmcv):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").write_text("compiled = True\n")
    without_mmcv.syspath_prepend(tmp_path)
    ops.ensure_operators()
    assert importlib.import_module("mmcv._ext").compiled


def test_the_stand_in_is_made_without_importing_mmcv(tmp_path, without_mmcv):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("raise AssertionError('imported')\n")
    without_mmcv.syspath_prepend(tmp_path)
    ops.ensure_operators()
    assert "mmcv" not in sys.modules and callable(sys.modules["mmcv._ext"].nms)


def test_another_operator_is_refused_when_called_not_when_imported(tmp_path, without_mmcv):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    without_mmcv.syspath_prepend(tmp_path)
    ops.ensure_operators()
    softnms = sys.modules["mmcv._ext"].softnms
    with pytest.raises(BusflowError, match="compiled operator softnms: install an mmcv compiled"):
        softnms()


def tiny_cascade() -> torch.nn.Module:
    """mmdet's own Cascade R-CNN with a ResNet-18 from scratch, two classes and few proposals."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = get_config("mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py").model
    config.backbone.update(depth=18, init_cfg=None, norm_eval=False)
    config.neck.in_channels = [64, 128, 256, 512]
    for head in config.roi_head.bbox_head:
        head.num_classes = 2
    config.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=50)
    config.test_cfg.rpn.update(nms_pre=200, max_per_img=50)
    config.test_cfg.rcnn.score_thr = 0.0
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config)


def test_cascade_rcnn_learns_and_predicts():
    from mmdet.structures import DetDataSample

    torch.manual_seed(0)
    model = tiny_cascade()
    samples = []
    for label in (0, 1):
        box = torch.tensor([[20.0, 24.0, 60.0, 70.0]])
        sample = DetDataSample(gt_instances=InstanceData(bboxes=box, labels=torch.tensor([label])))
        sample.set_metainfo({"img_shape": (96, 96), "pad_shape": (96, 96), "scale_factor": (1.0, 1.0)})
        samples.append(sample)
    images = torch.randn(2, 3, 96, 96)

    losses, _ = model.parse_losses(model(images, samples, mode="loss"))
    losses.backward()
    assert torch.isfinite(losses)
    assert model.roi_head.bbox_head[2].fc_cls.weight.grad.any()
    assert model.neck.fpn_convs[0].conv.weight.grad.any()
    for result in model.eval()(images, samples, mode="predict"):
        boxes = result.pred_instances.bboxes
        assert len(boxes) and boxes.min() >= 0 and boxes.max() <= 96
        assert set(result.pred_instances.labels.tolist()) <= {0, 1}


def on_a_gpu(monkeypatch, error: RuntimeError) -> None:
    def nms(*arguments):
        raise error

    monkeypatch.setattr(torch, "zeros", lambda *size, device, zeros=torch.zeros: zeros(*size))
    monkeypatch.setattr("torchvision.ops.nms", nms)
    ops.torchvision_runs_on.cache_clear()


def test_a_gpu_without_compiled_operators_is_an_error_that_names_both_builds(monkeypatch):
    on_a_gpu(monkeypatch, RuntimeError("operator torchvision::nms does not exist for CUDA"))
    with pytest.raises(BusflowError, match=r"no operators for GPUs beside torch .*install the two from one"):
        ops.torchvision_runs_on("cuda")
    assert not ops.torchvision_runs_on("cpu")
    ops.torchvision_runs_on.cache_clear()


@pytest.mark.parametrize(
    "said",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
    ],
)
def test_a_full_gpu_says_nothing_of_its_operators(monkeypatch, said):
    on_a_gpu(monkeypatch, said)
    with pytest.raises(type(said), match="out of memory"):
        ops.torchvision_runs_on("cuda")
    monkeypatch.setattr("torchvision.ops.nms", lambda *arguments: None)
    assert ops.torchvision_runs_on("cuda")
    ops.torchvision_runs_on.cache_clear()
