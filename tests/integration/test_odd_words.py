"""A study whose folder, labels and notice hold what a shell, Snakemake or a web page would obey."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from studies import PHANTOMS, ROOT, snakemake

FOLDER = "it's my étude $(touch X) `touch X`"
NOTICE = ".. raw:: html\n\n   <script>alert(1)</script>\n\n.. include:: /etc/passwd\n\n*DEMO*"
LABEL = "SegFormer$_{B0}$ </script><script>alert(2)</script>"


class Scripts(HTMLParser):
    """The contents of a page's script elements, as a browser divides them."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "script"
        self.found += [""] * self.inside

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.found[-1] += data


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The root of a study of one segmenter that was trained and reported; the checkout is this one."""
    root = tmp_path_factory.mktemp("odd") / FOLDER
    overlay = root.with_name("overlay.yaml")
    config = {
        "study": {"notice": NOTICE, "title": "*A* {title} </script>"},
        "root": str(root),
        "protocols": {"paper": None, "grouped": {"label": "Grouped </script> {x}"}},
        "sources": {"busi": {"urls": [PHANTOMS["busi"]], "tasks": ["segmentation"]}},
        "splits": {"balance_tolerance": 0.2},
        "only": {"segmentation": ["segformer_b0"]},
        "models": {"segmentation": {"segformer_b0": {"label": LABEL, "epochs": 1}}},
    }
    overlay.write_text(yaml.safe_dump(config))
    targets = [
        f"{root}/results/{name}"
        for name in ("tables/table1.html", "figures/fig2.png", "figures/segmentation_sizes_grouped.png")
    ]
    before = set(ROOT.iterdir())
    snakemake(*targets, "--configfile", overlay, "--nolock")
    snakemake(*targets, "--configfile", overlay, "--nolock", "--report", root.with_name("report.html"))
    assert {path.name for path in set(ROOT.iterdir()) - before} <= {".snakemake"}
    return root


@pytest.mark.slow
def test_a_folder_with_spaces_quotes_and_commands_holds_a_study_like_any_other(study):
    assert (study / "results/grouped/segmentation/segformer_b0/seed0/metrics.json").is_file()
    assert (study / "logs/figures/fig2.log").is_file() and (study / "runs").is_dir()
    assert {path.name for path in study.parent.iterdir()} == {FOLDER, "overlay.yaml", "report.html"}


@pytest.mark.slow
def test_the_report_shows_words_of_the_config_and_obeys_none(study):
    page = study.with_name("report.html").read_text()
    assert not [script for script in Scripts(page).found if script.lstrip().startswith("alert(")]
    assert "root:x:0" not in page and ".. include:: /etc/passwd" in page
    assert "<strong>.. raw:: html &lt;script&gt;" in page.replace("\\n", " ")
