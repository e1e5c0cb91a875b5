"""The entries of config/sources on miniatures of their datasets, oddities included."""

import io
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from busflow.config import resolve
from busflow.data.archives import unpack
from busflow.data.catalogue import check_source, complete
from busflow.data.sources import fetch_source
from layouts import LESION, mask_of, picture, read_described

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "config/sources").glob("*.yaml"))
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    file, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG")
    return file.getvalue()


def coloured(colour: tuple[int, int, int], lesion=LESION) -> bytes:
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[lesion] = colour
    return png(pixels)


def excel(**columns) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(columns).to_excel(file, index=False)
    return file.getvalue()


def bus_bra() -> dict:
    """Two views of one patient, of whom one breast is benign and the other malignant."""
    rows = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    members = {"BUSBRA/5-fold-cv.csv": b"ID,kFold\n", "BUSBRA/License.txt": b"CC BY"}
    for name, case, label in (("0001-l", 1, "malignant"), ("0001-r", 1, "benign"), ("0002-l", 2, "benign")):
        rows.append(f'bus_{name},{case},Cyst,{label},4,GE,50,40,left,"[10,5,20,15]"')
        members[f"BUSBRA/Images/bus_{name}.png"] = png(picture())
        members[f"BUSBRA/Masks/mask_{name}.png"] = png(LESION)
    return {"BUSBRA/bus_data.csv": "\n".join(rows).encode(), **members}


def bus_uclm() -> dict:
    """Masks in colour; a picture that is cropped and a Doppler one."""
    top = "BUS-UCLM Breast ultrasound lesion segmentation dataset/BUS-UCLM"
    rows = ["Image;Label;Resolution;Doppler;Marks;Combined"]
    masks = {"ALWI_000": (0, 255, 0), "ALWI_001": (255, 0, 0), "ANAT_000": None, "ANAT_001": (0, 255, 0)}
    members = {}
    for name, colour in masks.items():
        label = {None: "Normal", (0, 255, 0): "Benign", (255, 0, 0): "Malignant"}[colour]
        rows.append(f"{name}.png;{label};50x40;No;No;No")
        members[f"{top}/images/{name}.png"] = png(picture(height=30 if name == "ANAT_001" else 40), "RGB")
        members[f"{top}/masks/{name}.png"] = coloured(colour or (0, 0, 0))
    return {f"{top}/INFO.csv": "\ufeff".encode() + "\n".join(rows).encode(), **members}


BREAST = {
    "CaseID": [1, 2, 3, 4],
    "Image_filename": [f"case00{k}.png" for k in range(1, 5)],
    "Mask_tumor_filename": [
        "case001_tumor.png",
        "case002_tumor1.png&case002_tumor2.png",
        "case003_tumor.png",
        None,
    ],
    "Mask_other_filename": ["case001_other1.png", None, None, None],
    "Classification": ["benign", "malignant", "benign", "normal"],
}


def breast() -> dict:
    """RGBA pictures, masks of other findings, two tumours in one picture, a normal without mask."""
    masks = ["case001_tumor", "case001_other1", "case002_tumor1", "case002_tumor2", "case003_tumor"]
    shown = {name: png(mask_of((10, 5, 20 + k, 15)), "L") for k, name in enumerate(masks)}
    shown |= {f"case00{k}": png(picture(), "RGBA") for k in range(1, 5)}
    return {f"BrEaST-Lesions_USG-images_and_masks/{name}.png": data for name, data in shown.items()}


def udiat() -> dict:
    """Numbers without their zeros in a spreadsheet, and a mask that is not black and white."""
    soft = np.where(LESION, 254, 2).astype(np.uint8)
    members = {
        "BUS/DatasetB.xlsx": excel(Image=[1, 2], Type=["Benign", "Malignant"], Diagnosis=["CYST", "IDC"])
    }
    for number in (1, 2):
        members[f"BUS/original/00000{number}.png"] = png(picture(), "RGB")
        members[f"BUS/GT/00000{number}.png"] = png(soft)
    return members


