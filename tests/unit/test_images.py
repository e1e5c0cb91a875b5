import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from busflow.data import images
from busflow.data.images import UnusableImage, decode, pixel_sha256, thumbnail

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def refusal(data: bytes, suffix: str = ".png") -> str:
    with pytest.raises(UnusableImage) as error:
        decode(data, suffix)
    return str(error.value)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def hollow_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be a huge grey image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_equal_channels_give_the_same_pixels_in_every_container(kind, mode):
    data = encoded(Image.fromarray(GREY).convert(mode), kind)
    np.testing.assert_array_equal(decode(data, f".{kind.lower()}"), GREY)


def test_colour_becomes_luma():
    colour = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    ours = decode(encoded(colour), ".png").astype(int)
    assert np.abs(ours - cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_ignored(mode):
    picture = Image.fromarray(GREY).convert(mode)
    picture.putalpha(Image.fromarray(GREY[::-1].copy()))
    np.testing.assert_array_equal(decode(encoded(picture), ".png"), GREY)


def test_one_bit_and_palette_images_show_their_colours():
    black_and_white = np.where(GREY > 100, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(decode(encoded(GREY > 100), ".png"), black_and_white)
    palette = Image.fromarray((GREY > 100).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    np.testing.assert_array_equal(decode(encoded(palette), ".png"), black_and_white)


def test_zero_bytes_are_refused():
    assert refusal(b"") == "empty file: it has no bytes"


def test_text_is_refused_without_a_memory_address_in_the_message():
    assert refusal(b"<html>Sign in</html>") == "not an image: its content is of no known format"


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("BMP", ".bmp")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_truncated_image_is_refused(kind, suffix, share):
    data = encoded(GREY, kind)
    assert "damaged: " in refusal(data[: int(share * len(data))], suffix)


def test_every_flipped_bit_of_png_pixels_is_found():
    data = encoded(GREY)
    start = data.index(b"IDAT") + 4
    for position in range(start, len(data) - 16, 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        assert refusal(bytes(flipped)).startswith("damaged: ")


def test_content_of_another_format_than_the_suffix_is_refused():
    assert refusal(encoded(GREY, "JPEG")) == "wrong suffix: the content is JPEG, the name says PNG"
    assert refusal(encoded(GREY), ".bmp") == "wrong suffix: the content is PNG, the name says BMP"


def test_sixteen_bits_are_refused_in_grey_and_in_colour():
    grey = GREY.astype(np.uint16) * 257
    colour = cv2.imencode(".png", np.dstack([grey] * 3))[1].tobytes()
    assert refusal(encoded(grey)) == refusal(colour) == "unsupported pixels: 16 bits per channel"


def test_cmyk_is_refused():
    data = encoded(Image.fromarray(GREY).convert("CMYK"), "JPEG")
    assert refusal(data, ".jpg") == "unsupported pixels: colour mode CMYK"


def test_an_image_that_is_stored_rotated_is_refused():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert refusal(encoded(GREY, exif=exif)).startswith("rotated: EXIF orientation is 6")


@pytest.mark.parametrize("side", [7_072, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    assert refusal(hollow_png(side, side)).startswith("absurd size: ")


def test_an_image_of_a_few_pixels_is_refused():
    assert refusal(encoded(GREY[:7])).startswith("absurd size: 50 × 7 px")
    assert decode(encoded(GREY[:8]), ".png").shape == (8, 50)


def test_pixel_hash_depends_on_pixels_and_shape_alone():
    changed = GREY.copy()
    changed[3, 4] ^= 1
    hashes = [pixel_sha256(grey) for grey in (GREY, changed, GREY.reshape(50, 40), GREY[:, ::-1])]
    assert len(set(hashes)) == 4
    assert pixel_sha256(np.asfortranarray(GREY)) == hashes[0]


def test_thumbnail_averages_areas():
    tiles = np.random.default_rng(2).integers(0, 256, (128, 192), dtype=np.uint8)
    expected = tiles.reshape(64, 2, 64, 3).mean(axis=(1, 3))
    assert np.abs(thumbnail(tiles) - expected).max() <= 1
    assert thumbnail(GREY).shape == (images.THUMBNAIL_SIDE, images.THUMBNAIL_SIDE)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("GIF", ".gif"), ("TIFF", ".tif"), ("WEBP", ".webp")]
)
def test_several_frames_in_one_file_are_refused(kind, suffix):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert refusal(data, suffix) == "several frames: it holds 2 pictures, not one"


def test_a_hidden_frame_behind_a_default_picture_is_refused():
    hidden = Image.fromarray(GREY[::-1].copy())
    data = encoded(Image.fromarray(GREY), default_image=True, save_all=True, append_images=[hidden])
    assert refusal(data).startswith("several frames: it holds 2 pictures")


@pytest.mark.parametrize("levels", [1, 2, images.MIN_LEVELS - 1])
def test_an_image_of_hardly_any_grey_levels_is_no_ultrasound(levels):
    with pytest.raises(UnusableImage, match=f"no ultrasound image: it has {levels} grey levels, 7 to "):
        images.check_contrast(7 + GREY % levels)


def test_a_faint_image_has_contrast_enough():
    images.check_contrast(GREY % images.MIN_LEVELS)
