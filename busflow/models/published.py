"""The configurations that OpenMMLab's libraries ship."""

from pathlib import Path
from types import ModuleType

from mmengine.config import Config, ConfigDict


def published_model(library: ModuleType, name: str) -> ConfigDict:
    """The model of one of a library's configurations.

    Read as a file: mmengine's ``get_config`` reads the descriptions of all of the library's models beside
    it, which takes a second, and would let pip install another mmseg, because this one's distribution has
    another name.

    Args:
        library: mmdet or mmseg.
        name: path of the configuration below the library's ``configs``.
    """
    configs = Path(library.__file__).parent / ".mim/configs"
    return Config.fromfile(configs / name, import_custom_modules=False).model
