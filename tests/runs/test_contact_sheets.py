"""Contact sheets: pictures in their places, and captions in any script."""

import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, features

from trainer_ext.runs.pictures import lettering
from trainer_ext.runs.pictures.contact_sheet import CAPTION, GAP, PICTURE, ContactSheet
from trainer_ext.runs.pictures.lettering import can_be_shown, write_line
from trainer_ext.runs.pictures.sheets import SampleSet, draw_sheet

COLUMN, ROW = PICTURE + GAP, PICTURE + CAPTION
WHITE = (255, 255, 255)


def plain(*colours, height=8, width=8):
    images = [np.full((height, width, 3), colour, np.uint8) for colour in colours]
    return torch.from_numpy(np.stack(images))


def written(text, size=10):
    """Return what is written of a text, as a picture of 400 x 40 pixels."""
    image = Image.new("L", (400, 40), "white")
    write_line(ImageDraw.Draw(image), 200, 20, text, size)
    return np.array(image)


def test_pictures_stand_below_their_captions_in_blocks_of_all_rows(tmp_path):
    before = SampleSet(list("abc"), [0, 1, 2], plain((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    after = SampleSet(list("abc"), [0, 1, 2], plain((99, 0, 0), (0, 99, 0), (0, 0, 99)))
    draw_sheet(tmp_path / "sheet.png", [("before", before), ("after", after)], columns=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.array(sheet)
    assert pixels.shape == (4 * ROW + GAP, 2 * COLUMN, 3)
    places = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (99, 0, 0), (1, 1): (0, 99, 0)}
    places |= {(2, 0): (0, 0, 255), (2, 1): WHITE, (3, 0): (0, 0, 99), (3, 1): WHITE}
    for (row, column), colour in places.items():
        cell = pixels[row * ROW : (row + 1) * ROW, column * COLUMN : (column + 1) * COLUMN]
        assert (cell[CAPTION:, GAP // 2 : GAP // 2 + PICTURE] == colour).all()
        is_written = (cell[:CAPTION] < 128).any()
        assert is_written == (colour != WHITE)


@pytest.mark.parametrize(("height", "width", "shape"), [(50, 100, (91, 182)), (100, 50, (182, 91)), (400, 1, (182, 1))])
def test_a_picture_keeps_its_shape_in_the_middle_of_its_place(height, width, shape):
    sheet = ContactSheet(1, 1)
    sheet.put(0, 0, Image.new("RGB", (width, height), "red"), "")
    rows, columns = np.nonzero((np.array(sheet.image) != WHITE).any(2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == shape
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(CAPTION + PICTURE / 2, abs=0.5)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(COLUMN / 2, abs=0.5)


def test_pixels_are_not_blurred():
    sheet = ContactSheet(1, 1)
    sheet.put(0, 0, Image.fromarray(np.array([[[9, 9, 9], [0, 200, 0]]], np.uint8)), "")
    assert {colour for _, colour in sheet.image.getcolors()} == {WHITE, (9, 9, 9), (0, 200, 0)}


def test_a_caption_is_centred_and_ends_above_its_picture():
    sheet = ContactSheet(1, 1)
    sheet.put(0, 0, Image.new("RGB", (8, 8), "red"), "oooo\noo")
    rows, columns = np.nonzero((np.array(sheet.image) < 128).all(2))
    assert rows.max() == CAPTION - GAP - 1
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(COLUMN / 2, abs=1)
    lower = np.ptp(columns[rows > CAPTION - GAP - 10])
    assert np.ptp(columns[rows < CAPTION - GAP - 12]) == pytest.approx(2 * lower, abs=2)


@pytest.fixture
def two_fonts(monkeypatch):
    """The second one, which matplotlib ships too, has letters that the first one lacks."""
    monkeypatch.setattr(lettering, "FONTS", ("DejaVu Sans", "STIXNonUnicode", "no such font"))
    lettering._faces.cache_clear()
    yield font_manager.findfont("STIXNonUnicode")
    lettering._faces.cache_clear()


def test_each_letter_is_written_with_the_first_font_that_has_it(two_fonts):
    missing = next(chr(code) for code in range(0xE000, 0xE300) if code in lettering._faces()[1].characters)
    font = ImageFont.truetype(two_fonts, 10)
    image = Image.new("L", (400, 40), "white")
    ImageDraw.Draw(image).text((200 - font.getlength(missing) / 2, 20), missing, "black", font, anchor="ls")
    assert (written(missing) == np.array(image)).all()
    assert (written(f"a{missing}") != written("a")).any()
    before, after = (np.nonzero((written(text) < 128).any(0))[0] for text in ("aa", f"a{missing}a"))
    assert np.ptp(after) - np.ptp(before) == pytest.approx(font.getlength(missing), abs=1.5)


def test_what_no_font_has_is_not_shown():
    assert can_be_shown("a")
    assert not can_be_shown("\ue000")
    assert not can_be_shown("\n")


@pytest.mark.skipif(not features.check("raqm"), reason="needs libfribidi")
def test_arabic_letters_are_joined_and_stand_from_right_to_left():
    """Joined letters are narrower than those that stand alone."""
    joined, alone = (np.ptp(np.nonzero((written(text) < 128).any(0))[0]) for text in ("ببب", "ب\u200cب\u200cب"))
    assert joined < 0.8 * alone
    first = np.nonzero((written("ا" + "ب" * 4) < 128).any(0))[0]
    tall = np.nonzero((written("ا" + "ب" * 4)[:14] < 128).any(0))[0]  # the alef, which comes first
    assert tall.min() > first.min() + 0.7 * np.ptp(first)
