"""Index masks: those of the images' own mask files, or an error that says which file is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busflow.data.masks import CLASSES, load_mask, make_masks
from busflow.data.phantom_archives import busi
from busflow.errors import BusflowError
from layouts import busi_layout, mask_of, read, save

ROOT = Path(__file__).parents[2]
BENIGN, MALIGNANT, NORMAL = (f"busi/{label}/{label} (1)" for label in ("benign", "malignant", "normal"))


@pytest.fixture
def raw(tmp_path) -> Path:
    """BUSI's layout: two images of 50 × 40 px of each class."""
    return busi_layout(tmp_path)


@pytest.fixture
def tables(raw) -> dict[str, pd.DataFrame]:
    return tables_of(raw)


def tables_of(raw):
    read(raw.parent, "busi")
    index = raw.parent.parent / "index" / "busi"
    images, annotations = pd.read_csv(index / "images.csv"), pd.read_csv(index / "annotations.csv")
    split = images[["image_id", "label"]].assign(split="train", group=images["image_id"])
    split.loc[split["image_id"].str.endswith("(2)"), "split"] = "test"
    return {"split": split, "images": images, "annotations": annotations}


def test_a_mask_has_the_class_at_the_lesion_and_the_size_of_the_image(tables, tmp_path):
    make_masks(**tables, output=tmp_path / "masks")
    lesion = mask_of((10, 5, 20, 15))
    assert (load_mask(tmp_path / "masks", BENIGN) == lesion * 1).all()
    assert (load_mask(tmp_path / "masks", MALIGNANT) == lesion * 2).all()
    assert CLASSES == ("background", "benign", "malignant")
    with Image.open(tmp_path / "masks" / f"{BENIGN}.png") as image:
        assert (image.mode, image.size) == ("L", (50, 40))


def test_every_image_of_the_split_has_one_mask_under_its_id_and_no_other_has(tables, tmp_path):
    tables["split"] = tables["split"][tables["split"]["image_id"] != "busi/normal/normal (2)"]
    make_masks(**tables, output=tmp_path / "masks")
    files = sorted(path for path in (tmp_path / "masks").rglob("*") if path.is_file())
    assert files == sorted(tmp_path / "masks" / f"{image_id}.png" for image_id in tables["split"]["image_id"])


def test_a_normal_has_an_empty_mask(tables, tmp_path):
    make_masks(**tables, output=tmp_path / "masks")
    mask = load_mask(tmp_path / "masks", NORMAL)
    assert mask.shape == (40, 50) and mask.dtype == np.uint8 and not mask.any()


def test_several_masks_of_an_image_are_united(raw, tmp_path):
    save(raw / "benign" / "benign (1)_mask_1.png", mask_of((25, 15, 20, 20)))
    make_masks(**tables_of(raw), output=tmp_path / "masks")
    expected = mask_of((10, 5, 20, 15), (25, 15, 20, 20))
    assert (load_mask(tmp_path / "masks", BENIGN) == expected).all()


def test_the_class_is_the_label_that_the_split_gives_the_image(tables, tmp_path):
    relabelled = tables["split"]["image_id"] == "busi/benign/benign (2)"
    tables["split"].loc[relabelled, "label"] = "malignant"
    make_masks(**tables, output=tmp_path / "masks")
    assert np.unique(load_mask(tmp_path / "masks", "busi/benign/benign (2)")).tolist() == [0, 2]


def test_the_masks_of_the_phantoms_are_those_that_were_drawn(tmp_path):
    """1-bit and RGBA files, two lesions in one picture."""
    for name, content in busi(seed=1, benign=3, malignant=1, normal=1).items():
        path = tmp_path / "busi" / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    raw = tmp_path / "busi" / "raw" / "Dataset_BUSI_with_GT"
    make_masks(**tables_of(raw), output=tmp_path / "masks")
    for label in ("benign", "malignant", "normal"):
        for path in (raw / label).glob("*).png"):
            files = path.parent.glob(f"{path.stem}_mask*.png")
            drawn = [np.asarray(Image.open(file).convert("RGB"))[..., 0] > 0 for file in files]
            found = load_mask(tmp_path / "masks", f"busi/{label}/{path.stem}")
            assert (found > 0).tolist() == np.any(drawn, axis=0).tolist()


def repaint(path, mode, change=lambda pixels: pixels):
    with Image.open(path) as image:
        pixels = np.array(image.convert(mode))
    Image.fromarray(change(pixels)).save(path)


def test_the_alpha_of_a_mask_does_not_matter(tables, raw, tmp_path):
    def half_transparent(pixels):
        pixels[:20, :, 3] = 0
        return pixels

    repaint(raw / "benign" / "benign (1)_mask.png", "RGBA", half_transparent)
    make_masks(**tables, output=tmp_path / "masks")
    assert (load_mask(tmp_path / "masks", BENIGN) == mask_of((10, 5, 20, 15))).all()


def smoothed(pixels):
    pixels[4, 10:30] = 128
    return pixels


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"No such file"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:70]), "unusable mask: .* is damaged"),
        (lambda path: path.write_bytes(b"<html>"), "unusable mask: .* is not an image"),
        (
            lambda path: save(path, mask_of((10, 5, 20, 15), width=40, height=50)),
            r"mask of another size: .* is 40 × 50 px, the image 50 × 40 px",
        ),
        (lambda path: repaint(path, "L", smoothed), "mask not binary: .* has 3 grey levels"),
        (lambda path: repaint(path, "RGBA", smoothed), "mask not binary: .* has 3 grey levels"),
        (lambda path: repaint(path, "L", lambda pixels: pixels | 1), "mask not binary"),
    ],
)
def test_a_bad_mask_is_named_with_its_image_and_the_remedy(tables, raw, tmp_path, spoil, message):
    path = raw / "benign" / "benign (1)_mask.png"
    spoil(path)
    with pytest.raises(BusflowError, match=rf"{message}.*unpack its archive again") as caught:
        make_masks(**tables, output=tmp_path / "masks")
    assert str(caught.value).startswith(f"{path.as_posix()} cannot be the mask of {BENIGN} (")
    assert not (tmp_path / "masks" / f"{BENIGN}.png").exists()


