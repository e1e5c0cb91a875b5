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


def test_sixteen_bits_are_refused_in_colour():
    colour = cv2.imencode(".png", np.dstack([GREY.astype(np.uint16) * 257] * 3))[1].tobytes()
    assert refusal(colour) == "unsupported pixels: 16 bits per channel in colour"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("factor", [1, 257])
def test_8_bits_that_were_stored_in_16_come_back_as_they_were(kind, factor):
    data = encoded(GREY.astype(np.uint16) * np.uint16(factor), kind)
    np.testing.assert_array_equal(decode(data, f".{kind.lower()}"), GREY)


def test_sixteen_bits_are_scaled_by_the_depth_they_use_whatever_a_few_pixels_say():
    wide = np.linspace(0, 4095, 2000).reshape(40, 50).round().astype(np.uint16)
    wide[0, :1] = 65535  # one of 2000: a mark burnt in white
    shown = decode(encoded(wide), ".png")
    expected = np.minimum(np.rint(wide / 4095 * 255), 255)
    assert np.abs(shown - expected).max() <= 0.5
    wide[0, :4] = 65535
    assert decode(encoded(wide), ".png")[0, :4].min() == 255
    assert decode(encoded(wide), ".png").max(axis=1)[1:].max() == 16  # now the picture does use 16 bits


@pytest.mark.parametrize(
    ("brightest", "bits"),
    [(1, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16)],
)
def test_sixteen_bits_are_taken_for_a_depth_that_scanners_have(brightest, bits):
    wide = np.linspace(0, brightest, 2000).reshape(40, 50).round().astype(np.uint16)
    wide[-1] = brightest
    shown = decode(encoded(wide), ".png")
    assert np.abs(shown - wide / (2**bits - 1) * 255).max() <= 0.5


def test_a_pictures_brightness_does_not_jump_at_a_power_of_two_between_depths():
    wide = np.full((40, 50), 1900, np.uint16)
    brighter = wide.copy()
    brighter[:20] = 2300
    assert decode(encoded(wide), ".png")[-1, -1] == decode(encoded(brighter), ".png")[-1, -1] == 118


def test_cmyk_is_refused():
    data = encoded(Image.fromarray(GREY).convert("CMYK"), "JPEG")
    assert refusal(data, ".jpg") == "unsupported pixels: colour mode CMYK"


@pytest.mark.parametrize(
    ("orientation", "shown"), [(6, np.rot90(GREY, -1)), (3, GREY[::-1, ::-1]), (2, GREY[:, ::-1])]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_an_image_that_is_stored_rotated_is_turned(kind, orientation, shown):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = cv2.GaussianBlur(shown, (5, 5), 0)
    stored = {6: np.rot90(smooth), 3: smooth[::-1, ::-1], 2: smooth[:, ::-1]}[orientation]
    turned = decode(encoded(np.ascontiguousarray(stored), kind, exif=exif), f".{kind.lower()}")
    assert np.abs(turned.astype(int) - smooth).max() <= (12 if kind == "JPEG" else 0)


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
