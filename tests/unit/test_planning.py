"""What a study takes before it starts, against counts by hand and published figures."""

import weakref
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from busflow.config import read_study, training_settings
from busflow.engine.datasets import accumulation_steps
from busflow.errors import BusflowError
from busflow.paper import printed
from busflow.planning import counting, counts, steps
from busflow.planning.counting import Operators, count
from busflow.planning.counts import Count
from busflow.planning.images import Images, images_of
from busflow.planning.memory import BESIDES, most_images, peak
from busflow.planning.price import Card, Rates, evaluation, price, training_step, wall_hours
from busflow.planning.study import at_once, rows_of
from busflow.planning.text import as_text

GIB = 2**30
IMAGES = Images(train=1000, val=100, test=50, origin="a test")
FIRST = Count(images=10, flops=10**12, operators=100, moved=10**9, kept=0, largest=0, weights=0, trained=0)
CARD = Card("T", memory_gib=24, half_tflops=100, single_tflops=10, gb_per_s=1000)
RATES = Rates(utilisation=0.5, bandwidth=0.5, operator_us=10, wait_us=100)


@pytest.fixture(scope="module")
def paper() -> dict:
    return read_study(Path("config/paper.yaml"))


@pytest.fixture(scope="module")
def atto(paper) -> Count:
    settings = training_settings(paper, "paper", "classification", "convnext_atto")
    return count("classification", settings, pretrained=True, images=2)


def flops_of(call) -> int:
    with torch.device("meta"), Operators() as operators:
        call()
    return operators.flops


def test_flops_of_a_small_network_are_those_counted_by_hand():
    with torch.device("meta"):
        depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), depthwise, nn.Flatten())
        head = nn.Linear(8 * 16 * 16, 5)
    by_hand = 2 * 16 * 16 * (8 * 3 * 9 + 8 * 9) + 2 * 8 * 16 * 16 * 5
    assert flops_of(lambda: head(network(torch.empty(7, 3, 16, 16)))) == 7 * by_hand


def test_operators_and_bytes_are_those_of_what_computes():
    with torch.device("meta"), Operators() as operators:
        torch.empty(4, 5).view(5, 4).t().relu().add(torch.empty(4, 5))
    assert (operators.number, operators.moved, operators.largest) == (2, 80 * (2 + 3), 80 * 3)


def test_flops_of_classifiers_are_those_that_the_paper_prints(paper, atto):
    printed_macs = printed("table5")["macs"]
    of_head = 320 * (1000 - 3)  # the paper's has the classes of ImageNet
    assert atto.flops / atto.images / 2 + of_head == pytest.approx(printed_macs["convnext_atto"], rel=0.01)


def test_flops_of_a_segformer_and_a_swin_are_the_published_ones(paper):
    settings = training_settings(paper, "paper", "segmentation", "segformer_b0")
    found = count("segmentation", settings, pretrained=True, images=2)
    of_head = 256 * 128**2 * (150 - 3)  # published for the 150 classes of ADE20K: 8.4 G (Xie et al., Table 1)
    of_fusion = 256**2 * (3 * 128**2 - 64**2 - 32**2 - 16**2)  # of maps that are upsampled before it
    assert found.flops / 4 + of_head + of_fusion == pytest.approx(8.4e9, rel=0.01)
    swin = steps.build(
        "detection", training_settings(paper, "paper", "detection", "swin_base"), True
    ).backbone
    found = flops_of(lambda: swin(torch.empty(1, 3, 224, 224)))
    assert found / 2 == pytest.approx(15.4e9, rel=0.02)  # Liu et al., Table 1


def test_mixed_precision_is_that_of_a_gpu():
    with steps.without_values(nn.Linear(1, 1)), steps.mixed_precision():
        half = nn.functional.linear(torch.empty(2, 3), torch.empty(4, 3))
        normalised, shares = nn.functional.layer_norm(half, (4,)), half.softmax(1)
    assert (half.dtype, normalised.dtype, shares.dtype) == (torch.float16, torch.float32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):  # elsewhere, a CPU's stays as it was
        assert nn.functional.layer_norm(torch.zeros(2, 4).bfloat16(), (4,)).dtype == torch.bfloat16


