"""A recorded study made again in a scratch folder from what took long to make, by the rules that made it."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from busflow.files import read_json
from busflow.recording.checks import Check, kind_of, printable
from busflow.recording.hashes import recorded_stages
from busflow.recording.predictions import compare
from busflow.recording.study import Study, made_by, snakemake

CHECKOUT = ("busflow", "config", "config.yaml", "envs", "rules", "scripts", "workflow")
# What follows the predictions. No other rule may run: none of the stored files is made anew.
REBUILDING = (
    "evaluate_",
    "pool_",
    "tabulate_",
    "draw_",
    "make_card_",
    "find_errors_",
    "find_label_errors",
    "show_failures_",
    "measure_leakage",
    "audit",
    "record_config",
)
# In DVC's cache for their size, but made in seconds.
PICTURES = ("figures", "failures")


class Scratch:
    """A copy of a study in which all that took long to make is a link to the original."""

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder, self.origin = study, folder, Path.cwd()
        with Repo() as repo:
            stages = recorded_stages(repo, study)
            outs = [out for stage in stages for out in stage.outs]
            deps = [d for stage in stages for d in stage.deps if not isinstance(d, ParamsDependency)]
            paths = {Path(out.fs_path).relative_to(self.origin): out.use_cache for out in outs}
        self.recorded = {*paths, *(Path(dep.fs_path).relative_to(self.origin) for dep in deps)}
        self.rebuilt = [path for path, costly in paths.items() if not costly or path.name in PICTURES]
        self.stored = [path for path in paths if path not in self.rebuilt and path.name != "report.html"]
        for path in [*map(Path, CHECKOUT), *self.stored]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(self.origin / path)
        self.made = made_by(study, folder)

    def rebuild(self) -> list[Check]:
        """Make all that follows from the stored predictions again: metrics, tables, pages; compare bytes."""
        targets = ("tables", "figures", "cards", "failures")
        self._snakemake(*targets, rules=(*REBUILDING, *targets))
        pairs = sorted((kind_of(path), path) for path in self._files(self.rebuilt))
        checks = []
        for kind, group in groupby(pairs, key=lambda pair: pair[0]):
            paths = [path for _, path in group]
            checks.append(Check(f"rebuilt {kind}", len(paths), [p for q in paths if (p := self._unlike(q))]))
        return checks

    def predict(self, sample: list[Path]) -> list[Check]:
        """Predict again, by the weights on record, what these files hold; compare them."""
        for path in sample:
            for output in (path, path.with_name("timing.json")):
                (self.folder / output).unlink(missing_ok=True)
        self._snakemake(*sample, rules=("predict_",))
        return [self._predicted(path) for path in sample]

    def _predicted(self, path: Path) -> Check:
        again = self.folder / path
        name = f"predicted again: {'/'.join(path.parts[-5:-1])}"
        if not again.is_file():
            return Check(name, 1, [str(path)], "the prediction failed")
        found = compare(self.origin / path, again)
        devices = " and ".join(_device(file.with_name("timing.json")) for file in (self.origin / path, again))
        return Check(name, 1, [] if found.alike else [str(path)], f"{found.distance}; on {devices}")

    def _unlike(self, path: Path) -> str | None:
        if not (self.folder / path).is_file():
            return f"{path} (could not be rebuilt)"
        if not (self.origin / path).is_file():
            return f"{path} (missing)"
        return None if (self.folder / path).read_bytes() == (self.origin / path).read_bytes() else str(path)

    def _files(self, paths: list[Path]) -> Iterator[Path]:
        """The files among these paths and in these folders, here or there."""
        for path in paths:
            places = [place / path for place in (self.origin, self.folder)]
            if any(place.is_dir() for place in places):
                inside = {f.relative_to(place) for place in places for f in place.rglob("*") if f.is_file()}
                yield from (path / file for file in inside)
            else:
                yield path

    def _snakemake(self, *targets: str | Path, rules: tuple[str, ...]) -> None:
        # Failures show as files that are not there.
        allowed = {name for name in (*self.made.values(), *targets) if str(name).startswith(rules)}
        snakemake(*targets, "--configfile", self.study.overlay, "--allowed-rules", *allowed, cwd=self.folder)


def _device(timing: Path) -> str:
    """What a prediction was made on, as its timing says; nothing vouches for that of the record."""
    try:
        return printable(str(read_json(timing)["device"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "a device that is not known"
