"""What Snakemake plans, without running it."""

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from busflow.config import compared
from busflow.engine.provenance import METRICS
from busflow.recording.study import Study, number_of_jobs
from studies import ROOT, copy_checkout, dry_run, snakemake


def write(folder: Path, **overlay) -> Path:
    """An overlay for a study under ``folder``."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump({"root": str(folder), **overlay}))
    return folder / "overlay.yaml"


def jobs(output: str) -> dict[str, int]:
    """Count of jobs by rule, from the table that a dry run prints."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Callable[..., str]:
    """What is planned of the demonstration for a target, or for none; each is planned once."""
    root = tmp_path_factory.mktemp("demo")
    return functools.cache(
        lambda *target: dry_run(*target, "--printshellcmds", "--config", f"root={root}").stdout
    )


def test_the_demo_trains_every_model_under_both_protocols(demo):
    planned = jobs(demo())
    assert planned["train_classification"] == planned["predict_classification"] == 8 * 2
    assert planned["train_detection"] == planned["evaluate_detection"] == 7 * 2
    assert planned["train_segmentation"] == planned["make_masks"] * 7 == 7 * 2
    assert planned["fetch_archive"] == 3 and planned["split_images"] == 3 * 2 and planned["report"] == 1


def test_the_papers_study_is_planned_whole_without_touching_data(tmp_path):
    done = dry_run("--configfile", "config/paper.yaml", "--config", f"root={tmp_path}/paper")
    planned = jobs(done.stdout)
    assert planned["train_classification"] == 8 * 2 * 5
    assert planned["train_segmentation"] == 7 * 2 * 5
    assert planned["train_detection"] == (7 + 2) * 2 * 5  # two are ablations
    assert planned["fetch_weights"] == 15  # each once, whoever starts from it
    assert not (tmp_path / "paper").exists()


def test_an_ablation_is_trained_and_stands_in_the_table_of_ablations_alone(tmp_path):
    entry = {"label": "Twin", "detector": "cascade_rcnn", "backbone": "convnext_tiny", "optimizer": "sgd"}
    overlay = write(
        tmp_path,
        only={"detection": ["convnext_tiny", "convnext_small", "twin"]},
        models={"detection": {"twin": entry | {"ablation_of": ["convnext_tiny"]}}},
    )
    plan = dry_run("--configfile", overlay).stdout
    assert jobs(plan)["evaluate_detection"] == 3 * 2
    readers = re.findall(r"^(?:local)?rule (\w+):\n    input: (.*)$", plan, re.MULTILINE)
    after = [
        (rule, inputs) for rule, inputs in readers if not rule.startswith(("train_", "predict_", "evaluate_"))
    ]
    readers = {rule for rule, inputs in after if "detection/twin/" in inputs} - {"all"}
    assert readers == {"tabulate_ablations_detection", "audit"}
    (table,) = (inputs for rule, inputs in after if rule == "tabulate_ablations_detection")
    assert "detection/convnext_tiny/" in table and "detection/convnext_small/" not in table


def test_null_takes_a_model_and_a_protocol_out(tmp_path):
    overlay = write(tmp_path, protocols={"paper": None}, models={"classification": {"convnext_large": None}})
    assert jobs(dry_run("--configfile", overlay).stdout)["train_classification"] == 7


def test_folds_are_trained_and_shown_together(tmp_path):
    folds = {f"fold_{k}": {"split": "grouped", "fold": [k, 3]} for k in (1, 2, 3)}
    overlay = write(tmp_path, protocols={"paper": None} | folds, only={"segmentation": ["segformer_b0"]})
    planned = jobs(dry_run("--configfile", overlay).stdout)
    assert planned["train_segmentation"] == 4 and planned["tabulate_crossval_segmentation"] == 1
    assert planned["pool_segmentation"] == 1
    assert planned["tabulate_table7"] == planned["draw_fig7_grouped"] == 1
    assert not [name for name in planned if "fold_" in name]