def bus_uc() -> dict:
    """Parallel folders, and the same pictures once more in a folder of all."""
    image, members = png(picture()), {}
    for label in ("Benign", "Malignant"):
        members[f"BUS_UC/{label}/images/001.png"] = members[f"BUS_UC/All/images/{label}.png"] = image
        members[f"BUS_UC/{label}/masks/001.png"] = members[f"BUS_UC/All/masks/{label}.png"] = png(LESION)
    return members


# Of each: its miniature, labels of its images, units, lesions, and the first words of its lines in the
# quarantine.
MINIATURES = {
    "bus_bra": (bus_bra, ["malignant", "benign", "benign"], ["1", "1", "2"], 3, ["several labels"]),
    "bus_uclm": (
        bus_uclm,
        ["benign", "malignant", "normal"],
        ["ALWI", "ALWI", "ANAT"],
        2,
        ["left out with its image", "mask of another size", "several labels"],
    ),
    "breast": (breast, ["benign", "malignant", "benign", "normal"], ["1", "2", "3", "4"], 4, []),
    "udiat": (udiat, ["benign", "malignant"], ["original/000001", "original/000002"], 2, ["no unit"]),
    "bus_uc": (
        bus_uc,
        ["benign", "malignant"],
        ["Benign/images/001", "Malignant/images/001"],
        2,
        ["no unit"],
    ),
}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def entry_of(path: Path) -> dict:
    """The entry as a study takes it, checked by the schema, which fills in what it leaves out."""
    source = complete(path.stem, path.relative_to(ROOT).as_posix())
    schema = SCHEMA["properties"]["sources"]["additionalProperties"]
    jsonschema.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]}).validate(source)
    check_source(path.stem, source)
    defaults = {key: child["default"] for key, child in schema["properties"].items() if "default" in child}
    return defaults | source


def test_every_shipped_entry_has_a_miniature():
    assert {path.stem for path in SOURCES} == set(MINIATURES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_shipped_entry_reads_its_dataset(tmp_path, path):
    make, labels, units, lesions, lines = MINIATURES[path.stem]
    source = entry_of(path) | {"sha256": None}  # a miniature has another
    archives = tmp_path / "archives"
    archives.mkdir()
    with zipfile.ZipFile(archives / source["archive"], "w") as archive:
        for name, data in make().items():
            archive.writestr(name, data)
    for name in source.get("also", {}):
        (archives / name).write_bytes(excel(**BREAST))
    fetch_source(path.stem, source, archives, archives / "receipt.json")
    unpack(archives / source["archive"], archives / "receipt.json", tmp_path / "raw")
    images, annotations, quarantine = read_described(tmp_path / "raw", source["reader"], path.stem)
    assert images["label"].tolist() == labels
    assert images["unit"].str.removeprefix(f"{path.stem}/").tolist() == units
    assert len(annotations) == lesions and annotations["mask_path"].ne("").all()
    assert sorted(quarantine["reason"].str.split(":").str[0]) == lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_shipped_entry_says_where_it_comes_from(path):
    entry = yaml.safe_load(path.read_text())
    assert all(entry[key] for key in ("licence", "citation", "homepage")) and path.read_text().startswith(
        "# "
    )
    assert complete("x", path.as_posix())["tasks"] == ["classification", "segmentation"]


def test_a_study_overrides_keys_of_an_entry():
    source = complete(
        "bus_bra", {"from": "config/sources/bus_bra.yaml", "tasks": ["classification"], "label": "Mine"}
    )
    assert (source["tasks"], source["label"], source["archive"]) == (["classification"], "Mine", "BUSBRA.zip")
    models = {"classification": {"a": {}}}
    config = resolve({"models": models, "sources": {"bus_bra": "config/sources/bus_bra.yaml"}})
    assert config["sources"]["bus_bra"]["tasks"] == ["classification"]
