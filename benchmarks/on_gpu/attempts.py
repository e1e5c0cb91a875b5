"""What goes wrong with one model stands beside the figures of the others."""

import gc
import traceback
from collections.abc import Callable

import torch


def attempt(call: Callable[[], dict]) -> dict:
    """What a call returns, or what went wrong; the GPU's memory is free again afterwards."""
    try:
        return call()
    except Exception as error:
        last = traceback.format_exception(error, limit=-5)
        return {"error": f"{type(error).__name__}: {error}"[:300], "traceback": "".join(last)[-2000:]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
