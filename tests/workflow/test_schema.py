"""What the schema lets through, and what it stops before any job."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from studies import dry_run

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
OVERLAYS = sorted((ROOT / "config").glob("*.yaml"))


def test_every_key_of_the_schema_is_described():
    def undescribed(node: dict, path: str) -> list[str]:
        found = []
        for key, child in node.get("properties", {}).items():
            known = child if "$ref" not in child else SCHEMA["$defs"][child["$ref"].split("/")[-1]]
            if "description" not in known and "properties" not in known:
                found.append(f"{path}.{key}")
            found += undescribed(child, f"{path}.{key}")
        if isinstance(node.get("additionalProperties"), dict):
            found += undescribed(node["additionalProperties"], f"{path}.*")
        return found

    Draft202012Validator.check_schema(SCHEMA)
    assert undescribed(SCHEMA, "config") == []


def test_every_key_of_the_schema_is_in_the_manual():
    manual = (ROOT / "config/README.md").read_text()

    def names(node: dict) -> set[str]:
        children = node.get("properties", {})
        found = set(children).union(*(names(child) for child in children.values()))
        extra = node.get("additionalProperties")
        return found | names(extra) if isinstance(extra, dict) else found

    assert {name for name in names(SCHEMA) if f"`{name}`" not in manual} == set()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_shipped_studies_are_valid_and_can_be_planned(overlay):
    assert "Job stats" in dry_run("--configfile", overlay).stdout


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        (
            "training: {classification: {epoch: 3}}",
            ["'epoch' was unexpected", "['training']['classification']"],
        ),
        ("seeds: three", ["'three' is not of type 'array'", "['seeds']"]),
        ("study: {nam: x}", ["'nam' was unexpected", "['study']"]),
        (
            "models: {classification: {mine: {timm: convnext_atto, batch_size: 4}}}",
            ["'label' is a required property", "['models']['classification']['mine']"],
        ),
        (
            "sources: {busi: {sha256: abc}}",
            ["'abc' does not match", "['sources']['busi']['sha256']"],
        ),
        ("seeds: [0]\nseeds: [1]", ["overlay.yaml: line 2 gives 'seeds' again"]),
        ("only: {detection: [detr]}", ["only.detection names detr"]),
        ('root: "a{b}"', ["'a{b}' does not match", "['root']"]),
        (
            "models: {detection: {convnext_small: {neck: rfp}}}",
            ["'swin_base' was expected", "['models']['detection']['convnext_small']"],
        ),
        ("models: {segmentation: {segformer_b0: {backbone: b7}}}", ["timm has no network b7"]),
        (
            "models: {detection: {a: {label: A, detector: gfl, backbone: convnext_atto, assigner: rfla}}}",
            ["'max_iou' was expected", "['models']['detection']['a']"],
        ),
        ("models: {classification: {convnext_atto: {timm: convnext_atom}}}", ["did you mean convnext_atto"]),
        (
            "sources: {busi: {label: '=HYPERLINK(0)'}}",
            ["'=HYPERLINK(0)' does not match", "['sources']['busi']['label']"],
        ),
        (
            "training: {classification: {network: {checkpoint_path: other.pth}}}",
            ["'checkpoint_path' was unexpected", "['training']['classification']['network']"],
        ),
        (
            "models: {classification: {mine: {label: Mine, timm: 'local-dir:/x', batch_size: 4}}}",
            ["'local-dir:/x' does not match", "['mine']['timm']"],
        ),
        (
            "sources: {busi: {reader: {table: {file: a.csv, image: a, lable: b}}}}",
            ["'lable' was unexpected", "['sources']['busi']['reader']['table']"],
        ),
        ("sources: {busi: {reader: {sheets: {}}}}", ["'sheets' was unexpected"]),
        ("sources: {busi: {reader: {pairs: {image: '{label}/*'}}}}", ["'mask' is a required property"]),
        (
            "sources: {busi: {reader: {table: {file: a.csv, image: a, label: b, mask: c, box: d}}}}",
            ["sources.busi.reader.table has two of mask, box, corners"],
        ),
        (
            "sources: {mine: config/sources/mine.yaml}",
            ["sources.mine.from is", "config/sources/bus_bra.yaml"],
        ),
        (
            "sources: {mine: {urls: ['folder:/x'], reader: {folders: {unit: '('}}}}",
            ["expected a pattern with"],
        ),
        ("protocols: {mine: {label: Mine}}", ["'split' is a required property", "['protocols']['mine']"]),
        ("protocols: {mine: {split: random}}", ["'random' is not one of", "['protocols']['mine']['split']"]),
        ("protocols: {a-b: {split: grouped}}", ["'a-b' does not match", "['protocols']"]),
        (
            "protocols: {mine: {split: paper, fold: [1, 5]}}",
            ["protocols.mine: the paper's split has no fold"],
        ),
        ("protocols: {mine: {split: grouped, leave_out: [lin]}}", ["leaves detection no source to train on"]),
        ("protocols: {mine: {split: grouped, fold: [1]}}", ["[1] is too short", "['mine']['fold']"]),
        (
            "sources: {busi: {tasks: [counting]}}",
            ["'counting' is not one of", "['sources']['busi']['tasks']"],
        ),
    ],
)
def test_a_wrong_config_stops_before_any_job_and_names_the_key(tmp_path, overlay, named):
    (tmp_path / "overlay.yaml").write_text(overlay)
    done = dry_run("--configfile", tmp_path / "overlay.yaml", check=False)
    assert done.returncode == 1 and "Job stats" not in done.stdout
    for words in named:
        assert words in done.stdout + done.stderr


def test_no_label_is_a_formula_to_a_spreadsheet():
    def texts(node: object) -> list[dict]:
        if not isinstance(node, dict):
            return []
        here = [
            node["properties"][name]
            for name in ("label", "original_task")
            if name in node.get("properties", {})
        ]
        # A reader's label is a column or a pattern, which no table shows.
        return here + [text for key, child in node.items() if key != "reader" for text in texts(child)]

    assert len(texts(SCHEMA)) == 7 and {text["$ref"] for text in texts(SCHEMA)} == {"#/$defs/label"}
    label = Draft202012Validator(SCHEMA["$defs"]["label"])
    formulas = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", ""]
    assert [text for text in formulas if label.is_valid(text)] == []
    assert all(label.is_valid(text) for text in ("ConvNeXt-Tiny", "U-Net+", "42", "(a) =", "Ünet"))