def test_a_study_of_folds_alone_has_no_tables_of_single_protocols(tmp_path):
    done = dry_run("--configfile", "config/crossval.yaml", "--config", f"root={tmp_path}/folds")
    planned = jobs(done.stdout)
    assert planned["train_classification"] == 2 * 5 and planned["train_detection"] == 5
    assert planned["tabulate_crossval_detection"] == planned["tabulate_table3"] == planned["audit"] == 1
    assert not {"tabulate_table6", "tabulate_classification", "tabulate_relatives"} & set(planned)


def test_sources_left_out_have_a_table_of_their_own_and_other_studies_have_none(tmp_path, demo):
    done = dry_run("--configfile", "config/leave_one_out.yaml", "--config", f"root={tmp_path}/sources")
    assert jobs(done.stdout)["tabulate_leave_one_out_classification"] == 1
    assert not [name for name in jobs(demo()) if "leave_one_out" in name or "pool" in name]


def test_the_target_of_a_task_and_that_of_the_data_hold_external_tests(tmp_path):
    clinic = {"label": "Clinic", "tasks": ["classification"], "reader": "busi", "archive": "clinic.zip"}
    outside = clinic | {"urls": ["phantom:busi?seed=9"], "use": "external"}
    study = {"sources": {"clinic": outside}, "only": {"classification": ["convnext_atto"]}}
    overlay = write(tmp_path, **study)
    planned = jobs(dry_run("classification", "--configfile", overlay).stdout)
    assert planned["evaluate_external_classification"] == planned["evaluate_classification"] == 2
    planned = jobs(dry_run("data", "--configfile", overlay).stdout)
    assert planned["split_external"] == planned["pack_external_images"] == 1


def test_each_task_of_a_study_has_a_card_and_the_study_a_checklist(tmp_path, demo):
    cards = {name for name in jobs(demo("report")) if name.startswith("make_card_")}
    of_tasks = {f"make_card_{task}" for task in ("classification", "detection", "segmentation")}
    assert cards == {*of_tasks, "make_card_claim_checklist", "make_card_outcome"} and cards <= set(
        jobs(demo())
    )
    shown = dry_run("cards", "--configfile", write(tmp_path, only={"detection": ["detr_r50"]})).stdout
    made = set(re.findall(r"results/cards/(\S+?)(?:,|$)", shown, re.MULTILINE))
    names = ("detection", "claim_checklist", "outcome")
    assert made == {f"{name}.{kind}" for name in names for kind in ("md", "html")}
    assert "make_card_classification" not in shown and "--leakage" not in shown


def test_folds_alone_and_external_sources_have_cards_too(tmp_path):
    done = dry_run("cards", "--configfile", "config/crossval.yaml", "--config", f"root={tmp_path}/folds")
    assert jobs(done.stdout)["make_card_classification"] == 1
    arguments = ("--configfile", "config/external.yaml", "--config", f"root={tmp_path}/outside")
    shown = dry_run("cards", *arguments, "--printshellcmds").stdout
    command = re.search(r"python scripts/make_card.py classification .*", shown).group()
    assert "/external/bus_bra/metrics.json" in command.partition(" --external ")[2]


def test_a_study_without_a_task_has_none_of_its_jobs(tmp_path):
    shown = dry_run("--configfile", write(tmp_path, models={"segmentation": None})).stdout
    planned = jobs(shown)
    assert planned["train_classification"] == 16 and planned["audit"] == planned["report"] == 1
    assert not [name for name in planned if "segment" in name or name in ("make_masks", "tabulate_table4")]
    assert "data/splits/grouped/segmentation.csv" not in shown


def test_two_of_all_models_are_one_line_and_fetch_what_they_need(tmp_path):
    overlay = write(tmp_path, only={"segmentation": ["segformer_b0", "convnext_tiny"]})
    planned = jobs(dry_run("--configfile", overlay).stdout)
    assert planned["train_segmentation"] == 2 * 2 and planned["fetch_archive"] == 1
    assert not [name for name in planned if "classif" in name or "detect" in name or name == "draw_leakage"]


def test_a_new_model_is_one_entry(tmp_path):
    resnet = {"label": "ResNet-50", "timm": "resnet50", "batch_size": 8, "network": {}}
    done = dry_run("--configfile", write(tmp_path, models={"classification": {"resnet50": resnet}}))
    assert jobs(done.stdout)["train_classification"] == 9 * 2
    assert f"{tmp_path}/results/grouped/classification/resnet50/seed0/weights.pth" in done.stdout


