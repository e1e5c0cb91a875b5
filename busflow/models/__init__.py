"""Networks. Importing this package lets torchvision, mmcv.ops and mmdet be imported after it."""

from busflow.models.ops import ensure_operators, ensure_torchvision

ensure_torchvision()
ensure_operators()
