"""Training, inference and timing."""

import busflow.models  # noqa: F401  (before anything imports torchvision)