@pytest.mark.parametrize(
    "target",
    [
        "data",
        "classification",
        "detection",
        "segmentation",
        "tables",
        "figures",
        "cards",
        "failures",
        "report",
        "all",
    ],
)
def test_the_named_targets_can_be_asked_for(demo, target):
    planned = jobs(demo(target))
    assert planned["fetch_archive"] == 3


def test_settings_of_a_training_hold_what_shapes_the_weights_and_no_label(demo):
    commands = [line for line in demo().splitlines() if "scripts/train.py" in line and "--task" in line]
    assert len(commands) == (8 + 7 + 7) * 2
    assert all('"batch_size"' in line and '"epochs"' in line and "ConvNeXt-" not in line for line in commands)
    assert sum('"balance_classes": true' in line for line in commands) == 8 + 7


def test_trainings_and_predictions_are_told_how_many_gpus_they_hold(tmp_path):
    overlay = write(tmp_path, compute={"gpus": 1})
    shown = dry_run("segmentation", "--printshellcmds", "--configfile", overlay).stdout
    commands = re.findall(r"python scripts/(?:train|predict)\.py .*", shown)
    assert len(commands) == 2 * 7 * 2 and all(" --gpus 1 " in line for line in commands)


def test_weights_that_nobody_described_stop_the_plan_and_are_named(tmp_path):
    overlay = write(tmp_path, models={"detection": {"swin_base": {"pretrained": "swin_in22k"}}})
    done = dry_run("--configfile", overlay, check=False)
    assert done.returncode == 1
    assert "models.detection.swin_base.pretrained names swin_in22k" in done.stdout + done.stderr


def test_no_path_of_the_config_is_read_by_the_shell(tmp_path):
    donor = tmp_path / "donor.pth"
    donor.touch()
    weights = {"donor": {"file": "x$(touch X)y.pth", "urls": [f"file:{donor}"]}}
    overlay = write(
        tmp_path,
        root=f"{tmp_path}/sub $(touch X)/it's `a`",
        weights=weights,
        models={"classification": {"convnext_atto": {"pretrained": "donor"}}},
    )
    shown = dry_run("--configfile", overlay, "--printshellcmds").stdout
    commands = [line for line in shown.splitlines() if "python scripts/" in line]
    assert len(commands) > 150
    for command in commands:
        bare = re.sub(r"'[^']*'", "", command.replace("'\"'\"'", ""))
        assert "touch" not in bare and "`" not in bare, command


def test_a_table_a_figure_and_the_ledger_are_told_every_file_that_they_owe(tmp_path):
    shown = dry_run("tables", "figures", "--printshellcmds", "--config", f"root={tmp_path}").stdout
    head = r"^rule (?:tabulate_\w+|draw_\w+|audit):\n(?:    .*\n)*?"
    job = head + r"    output: (.*)\n(?:    .*\n)*Shell command: (.*)"
    jobs = re.findall(job, shown, re.MULTILINE)
    assert len(jobs) > 40 and any("ledger.html" in outputs for outputs, _ in jobs)
    owed = [(path, command) for outputs, command in jobs for path in outputs.split(", ")]
    assert [path for path, command in owed if path not in command.split()] == []


