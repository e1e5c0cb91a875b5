"""Shared by all tests."""

import torch

import busflow.models  # noqa: F401  (makes torchvision importable before a test imports it)

torch.set_num_threads(1)
