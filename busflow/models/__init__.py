"""Networks. Importing this package makes torchvision importable beside any build of torch."""

from busflow.models.ops import ensure_torchvision

ensure_torchvision()