def test_a_lesion_without_a_mask_file_is_named(tables, tmp_path):
    tables["annotations"] = tables["annotations"].query("image_id != @BENIGN")
    with pytest.raises(BusflowError, match=r"benign \(1\) is labelled benign, but .*none\) show no lesion"):
        make_masks(**tables, output=tmp_path / "masks")


def test_a_lesion_with_a_box_alone_is_named(tables, tmp_path):
    tables["annotations"].loc[tables["annotations"]["image_id"] == BENIGN, "mask_path"] = np.nan
    with pytest.raises(BusflowError, match=r"benign \(1\) is labelled benign, but .*none\) show no lesion"):
        make_masks(**tables, output=tmp_path / "masks")


def test_a_lesion_with_an_empty_mask_is_named(tables, raw, tmp_path):
    save(raw / "malignant" / "malignant (1)_mask.png", mask_of())
    with pytest.raises(BusflowError, match=r"labelled malignant, .*\(1\)_mask\.png\) show no lesion"):
        make_masks(**tables, output=tmp_path / "masks")


def test_a_normal_with_a_lesion_is_named(tables, tmp_path):
    tables["split"].loc[tables["split"]["image_id"] == "busi/benign/benign (2)", "label"] = "normal"
    with pytest.raises(BusflowError, match=r"labelled normal, but its masks .* show a lesion"):
        make_masks(**tables, output=tmp_path / "masks")


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_a_training_set_without_a_class_is_an_error(tables, tmp_path, label):
    tables["split"].loc[tables["split"]["label"] == label, "split"] = "test"
    with pytest.raises(BusflowError, match=f"no image of the train split is {label}"):
        make_masks(**tables, output=tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("label", ["benign", "malignant", "normal"])
def test_a_test_set_without_a_class_is_none(tables, tmp_path, label):
    tables["split"] = tables["split"].query("split == 'train' or label != @label")
    make_masks(**tables, output=tmp_path / "masks")
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 5


def test_an_image_that_the_index_lacks_is_named(tables, tmp_path):
    tables["images"] = tables["images"].query("image_id != @NORMAL")
    with pytest.raises(BusflowError, match=r"normal \(1\), which images\.csv lacks"):
        make_masks(**tables, output=tmp_path / "masks")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "damaged"),
        (lambda path: save(path, np.full((40, 50), 3, np.uint8)), "it holds the value 3, which is no class"),
    ],
)
def test_a_bad_index_mask_is_named_when_it_is_read(tables, tmp_path, spoil, message):
    make_masks(**tables, output=tmp_path / "masks")
    spoil(tmp_path / "masks" / f"{BENIGN}.png")
    with pytest.raises(BusflowError, match=rf"benign \(1\)\.png is no intact index mask .*{message}"):
        load_mask(tmp_path / "masks", BENIGN)


def test_the_order_of_the_tables_does_not_matter(raw, tmp_path):
    save(raw / "benign" / "benign (1)_mask_1.png", mask_of((25, 15, 20, 20)))
    tables = tables_of(raw)
    make_masks(**tables, output=tmp_path / "a")
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    make_masks(**shuffled, output=tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_script_writes_what_the_function_writes(tables, tmp_path):
    make_masks(**tables, output=tmp_path / "masks")
    arguments = ["--output", str(tmp_path / "again")]
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        arguments += [f"--{name}", str(tmp_path / f"{name}.csv")]
    command = [sys.executable, "scripts/make_masks.py", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
    for path in (tmp_path / "masks").rglob("*.png"):
        again = tmp_path / "again" / path.relative_to(tmp_path / "masks")
        assert path.read_bytes() == again.read_bytes()


LEADING_OUT = ["../evil", "busi/../../evil", "/evil", "a\0b", "a\nb", "..\\evil", "a" * 252, "a/" * 600]


@pytest.mark.parametrize("image_id", LEADING_OUT)
def test_an_id_that_leads_out_of_the_folder_is_neither_written_nor_read(tables, tmp_path, image_id):
    for table in tables.values():
        table["image_id"] = table["image_id"].replace(BENIGN, image_id)
    output = tmp_path / "deep" / "masks"
    with pytest.raises(BusflowError, match="cannot name a file in") as caught:
        make_masks(**tables, output=output)
    assert str(output) in str(caught.value)
    assert not list(tmp_path.rglob("*evil*"))
    with pytest.raises(BusflowError, match="cannot name a file in"):
        load_mask(output, image_id)


def test_the_longest_name_of_an_image_has_a_mask(raw, tmp_path):
    longest = "x" * 241 + "é" * 5  # 251 bytes, and as many as possible with the suffix
    for path in (raw / "normal" / "normal (1)_mask.png", raw / "normal" / "normal (2)_mask.png"):
        path.unlink()
    (raw / "normal" / "normal (1).png").rename(raw / "normal" / f"{longest}.png")
    make_masks(**tables_of(raw), output=tmp_path / "masks")
    assert not load_mask(tmp_path / "masks", f"busi/normal/{longest}").any()
