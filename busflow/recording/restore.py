"""What has to happen before a stage runs again: undo what was changed by hand.

Snakemake does not look at the contents of its outputs. An output that was edited would stay, and
DVC would record it as the result of the stage.
"""

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
from dvc.repo import Repo

from busflow.errors import BusflowError


def restore(ledger: Path) -> Iterator[str]:
    """Bring the outputs of a study to a state in which Snakemake's judgement is right.

    An output that is rebuilt in seconds is removed when it differs from the record. One in DVC's cache
    is put back from there when all that its stage depends on is as recorded, and only the output is not;
    when its dependencies changed too, it may be newer than the record, and is left to Snakemake. A file that
    the cache lacks is removed, so that Snakemake makes it again.

    Yields a line on each output that was put back or removed.
    Raises BusflowError on a folder that differs and that the cache lacks.
    """
    with Repo() as repo:
        for stage in reversed(list(nx.topological_sort(repo.index.graph))):  # from the data to the report
            if stage.path != str(ledger.absolute()):
                continue
            changed = [out for out in stage.outs if out.hash_info and out.workspace_status()]
            if changed and any(dependency.status() for dependency in stage.deps):
                changed = [out for out in changed if not out.use_cache]
            yield from (_undo(out) for out in changed if out.use_cache or out.exists)


def _undo(out) -> str:
    if out.use_cache and not out.changed_cache():
        out.checkout(force=True)
        return f"{out} differed from the record: put back from the cache"
    if out.use_cache and Path(out.fs_path).is_dir():
        raise BusflowError(
            f"{out} differs from the record, and the cache lacks it: dvc pull it, or remove the folder"
        )
    out.remove()
    return f"{out} differed from the record: removed, to be made again"
