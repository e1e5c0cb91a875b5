"""The trainings of the paper's study against the recipes that mmdet and mmseg publish (docs/recipes.md)."""

import re
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
import yaml
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import DefaultScope
from snakemake.utils import update_config, validate

from busflow.config import resolve
from busflow.engine import detection, segmentation
from busflow.models.initial import parameters_unset
from busflow.models.rfla import receptive_field_priors, resnet50_receptive_fields

ROOT = Path(__file__).parents[2]
ENGINES = {"detection": detection, "segmentation": segmentation}
LIBRARIES = {"detection": mmdet, "segmentation": mmseg}
RFLA = ["convnext_small_rfla", "swin_base_rfla", "swin_base_detectors_rfla"]
ADE = "8xb2-160k_ade20k-512x512"
CASCADE = "convnext/cascade-mask-rcnn_convnext-{}-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco"
RECIPES = [
    ("detection", "convnext_tiny", CASCADE.format("t")),
    ("detection", "convnext_small", CASCADE.format("s")),
    ("detection", "swin_base", "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco"),
    ("detection", "detr_r50", "detr/detr_r50_8xb2-150e_coco"),
    ("segmentation", "convnext_tiny", "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512"),
    ("segmentation", "convnext_small", "convnext/convnext-small_upernet_8xb2-amp-160k_ade20k-512x512"),
    *(("segmentation", f"segformer_b{k}", f"segformer/segformer_mit-b{k}_{ADE}") for k in range(5)),
]


@pytest.fixture(scope="module")
def study() -> dict:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load((ROOT / "config/paper.yaml").read_text()))
    config = resolve(config)
    validate(config, str(ROOT / "workflow/schemas/config.schema.yaml"))
    return config


def settings_of(study: dict, task: str, model: str) -> dict:
    return study["training"][task] | study["models"][task][model] | {"balance_classes": False, "seed": 0}


def published(task: str, name: str) -> Config:
    configs = Path(LIBRARIES[task].__file__).parent / ".mim/configs"
    return Config.fromfile(configs / f"{name}.py", import_custom_modules=False)


@pytest.mark.parametrize(("task", "model", "name"), RECIPES, ids=[f"{t}-{m}" for t, m, _ in RECIPES])
def test_what_a_recipe_says_of_the_optimisation_the_study_says_too(study, task, model, name):
    ours, theirs = settings_of(study, task, model), published(task, name)
    optimizer, groups = theirs.optim_wrapper.optimizer, theirs.optim_wrapper.get("paramwise_cfg", {})
    assert ours["learning_rate"] == optimizer.lr and ours["weight_decay"] == optimizer.weight_decay
    assert ours.get("optimizer", "adamw") == optimizer.type.lower()
    assert ours["batch_size"] == ours["reference_batch"] == 16  # 8 GPUs with 2 images each
    assert ours["layer_decay"] == groups.get("decay_rate", 1)
    assert ours["clip_grad"] == (theirs.optim_wrapper.get("clip_grad") or {}).get("max_norm", 0)
    if model != "swin_base":  # mmdet has none of this size
        assert ours["drop_path"] == theirs.model.backbone.get("drop_path_rate", 0)
    if task == "segmentation":
        assert (ours["segmenter"] == "segformer") == (ours["undecayed"] == "norms")
        assert ours["poly_power"] == theirs.param_scheduler[1].power


@pytest.mark.parametrize(
    ("task", "model", "name"),
    [each for each in RECIPES if each[1] in ("swin_base", "detr_r50", "segformer_b0")],
)
def test_rate_and_decay_of_every_parameter_are_those_of_the_recipes_own_constructor(study, task, model, name):
    with parameters_unset():
        setup = ENGINES[task].prepare([None] * 6, [], settings_of(study, task, model))
    recipe = published(task, name).optim_wrapper
    constructor = DefaultOptimWrapperConstructor({"optimizer": recipe.optimizer}, recipe.paramwise_cfg)
    constructor.add_params(expected := [], setup.model.network)
    base = (recipe.optimizer.lr, recipe.optimizer.weight_decay)
    wanted = {
        id(p): (g.get("lr", base[0]), g.get("weight_decay", base[1])) for g in expected for p in g["params"]
    }
    found = {id(p): (g["lr"], g["weight_decay"]) for g in setup.optimizer.param_groups for p in g["params"]}
    names = {id(p): name for name, p in setup.model.network.named_parameters()}
    assert {names[key]: each for key, each in found.items()} == {
        names[key]: pytest.approx(each) for key, each in wanted.items()
    }


@pytest.mark.parametrize("model", RFLA)
def test_the_rfla_entries_have_the_optimisation_and_proposals_of_its_authors(study, model):
    # Chasel-Tsui/mmdet-rfla, configs/rfla/aitodv2_{cascade_r50,detectors}_rfla_kld_1x.py
    theirs = {
        **{"optimizer": "sgd", "learning_rate": 0.005, "batch_size": 2, "weight_decay": 1e-4},
        **{"undecayed": "nothing", "epochs": 12, "milestones": [8, 11], "clip_grad": 0, "roi_samples": 512},
        **{"train_proposals": 3000, "test_proposals": 3000, "layer_decay": 1},
    }
    assert settings_of(study, "detection", model).items() >= theirs.items()


def test_the_page_on_recipes_tells_how_many_priors_of_rfla_cross_the_border():
    sides = [side / 2 for side in resnet50_receptive_fields()[:5]]
    with DefaultScope.overwrite_default_scope("mmdet"):  # another may be left over from a Runner
        generator = TASK_UTILS.build(receptive_field_priors(sides))
    sizes = [(-(-800 // stride),) * 2 for stride in (4, 8, 16, 32, 64)]
    levels = generator.grid_priors(sizes, device="cpu")
    inside = [
        anchor_inside_flags(each, torch.ones(len(each), dtype=torch.bool), (800, 800), 0) for each in levels
    ]
    page = (ROOT / "docs/recipes.md").read_text()
    told = [
        tuple(map(int, cells)) for cells in re.findall(r"^\| P\d \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    ]
    assert told == [(len(each), int((~each).sum())) for each in inside]
