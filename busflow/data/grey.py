"""Grey levels of more than 8 bits."""

import numpy as np

# An image may have so many pixels (of all, 0..1) above the depth that is taken for its own: hot pixels, a
# white mark.
OUTLIERS = 0.001
DEPTHS = (8, 10, 12, 14, 16)  # in bits, that scanners have


def to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Scale wide grey levels to 0..255, by the depth in bits that the picture makes use of.

    That depth is the smallest of 8, 10, 12, 14 and 16 bits that holds all but a thousandth of the pixels;
    what is above becomes white. Zero stays black and the scale is linear, so that pictures of one depth stay
    comparable, whatever their contrast; 8 bits that were only stored in 16, or multiplied by 257, come back
    as they were. A picture that leaves two bits of its scanner unused is taken for one of a smaller depth.

    Args:
        grey: unsigned integers [height, width], 0..65535.

    Returns:
        uint8 array [height, width].
    """
    ranked = np.partition(grey.ravel(), index := int((grey.size - 1) * (1 - OUTLIERS)))
    top = next(last for depth in DEPTHS if ranked[index] <= (last := (1 << depth) - 1))
    levels = np.minimum(grey, top).astype(np.uint32)
    return ((levels * 255 + top // 2) // top).astype(np.uint8)