class Living(TorchDispatchMode):
    """Bytes of the storages that are alive, but for those known before."""

    def __init__(self, known: set[int]):
        super().__init__()
        self.bytes, self.known = 0, known

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        output = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and (at := tensor.untyped_storage())._cdata not in self.known:
                self.known.add(at._cdata)
                self.bytes += at.nbytes()
                weakref.finalize(at, self._died, at._cdata, at.nbytes())
        return output

    def _died(self, at: int, size: int) -> None:
        self.known.discard(at)
        self.bytes -= size


def test_what_is_kept_is_what_lives_after_a_forward_pass(paper, atto):
    settings = training_settings(paper, "paper", "classification", "convnext_atto")
    network = steps.build("classification", settings, pretrained=True)
    with steps.without_values(network):
        living = Living({tensor.untyped_storage()._cdata for tensor in network.state_dict().values()})
        with living, steps.mixed_precision():
            loss = steps.loss("classification", network, settings, images=2)
    assert living.bytes == pytest.approx(atto.kept, rel=1e-4) and loss.requires_grad


def test_the_peak_has_weights_gradients_sums_and_what_is_kept():
    one = FIRST._replace(weights=50, trained=10, kept=1000, largest=7)
    assert peak(one, "adamw") == 50 + 40 + 80 + 1000 + 7
    assert peak(one, "sgd") == 50 + 40 + 40 + 1000 + 7


def test_as_many_images_fit_as_memory_has_room_for():
    fixed, each = GIB, GIB // 4
    two, four = (FIRST._replace(images=n, weights=fixed, kept=n * each) for n in (2, 4))
    assert most_images(two, four, "adamw", 16) == (16 * GIB - BESIDES - fixed) // each
    assert most_images(two, four, "adamw", 2) == 0


def test_a_step_on_the_gpu_is_its_arithmetic_and_its_traffic():
    on_gpu, on_host = training_step({}, FIRST, CARD, RATES)
    assert on_gpu == pytest.approx(3 * 1e12 / (0.5 * 100e12) + 2.5 * 1e9 / (0.5 * 1000e9))
    assert on_host == pytest.approx(2.1 * 100 * 10e-6 + 14 * 100e-6)


def test_a_detector_makes_the_host_work_for_each_image():
    settings = {"detector": "cascade_rcnn"}
    few, many = (training_step(settings, FIRST._replace(images=n), CARD, RATES)[1] for n in (2, 4))
    assert many - few == pytest.approx(2 * (480 * 10e-6 + 25 * 100e-6))


def test_detr_makes_the_host_work_as_much_for_many_images_as_for_few():
    settings = {"detector": "detr"}
    few, many = (training_step(settings, FIRST._replace(images=n), CARD, RATES)[1] for n in (2, 16))
    assert many == few > training_step({}, FIRST, CARD, RATES)[1]