def imported(module: str) -> set[str]:
    """Library files that a library file imports, itself and theirs included."""
    found, left = set(), {module}
    while left - found:
        path = (left - found).pop()
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("busflow"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = {f"{name.replace('.', '/')}.py" for name in names}
                left |= {file for file in files if (ROOT / file).is_file()}
    return found


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_a_unit_depends_on_all_the_code_that_it_runs(demo, task):
    shown = demo(task)
    # What every script shares; an edit there is no reason to train for days again.
    shared = {f"busflow/{name}.py" for name in ("errors", "files", "labels", "tasks")}
    for verb, room in (("train", "engine"), ("predict", "engine"), ("evaluate", "metrics")):
        inputs = re.search(rf"rule {verb}_{task}:\n +input: (.*)", shown).group(1).split(", ")
        assert imported(f"busflow/{room}/{task}.py") - shared - set(inputs) == set(), verb


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_the_identity_of_a_training_covers_the_metrics_that_it_runs(task):
    metrics = {path for path in imported(f"busflow/engine/{task}.py") if path.startswith("busflow/metrics/")}
    assert metrics <= {f"busflow/{path}" for path in METRICS}


@pytest.mark.parametrize(
    ("rule", "module"),
    [
        ("unpack_archive", "archives"),
        ("read_source", "inspection"),
        ("build_index", "index"),
        ("pack_images", "packing"),
        ("make_masks", "masks"),
    ],
)
def test_a_rule_on_data_depends_on_all_the_code_that_it_runs(demo, rule, module):
    shared = {f"busflow/{name}.py" for name in ("errors", "files", "labels")} | {"busflow/data/progress.py"}
    inputs = re.search(rf"rule {rule}:\n +input: (.*)", demo()).group(1).split(", ")
    assert imported(f"busflow/data/{module}.py") - shared - set(inputs) == set()


def test_a_card_depends_on_all_the_code_that_it_runs(demo):
    shared = {f"busflow/{name}.py" for name in ("errors", "files", "labels")}
    inputs = re.search(r"rule make_card_claim_checklist:\n +input: (.*)", demo("cards")).group(1).split(", ")
    needed = imported("busflow/cards/claim.py") - shared - set(inputs)
    # Of the room data what judges a config, which is done before any job.
    assert [path for path in needed if not path.startswith("busflow/data/")] == []


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_failures_depend_on_all_the_code_that_they_run(demo, task):
    shared = {f"busflow/{name}.py" for name in ("errors", "files", "labels")}
    for rule, module in (
        (f"find_errors_{task}", f"failures/{task}"),
        (f"show_failures_{task}", "figures/gallery"),
    ):
        inputs = re.search(rf"rule {rule}:\n +input: (.*)", demo("failures")).group(1).split(", ")
        assert imported(f"busflow/{module}.py") - shared - set(inputs) == set(), rule


def test_the_scores_of_images_are_of_all_whole_protocols_and_the_pictures_of_the_grouped_one(demo):
    commands = dict(re.findall(r"(find_errors|make_gallery).py (.*)", demo("failures")))
    for verb, protocols in (("find_errors", {"paper", "grouped"}), ("make_gallery", {"grouped"})):
        assert set(re.findall(r"results/(\w+)/\w+/\w+/seed0/", commands[verb])) == protocols


def test_folds_alone_have_no_failures_but_labels_to_look_at(tmp_path):
    done = dry_run("failures", "--configfile", "config/crossval.yaml", "--config", f"root={tmp_path}/folds")
    planned = jobs(done.stdout)
    assert planned["find_label_errors"] == 1
    assert not [name for name in planned if name.startswith(("find_errors", "show_failures"))]


def test_a_folder_of_images_and_a_table_are_four_lines_of_config(tmp_path):
    (tmp_path / "hospital").mkdir()
    table = {"file": "cases.csv", "image": "file", "label": "diagnosis", "unit": "patient"}
    hospital = {"urls": [f"folder:{tmp_path}/hospital"], "reader": {"table": table}}
    sources = {"lin": None, "busi": None, "rodrigues": None, "hospital": hospital}
    models = {"classification": ["convnext_atto"]}
    planned = jobs(dry_run("--configfile", write(tmp_path, sources=sources, only=models)).stdout)
    assert (planned["unpack_archive"], planned["train_classification"]) == (1, 2)


def test_only_what_is_fetched_or_stands_in_the_receipt_fetches_again(tmp_path):
    checkout, hospital = copy_checkout(tmp_path / "checkout"), tmp_path / "hospital"
    hospital.mkdir()
    (hospital / "cases.csv").write_text("file\n")
    table = {"file": "cases.csv", "image": "file", "label": "diagnosis"}
    entry = {"urls": [f"folder:{hospital}"], "reader": {"table": table}, "licence": "own"}

    def planned(**changes) -> dict[str, int]:
        target, overlay = (
            "data/index/sources/hospital",
            write(tmp_path, sources={"hospital": entry | changes}),
        )
        shown = dry_run(target, "--configfile", overlay, "--config", "root=.", cwd=checkout)
        return jobs(shown.stdout)

    assert planned()["fetch_archive"] == 1
    arguments = [
        "data/archives/hospital.json",
        "--configfile",
        tmp_path / "overlay.yaml",
        "--config",
        "root=.",
    ]
    snakemake(*arguments, "--cores", "1", cwd=checkout)
    others = {"read_source", "unpack_archive"}
    for changes in (
        {},
        {"label": "Ours"},
        {"reader": {"table": table | {"unit": "patient"}}},
        {"use": "external"},
    ):
        assert planned(**changes).keys() & {"fetch_archive", *others} == others, changes
    assert planned(licence="CC0")["fetch_archive"] == 1
    hospital.rename(tmp_path / "unplugged")
    assert planned().keys() & {"fetch_archive", *others} == others


def test_logs_of_weights_are_apart_from_those_of_sources(tmp_path):
    (tmp_path / "x.pth").touch()
    weights = {"x": {"file": "x.pth", "urls": [f"file:{tmp_path}/x.pth"]}}
    models = {"classification": {"convnext_atto": {"pretrained": "x"}}}
    demo = yaml.safe_load((ROOT / "config.yaml").read_text())["sources"]["busi"]
    sources = {"weights_x": demo | {"archive": "x.zip"}}
    overlay = write(tmp_path, weights=weights, models=models, sources=sources)
    shown = dry_run("data", "--printshellcmds", "--configfile", overlay).stdout
    logs = re.findall(r"scripts/fetch\.py .* > (\S+) 2>&1", shown)
    assert len(logs) == len(set(logs)) == 5 and f"{tmp_path}/logs/fetch/weights/x.log" in logs


@pytest.mark.parametrize("study", ["crossval", "leave_one_out"])
def test_folds_and_sources_left_out_are_studied_with_the_settings_of_the_papers_study(study):
    paper, other = (yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()) for name in ("paper", study))
    assert all(other[key] == paper[key] for key in ("sources", "timing", "compute"))
    assert all(paper[key].items() >= other[key].items() for key in ("training", "weights"))
    for task, models in other["models"].items():
        assert models.items() <= paper["models"][task].items() and list(models) == other["only"][task]


