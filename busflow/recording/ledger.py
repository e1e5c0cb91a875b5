"""The ``dvc.yaml`` of a study: the demonstration's stages, cut to what the study makes."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from busflow.recording.study import LEDGER, Study

OUTPUTS = ("outs", "metrics", "plots")
OUTSIDE = "data/external"
BASE = "${checkout}/config.yaml"
OF_OUTSIDE = re.compile(r"results/[^/]+/(?P<task>[^/]+)/[^/]+/seed\d+/(?P<file>external/.+)")
QUICK = ("/metrics.json", "/scores.json")


def ledger_of(study: Study, made: Iterable[Path]) -> str:
    """A study may lack tasks, models and protocols, and have what the demonstration lacks: other protocols,
    external sources.

    Of each stage stay the outputs that are among the ``made`` files or hold some of them, the dependencies
    that are code or made, and the settings that the resolved config has; a stage without outputs is left out.
    """
    demo = _read(Path(LEDGER))
    config = _read(study.root / "results/config.yaml")
    known = _read(Path("config.yaml"))["protocols"]
    names = [path.relative_to(study.root).as_posix() for path in made]

    def is_made(entry: str | dict) -> bool:
        """Whether the study makes an output or what lies in it; ``${item.…}`` stands for any name."""
        escaped = re.escape(_path(entry))
        pattern = re.compile(re.sub(r"\\\$\\\{item\\\.\w+\\\}", "[^/]+", escaped) + "(?:/|$)")
        return any(pattern.match(name) for name in names)

    def of_protocols(paths: list[str]) -> list[str]:
        """A result of one of the demonstration's protocols stands for that of each protocol of the study."""
        pattern = rf"(?<=[/_])({'|'.join(known)})(?=\.|$)"
        return [*dict.fromkeys(re.sub(pattern, to, path) for path in paths for to in config["protocols"])]

    stages = {name: _cut(stage, config, is_made, of_protocols) for name, stage in demo["stages"].items()}
    for stage, added in _additions(names, demo).items():
        stages[stage]["outs"].extend(added)
        if stage != "data" and is_made(OUTSIDE):
            stages[stage]["deps"].append(OUTSIDE)
    ledger = {
        "vars": [
            "results/config.yaml",
            {
                "overlay": str(study.overlay),
                "settings": "results/config.yaml",
                "checkout": "/".join(".." for _ in study.root.parts),
            },
        ],
        "stages": {name: stage for name, stage in stages.items() if any(map(stage.get, OUTPUTS))},
        "plots": [path for path in of_protocols(demo["plots"]) if is_made(path)],
    }
    written = yaml.safe_dump(ledger, sort_keys=False, allow_unicode=True, width=1000)
    return f"# Written by make record: the stages of {LEDGER} at the top, for this study.\n{written}"


def _additions(names: list[str], demo: dict) -> dict[str, list[dict]]:
    """Outputs that the demonstration lacks, by stage: external tests, scores of all folds, further tables."""
    known = {_path(entry) for entry in demo["stages"]["report"]["outs"]}
    paths: dict[str, set[str]] = {"data": set(), "report": set()}
    for name in names:
        if unit := OF_OUTSIDE.match(name):
            place = f"results/${{item.protocol}}/{unit['task']}/${{item.model}}/seed${{item.seed}}"
            paths.setdefault(unit["task"], set()).add(f"{place}/{unit['file']}")
        elif name.startswith(f"{OUTSIDE}/"):
            paths["data"].add(OUTSIDE)
        elif name.startswith("results/pooled/"):
            paths["report"].add("results/pooled")
        elif name.startswith("results/tables/") and name not in known:
            paths["report"].add(name)
    return {
        stage: [{path: {"persist": True} | _storage(path)} for path in sorted(found)]
        for stage, found in paths.items()
    }


def _storage(path: str) -> dict[str, bool]:
    """What is text and made in seconds lies in Git."""
    quick = path.startswith("results/tables/") or path.endswith(QUICK)
    return {"cache": False} if quick else {}


def _cut(stage: dict, config: dict, is_made: Callable, of_protocols: Callable) -> dict:
    code = [path for path in stage["deps"] if path.startswith("${checkout}/")]
    if BASE in code:
        code.append("${checkout}/${overlay}")
    made = [path for path in of_protocols(stage["deps"]) if path not in code and is_made(path)]
    params = [
        {file: [key for key in keys if _has(config, key)] for file, keys in entry.items()}
        for entry in stage.get("params", [])
    ]
    outputs = {section: list(filter(is_made, stage.get(section, []))) for section in OUTPUTS}
    cut = stage | {"deps": code + made, "params": params} | outputs
    return {section: content for section, content in cut.items() if content}


def _has(config: dict, key: str) -> bool:
    """Whether the config has a key such as ``training.detection``; names that a matrix fills in are there."""
    for name in key.partition(".${item")[0].split("."):
        if name not in config:
            return False
        config = config[name]
    return True


def _path(entry: str | dict) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