def test_the_price_is_that_of_all_steps_validations_and_predictions():
    settings = {"batch_size": 20, "epochs": 3}
    found = price(settings, FIRST, IMAGES, 25, {"t": CARD}, RATES)
    assert found.steps == 3 * (1000 // 20) * 2
    seconds = found.steps * max(training_step(settings, FIRST, CARD, RATES))
    validation, prediction = (
        evaluation(100, 10, FIRST, CARD, RATES, 100),
        evaluation(50, 25, FIRST, CARD, RATES, 10),
    )
    seconds += 3 * validation + prediction
    assert found.hours["t"] == pytest.approx(seconds / 3600) and not found.waits_for_host["t"]
    assert validation == pytest.approx(10 * (1e12 / 50e12 + 1e9 / 500e9))
    assert prediction == pytest.approx(2 * 2.5 * (1e12 / 5e12 + 1e9 / 500e9))
    seldom = price(settings | {"validation_interval": 2}, FIRST, IMAGES, 25, {"t": CARD}, RATES)
    assert found.hours["t"] - seldom.hours["t"] == pytest.approx(validation / 3600)  # 2 in 3 epochs
    detector = price(settings | {"detector": "none"}, FIRST, IMAGES, 25, {"t": CARD}, RATES)
    more = 3 * (evaluation(100, 10, FIRST, CARD, RATES, 10) - validation)  # in single precision
    assert detector.hours["t"] - found.hours["t"] == pytest.approx(more / 3600)
    slow = price(settings, FIRST, IMAGES, 25, {"t": CARD}, RATES._replace(operator_us=10**4))
    assert slow.waits_for_host["t"] and slow.hours["t"] > found.hours["t"]


def test_wall_time_is_that_of_the_last_to_finish():
    assert wall_hours([3, 3, 2, 2, 2], gpus=2) == 7
    assert wall_hours([3, 3, 2, 2, 2], gpus=1) == 12
    assert wall_hours([3, 1], gpus=8) == 3


@pytest.mark.parametrize("batch, micro", [(1100, 128), (16, 2), (2, 2), (90, 128), (16, 5), (7, 3)])
def test_images_at_once_are_those_of_the_training(batch, micro):
    settings = {"batch_size": batch, "micro_batch": micro}
    assert at_once(settings) == batch // accumulation_steps(batch, micro)


def test_without_data_the_papers_numbers_count(paper):
    table4 = printed("table4")["total"]
    found = images_of(paper, "paper", "segmentation")
    assert found[:3] == tuple(table4[name] for name in ("train", "val", "test"))
    assert found.origin == "the paper"
    of_detection = images_of(paper, "paper", "detection")
    assert sum(of_detection[:3]) == 9810 + 15499 and of_detection.test == 1249 + 3292


def test_a_split_that_was_made_is_counted_and_an_index_before_it(tmp_path, paper):
    config = paper | {"root": str(tmp_path)}
    index = tmp_path / "data/index/images.csv"
    index.parent.mkdir(parents=True)
    rows = [f"busi/{n},busi,benign," for n in range(50)] + ["lin/1,lin,benign,train"]
    index.write_text("\n".join(["image_id,source,label,upstream_split", *rows]))
    assert images_of(config, "grouped", "segmentation") == (32, 8, 10, "the index")
    split = tmp_path / "data/splits/grouped/segmentation.csv"
    split.parent.mkdir(parents=True)
    split.write_text("image_id,split\na,train\nb,train\nc,val\n")
    assert images_of(config, "grouped", "segmentation") == (2, 1, 0, "the splits")


def test_folds_and_sources_left_out_have_their_test_sets(paper):
    protocols = {
        "fold": {"split": "grouped", "fold": [1, 5]},
        "out": {"split": "grouped", "leave_out": ["lin"]},
    }
    config = paper | {"protocols": protocols}
    assert images_of(config, "fold", "segmentation").test == 780 // 5
    found = images_of(config, "out", "classification")
    assert found.test == 25407 and found.train + found.val == 780 + 250


def test_a_source_that_nobody_counted_is_named_with_the_remedy(paper):
    busi = paper["sources"]["busi"] | {"label": "Clinic"}
    config = paper | {"sources": paper["sources"] | {"busi": busi}}
    with pytest.raises(BusflowError, match=r"busi.*make its index first: snakemake .*images\.csv"):
        images_of(config, "paper", "segmentation")


def test_a_study_of_one_task_is_priced_and_counts_nothing_twice(tmp_path, monkeypatch):
    overlay = tmp_path / "overlay.yaml"
    study = {"root": str(tmp_path), "only": {"segmentation": ["segformer_b0"]}, "seeds": [0, 1]}
    overlay.write_text(yaml.safe_dump(study))
    config, memory = read_study(overlay), tmp_path / "counts.json"
    rows = rows_of(config, memory)
    assert [(row.protocol, row.task, row.model) for row in rows] == [
        (protocol, "segmentation", "segformer_b0") for protocol in ("paper", "grouped")
    ]
    text = as_text(config, rows, jobs=12)
    assert "4 trainings, 2 seeds of each line, in 12 jobs." in text and "RTX 3090 h" in text
    assert "detection" not in text and "35% of the peak rate" in text

    def fails(*model):
        raise AssertionError("it was counted already")

    monkeypatch.setattr(counting, "count", fails)
    config["training"]["segmentation"]["epochs"] = 1
    assert rows_of(config, memory)[0].count == rows[0].count
    with pytest.raises(AssertionError, match="counted already"):
        config["training"]["segmentation"]["image_size"] = 96
        rows_of(config, memory)
    assert counts.Count(*rows[0].count) == rows[0].count


def test_all_of_the_papers_study_fits_a_card_of_24_gb_by_the_largest_of_each_task(paper):
    for task, model in (("classification", "convnext_large"), ("segmentation", "segformer_b4")):
        settings = training_settings(paper, "paper", task, model)
        found = count(task, settings, pretrained=True, images=at_once(settings))
        assert peak(found, "adamw") + BESIDES < 24 * GIB, (task, model)
