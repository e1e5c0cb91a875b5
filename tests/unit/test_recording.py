"""How far predictions are apart, and what a verification sees and says of a record."""

import itertools
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from faster_coco_eval.core import mask
from pycocotools import mask as coco_mask

import busflow.recording.record
import busflow.recording.repeat
import busflow.recording.verify
from busflow.errors import BusflowError
from busflow.metrics.scores import scores
from busflow.recording import history
from busflow.recording.checks import Check, as_table, kind_of
from busflow.recording.predictions import Comparison, compare, compare_boxes, overlap
from busflow.recording.sample import PER_TASK, draw, predictions_of, remarks
from busflow.recording.study import CODE, find_study
from busflow.recording.verify import Verification, verify

ROOT = Path(__file__).parents[2]


def outline(pixels: int) -> dict:
    """A mask of 100 pixels, of which the first ``pixels`` are set."""
    drawn = (np.arange(100).reshape(10, 10) < pixels).astype(np.uint8)
    encoded = mask.encode(np.asfortranarray(drawn))
    return {"size": [10, 10], "counts": encoded["counts"].decode()}


def written(folder: Path, **contents) -> list[Path]:
    paths = [folder / f"{name}.json" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(json.dumps(content))
    return paths


@pytest.mark.parametrize(("pixels", "alike"), [(40, True), (43, False)])
def test_masks_differ_by_their_share_of_pixels(tmp_path, pixels, alike):
    one, other = ([{"image_id": "a", "label": "benign", "segmentation": outline(n)}] for n in (40, pixels))
    found = compare(*written(tmp_path, one=one, other=[*other]))
    assert found.alike is alike and (alike or found.distance == "largest difference 0.03")


@pytest.fixture(scope="module")
def boxes() -> list[dict]:
    """30 images of a sure box and 19 doubtful ones, three of equal scores."""
    rng = np.random.default_rng(0)
    scores = [0.9, *np.linspace(0.4, 0.1, 16), 0.1, 0.1, 0.0505]
    found = []
    for image, score in itertools.product(range(30), scores):
        corner, size = rng.uniform(0, 500, 2), rng.uniform(20, 200, 2)
        label = ["benign", "malignant"][int(rng.integers(2))]
        box = [*corner.round(3).tolist(), *size.round(3).tolist()]
        found.append({"image_id": f"lin/{image}", "label": label, "bbox": box, "score": float(score)})
    return found


def noisy(boxes: list[dict], pixels: float, score: float) -> list[dict]:
    rng = np.random.default_rng(1)
    return [
        each
        | {"bbox": (np.array(each["bbox"]) + rng.uniform(-pixels, pixels, 4)).round(3).tolist()}
        | {"score": each["score"] + rng.uniform(-score, score)}
        for each in boxes
    ]


def test_boxes_are_alike_in_any_order_with_the_last_digits_of_another_processor(boxes):
    shuffled = [boxes[k] for k in np.random.default_rng(2).permutation(len(boxes))]
    assert compare_boxes(boxes, shuffled) == Comparison(True, compare_boxes(boxes, boxes).distance)
    assert compare_boxes(boxes, noisy(shuffled, 0.02, 1e-4)).alike
    # Two boxes of one place and score that stand the other way round, and one that the border cut to a line.
    twins = [boxes[0], boxes[0] | {"bbox": [9.0, 9.0, 0.0, 40.0]}, boxes[0] | {"score": 0.2}]
    assert compare_boxes(twins, noisy(twins[::-1], 0.001, 1e-6)).alike


def test_one_doubtful_box_of_thousands_may_be_in_one_prediction_alone(boxes):
    many = [each | {"image_id": f"{each['image_id']}/{k}"} for k in range(4) for each in boxes]
    assert compare_boxes(many, many[:-1]).alike and compare_boxes(many[:-1], many).alike
    found = compare_boxes(many, many[:-3])
    assert not found.alike and "without a partner 3 of 4797 boxes, 0 of them" in found.distance
    assert not compare_boxes(many, many[1:]).alike  # one that is sure


FORGERIES = {
    "moved": lambda box: {"bbox": [box["bbox"][0] + 1, *box["bbox"][1:]]},
    "larger": lambda box: {"bbox": [*box["bbox"][:3], box["bbox"][3] * 1.02]},
    "surer": lambda box: {"score": box["score"] + 0.01},
    "of another label": lambda box: {"label": {"benign": "malignant", "malignant": "benign"}[box["label"]]},
    "of another image": lambda box: {"image_id": "lin/99"},
    "without a number": lambda box: {"score": math.nan},
    "turned inside out": lambda box: {"bbox": [5.0, 5.0, -9.0, -9.0]},
    "malformed": lambda box: {"bbox": "everywhere"},
}


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_one_forged_box_is_found(tmp_path, boxes, forged, place):
    record = [*boxes[:place], boxes[place] | forged(boxes[place]), *boxes[place + 1 :]]
    assert not compare(*written(tmp_path, one=record, other=noisy(boxes, 0.001, 1e-6))).alike


@pytest.mark.parametrize("change", ["added", "left out"])
def test_a_box_more_or_less_is_found(tmp_path, boxes, change):
    record = boxes[1:] if change == "left out" else [*boxes, boxes[0]]
    found = compare(*written(tmp_path, one=record, other=noisy(boxes, 0.001, 1e-6)))
    assert not found.alike and "without a partner 1 of" in found.distance
    assert not compare(*written(tmp_path, one=[], other=boxes)).alike


def test_the_overlap_of_boxes_is_pycocotools_with_a_pixel_more(boxes):
    these, those = np.array([each["bbox"] for each in boxes]).reshape(2, -1, 4)
    wider = [part + np.array([0, 0, 1, 1]) for part in (these, those)]
    expected = coco_mask.iou(*wider, [0] * len(those))
    assert 0 < expected.max() < 1
    np.testing.assert_allclose(overlap(these, those), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("row", "apart"), [("a,0.51", "0.01"), ("b,0.5", "inf"), ("a,0.5\na,0.5", "inf"), ("a,0.5009", None)]
)
def test_tables_of_predictions_differ_by_their_largest_difference(tmp_path, row, apart):
    (tmp_path / "one.csv").write_text("image_id,p\na,0.5\n")
    (tmp_path / "other.csv").write_text(f"image_id,p\n{row}\n")
    found = compare(tmp_path / "one.csv", tmp_path / "other.csv")
    assert found == Comparison(apart is None, f"largest difference {apart or '0.0009'}")


def test_scores_are_the_leading_numbers_and_null_stays_null():
    metrics = {"coco": {"ap": 0.1, "ap50": 0.2, "ap75": None, "ar100": 0.3}, "n": 5}
    assert scores("detection", metrics) == {"ap": 0.1, "ap50": 0.2, "ap75": None, "ar100": 0.3}


def test_the_table_counts_what_is_equal_and_names_what_is_not():
    text = as_table([Check("recorded tables", 3, ["results/tables/table2.csv"])])
    assert "| recorded tables |          3 |       2 |        1 |" in text
    assert text.endswith("differs: recorded tables: results/tables/table2.csv")


def test_files_are_counted_by_their_kind():
    kinds = {
        "results/paper/detection/swin_base/seed0/predictions.json": "predictions",
        "results/tables/table1.md": "tables",
        "results/cards": "cards",
        "results/failures": "failures",
        "results/figures": "figures",
        "data/splits/paper/detection.csv": "data",
    }
    assert {path: kind_of(path) for path in kinds} == kinds


@pytest.fixture
def audit(monkeypatch):
    """Run ``scripts/verify.py`` on a verification that finds ``differing``; the seeds it was given."""
    seeds = []

    def run(*arguments: str, differing: tuple = ()) -> list:
        def found(study, seed):
            seeds.append(seed)
            return Verification("", [Check("files", 1, list(differing))], "")

        monkeypatch.setattr(busflow.recording.verify, "verify", found)
        monkeypatch.setattr(sys, "argv", ["verify.py", "--study", "demo", *arguments])
        runpy.run_path(str(ROOT / "scripts/verify.py"), run_name="__main__")
        return seeds

    return run


def test_the_exit_status_of_the_audit_says_whether_anything_differs(audit):
    audit()
    with pytest.raises(SystemExit) as exit_:
        audit(differing=("x",))
    assert exit_.value.code == "The study is not what is on record."


def test_an_audit_has_a_new_seed_unless_it_is_given_one_or_predicts_all(audit):
    audit("--seed", "7")
    audit("--all")
    audit()
    seed, everything, *new = audit()
    assert (seed, everything) == (7, None) and len({*new}) == 2 and all(type(n) is int for n in new)


def unit(model: str, task: str = "classification", protocol: str = "paper") -> Path:
    return Path(f"results/{protocol}/{task}/{model}/seed0")


EIGHT = predictions_of([unit(f"m{n}", task) / "predictions.csv" for n in range(8) for task in ("a", "b")])


def test_the_sample_has_units_of_each_task_and_is_repeated_by_its_seed():
    drawn = draw(EIGHT, [], seed=3)
    assert [sum(path in units for path in drawn) for units in EIGHT.values()] == [PER_TASK, PER_TASK]
    assert drawn == draw(EIGHT, [], seed=3)
    assert {path for seed in range(100) for path in draw(EIGHT, [], seed)} == {*EIGHT["a"], *EIGHT["b"]}


def test_predictions_recorded_later_than_their_weights_are_in_every_sample():
    suspect = EIGHT["b"][5]
    assert all(suspect in draw(EIGHT, [suspect], seed) for seed in range(30))
    assert len(draw(EIGHT, EIGHT["b"], 0)) == 3 * PER_TASK  # not all of them: an audit stays short


def test_external_predictions_recorded_later_than_the_weights_of_their_unit_are_named():
    weights, outside = unit("m") / "weights.pth", unit("m") / "external/clinic/predictions.csv"
    old, new = (history.Commit(age, "c", "2026-01-01", "text") for age in (2, 1))
    assert history.later_than_weights({weights: old, outside: new}) == [outside]
    assert history.later_than_weights({weights: old, outside: old}) == []


def test_the_audit_says_what_it_did_not_predict_and_the_chance_of_seeing_a_forgery():
    said = remarks(EIGHT, draw(EIGHT, [], 3), 3)
    assert f"the predictions of {16 - 2 * PER_TASK} units" in said
    assert f"{PER_TASK} in 8 (a), {PER_TASK} in 8 (b)" in said and "SEED=3" in said
    assert "predictions of 0 units." in remarks(EIGHT, EIGHT["a"] + EIGHT["b"], None)


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def commit(message: str, **hashes: str) -> None:
    """Commit a ``dvc.lock`` with these hashes of the files of one unit."""
    suffix = {"weights": ".pth", "predictions": ".csv", "metrics": ".json"}
    outs = [{"path": str(unit("m") / f"{name}{suffix[name]}"), "md5": md5} for name, md5 in hashes.items()]
    deps = [{"path": "busflow", "md5": "code.dir"}]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"a": {"deps": deps, "outs": outs}}}))
    git("add", "dvc.lock")
    git("commit", "--message", message)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init")
    return find_study("demo")