def test_the_quick_study_is_that_of_the_paper_with_one_seed_and_shorter_schedules():
    paper, quick = (yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()) for name in ("paper", "quick"))
    schedule = ("epochs", "milestones", "warmup_epochs")

    def rest(settings: dict) -> dict:
        return {key: value for key, value in settings.items() if key not in schedule}

    assert quick["seeds"] == paper["seeds"][:1]
    assert all(quick[key] == paper[key] for key in ("sources", "timing", "compute", "weights"))
    assert paper.keys() == quick.keys()
    for task, models in paper["models"].items():
        assert compared(models) == list(quick["models"][task])  # without the ablations
        for own, other in (
            (paper["training"][task], quick["training"][task]),
            *((models[name], quick["models"][task][name]) for name in compared(models)),
        ):
            assert rest(own) == rest(other) and own.keys() == other.keys()
            assert all(
                (other[key] or 0) <= (own[key] or 0) for key in ("epochs", "warmup_epochs") if key in own
            )


def test_the_price_of_a_study_names_the_number_of_its_jobs(tmp_path):
    overlay = write(tmp_path, only={"detection": ["detr_r50"]})
    planned = jobs(dry_run("--configfile", overlay).stdout)
    assert number_of_jobs(Study("mine", overlay, tmp_path)) == planned.pop("total") == sum(planned.values())


def test_the_papers_study_takes_over_no_hyperparameter_of_the_demonstration():
    demo, paper = (yaml.safe_load((ROOT / path).read_text()) for path in ("config.yaml", "config/paper.yaml"))
    architecture = {"label", "timm", "detector", "backbone", "neck", "assigner", "segmenter"}
    for task, settings in demo["training"].items():
        assert set(settings) - set(paper["training"][task]) - {"precision", "compile"} == set()
        for name, entry in demo["models"][task].items():
            assert set(entry) - architecture - set(paper["models"][task][name]) == set(), name
