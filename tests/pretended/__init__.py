"""A GPU that is only pretended, so that tests see on any machine what would go wrong on a real one."""

from pretended.card import as_kernel, card
from pretended.ledger import Ledger
from pretended.tensors import DEVICE, Pretended

__all__ = ["DEVICE", "Ledger", "Pretended", "as_kernel", "card"]