def since(study) -> dict:
    names = ("weights.pth", "predictions.csv", "metrics.json")
    return history.recorded_since(study, {Path("busflow"), *(unit("m") / name for name in names)})


def test_each_path_has_the_commit_since_which_its_hash_is_on_record(repository):
    commit("First", weights="1", predictions="1", metrics="1")
    commit("Second", weights="1", predictions="2", metrics="1")
    commit("Back again", weights="1", predictions="1", metrics="1")
    commit("Metrics", weights="1", predictions="1", metrics="2")
    found = {path.stem: commit.message for path, commit in since(repository).items()}
    assert found == {
        "busflow": "First", "weights": "First", "predictions": "Back again", "metrics": "Metrics"
    }  # fmt: skip


def test_predictions_recorded_after_their_weights_are_named(repository):
    commit("A study", weights="1", predictions="1", metrics="1")
    assert history.later_than_weights(since(repository)) == []
    commit("Better | numbers\x1b[2J", weights="1", predictions="2", metrics="2")
    assert history.later_than_weights(since(repository)) == [unit("m") / "predictions.csv"]
    said = history.as_summary(since(repository), repository)
    rows = [line.split("|")[3:5] for line in said.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == [
        ["A study", "1 code; 1 weights"],
        ["Better / numbers[2J", "1 metrics; 1 predictions"],
    ]
    assert "recorded later than its weights: results/paper/classification/m/seed0/predictions.csv (" in said


def test_new_weights_with_the_same_predictions_need_no_look(repository):
    commit("A study", weights="1", predictions="1")
    commit("Trained again", weights="2", predictions="1")
    assert history.later_than_weights(since(repository)) == []


def test_a_record_that_is_not_committed_is_called_so(repository):
    commit("A study", weights="1", predictions="1")
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace("'1'", "'2'"))
    assert since(repository)[unit("m") / "weights.pth"] == history.UNCOMMITTED
    assert "(not committed)" in history.as_summary(since(repository), repository)


