import pandas as pd
import pytest

from busflow.data.errata import apply_errata, corrected_labels
from busflow.errors import BusflowError


def table(*image_ids: str) -> pd.DataFrame:
    sources, labels = zip(*(image_id.split("/")[:2] for image_id in image_ids), strict=True)
    return pd.DataFrame({"image_id": image_ids, "source": sources, "label": labels})


LIN = table(
    "lin/benign/x63c9ba1377f35bf6/000000",
    "lin/benign/x63c9ba1377f35bf6/000001",
    "lin/benign/x66ef02e7f1b9a0ef/000000",
    "lin/malignant/2390fbea047347b/000000",
    "lin/malignant/63c9ba1377f35bf6/000000",
)


@pytest.mark.parametrize("video", ["benign/x63c9ba1377f35bf6", "benign/63c9ba1377f35bf6"])
def test_relabel_finds_a_video_with_or_without_the_leading_x(video):
    corrected = apply_errata(LIN, {"relabel": {video: "malignant"}})
    assert corrected["label"].tolist() == ["malignant", "malignant", "benign", "malignant", "malignant"]
    assert LIN["label"].tolist()[:2] == ["benign", "benign"]  # the argument is left alone


@pytest.mark.parametrize("video", ["malignant/x2390fbea047347b", "malignant/2390fbea047347b"])
def test_a_video_stored_without_x_is_found_too(video):
    corrected = apply_errata(LIN, {"relabel": {video: "benign"}})
    assert corrected.index[corrected["label"] != LIN["label"]].tolist() == [3]


def test_drop_marks_the_images_of_that_video_only():
    corrected = apply_errata(LIN, {"drop": ["benign/66ef02e7f1b9a0ef"]})
    assert corrected["dropped"].tolist() == [False, False, True, False, False]
    assert corrected["label"].equals(LIN["label"])


def test_same_patient_ties_videos_across_folders():
    patients = [["benign/x63c9ba1377f35bf6", "malignant/2390fbea047347b"], ["benign/x66ef02e7f1b9a0ef"]]
    patient = apply_errata(LIN, {"same_patient": patients})["patient"]
    assert patient[0] == patient[1] == patient[3] != patient[2]
    assert patient[4] == ""
    assert patient[2] != ""


def test_corrected_labels_keep_the_index_and_touch_their_own_source():
    images = table("busi/benign/benign (1)", "other/benign/x1/000000", "lin/benign/x1/000000")
    images.index = [7, 3, 5]
    sources = {
        "lin": {"errata": {"relabel": {"benign/x1": "malignant"}}},
        "busi": {},
        "other": {"errata": None},
    }
    assert corrected_labels(images, sources).to_dict() == {7: "benign", 3: "benign", 5: "malignant"}


def test_a_label_that_does_not_exist_is_an_error():
    with pytest.raises(BusflowError, match=r"errata.relabel gives benign/x1 the label 'malign': use one of"):
        apply_errata(LIN, {"relabel": {"benign/x1": "malign"}})


def test_a_video_without_images_is_said_aloud(caplog):
    apply_errata(LIN, {"drop": ["benign/x0"]})
    assert "the errata name the video benign/x0, of which there is no image" in caplog.text
