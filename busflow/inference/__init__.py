"""Trained models on anyone's images, and in other programs: of a study nothing is needed but weights.pth."""

import busflow.models  # noqa: F401  (before anything imports torchvision)