MODELS = ("m1", "m2", "m3")
TRUE = "image_id,p\na,0.5\n"
TABLE = "results/tables/table1.csv"


class Workflow:
    """In Snakemake's place: knows what the rules make, predicts the truth, and copies the rest."""

    def __init__(self):
        files = ("weights.pth", "predictions.csv", "timing.json", "metrics.json")
        self.made = {unit(model) / file: "evaluate_a" for model in MODELS for file in files}
        self.made |= {Path(TABLE): "tabulate_table1", Path("results/config.yaml"): "record_config"}

    def __call__(self, *arguments, cwd):
        for target in arguments[: arguments.index("--configfile")]:
            for path in [*self.made] if target in ("tables", "figures", "cards", "failures") else [target]:
                if not (cwd / path).exists():
                    (cwd / path).parent.mkdir(parents=True, exist_ok=True)
                    (cwd / path).write_text(TRUE if path.stem == "predictions" else path.name)


@pytest.fixture
def recorded(repository, monkeypatch):
    """A study of three units on record; code files that only have their names."""
    Repo.init().close()
    workflow = Workflow()
    workflow("tables", "--configfile", cwd=Path())
    for name in (*CODE, "config.yaml"):
        path = Path(
            name if Path(name).suffix or name in ("Makefile", "workflow/Snakefile") else f"{name}/code.py"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    costly = ("weights.pth", "predictions.csv", "timing.json")
    outs = [{str(path): {"cache": path.name in costly}} for path in workflow.made]
    stage = {"cmd": "true", "deps": [*CODE, "config.yaml"], "outs": outs}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": stage}}))
    put_on_record("A study")
    for module in (busflow.recording.repeat, busflow.recording.record):
        monkeypatch.setattr(module, "made_by", lambda *_: dict(workflow.made))
    monkeypatch.setattr(busflow.recording.repeat, "snakemake", workflow)
    return repository


def put_on_record(message: str) -> None:
    with Repo() as repo:
        repo.commit(force=True)
    Path(".gitignore").write_text("/results/paper\n/logs\n")
    git("add", ".")
    git("commit", "--message", message)


def differing(study, seed: int | None = None) -> list[str]:
    return [name for check in verify(study, seed).checks for name in check.differing]


def test_a_study_as_recorded_passes(recorded):
    found = verify(recorded, 1)
    assert [name for check in found.checks for name in check.differing] == []
    assert {check.what for check in found.checks if not check.compared} == {"recorded settings"}
    assert [check.what for check in found.checks if "again" in check.what] == [
        f"predicted again: paper/classification/{path.parts[3]}/seed0"
        for path in draw(predictions_of(Workflow().made), [], 1)
    ]
    assert "1 in 3" not in found.remarks and "2 in 3 (classification)" in found.remarks
    assert len(Path("logs/recorded.csv").read_text().splitlines()) > 20


def test_the_audit_says_what_either_prediction_was_made_on(recorded, monkeypatch):
    card = json.dumps({"device": "A card | of \x1b[2J 2020"})
    for model in MODELS:
        (unit(model) / "timing.json").write_text(card)
    put_on_record("A study on a GPU")
    said = [check.remark for check in verify(recorded, None).checks if "predicted again" in check.what]
    assert said == ["equal bytes; on A card / of [2J 2020 and a device that is not known"] * 3


@pytest.mark.parametrize("model", MODELS)
def test_a_forgery_that_was_recorded_is_found_by_predicting_all_again(recorded, model):
    (unit(model) / "predictions.csv").write_text(TRUE.replace("0.5", "1"))
    (unit(model) / "weights.pth").write_text("trained again")  # so that the history tells nothing
    put_on_record("A better study")
    assert differing(recorded) == [str(unit(model) / "predictions.csv")]


def test_a_forgery_after_the_weights_were_recorded_is_in_every_sample(recorded):
    (unit("m2") / "predictions.csv").write_text(TRUE.replace("0.5", "1"))
    put_on_record("A better study")
    assert [differing(recorded, seed) for seed in range(3)] == 3 * [[str(unit("m2") / "predictions.csv")]]


def test_files_that_no_rule_makes_are_named(recorded):
    names = ["data/index/extra.csv", "results/figures/extra.png", "results/tables/extra.csv"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")
    assert differing(recorded) == [f"{name} (no rule makes it)" for name in names]


def test_what_was_taken_out_of_the_record_is_named(recorded):
    stages = yaml.safe_load(Path("dvc.yaml").read_text())
    stage = stages["stages"]["all"]
    taken = [str(unit("m1") / "predictions.csv"), TABLE]
    stage["outs"] = [out for out in stage["outs"] if out.keys().isdisjoint(taken)]
    stage["deps"].remove("busflow")
    Path("dvc.yaml").write_text(yaml.safe_dump(stages))
    named = [name for name in differing(recorded) if "no stage records it" in name]
    assert named == [f"{name} (no stage records it)" for name in (*taken, "busflow/code.py")]


def test_edited_code_is_named(recorded):
    files = {str(path) for name in (*CODE, "config.yaml") for path in (Path(name), Path(name, "code.py"))}
    edited = sorted(name for name in files if Path(name).is_file())
    assert len(edited) == len(CODE) + 1
    for name in edited:
        Path(name).write_text("edited")
    assert differing(recorded) == edited


def test_a_new_file_of_the_code_is_named(recorded):
    Path("busflow/new.py").write_text("")
    assert differing(recorded) == ["busflow/new.py"]


def test_what_no_stage_lists_is_not_recorded(recorded, monkeypatch):
    monkeypatch.setattr(
        busflow.recording.record,
        "snakemake",
        lambda *_: subprocess.CompletedProcess([], 0, "Nothing to be done", ""),
    )
    monkeypatch.setattr(busflow.recording.record, "made_by", lambda _: {Path("results/tables/new.csv"): "t"})
    with pytest.raises(
        BusflowError, match=r"results/tables/new\.csv is made by the study, but no stage of dvc"
    ):
        busflow.recording.record.record(recorded)
