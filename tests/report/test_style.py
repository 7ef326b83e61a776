import re
from pathlib import Path

from bitcorn_ray.report import html
from bitcorn_ray.report.style import SCRIPT, STYLE


def test_every_colour_is_there_in_light_and_dark():
    light, dark = (dict(re.findall(r"(--[a-z0-9]+): (#[0-9a-f]{6})", part)) for part in STYLE.split("@media")[:2])
    assert set(light) == set(dark)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", STYLE)) | set(re.findall(r"colour\('(--[a-z]+)'\)", SCRIPT))
    assert used <= set(light)
    assert {f"--c{n}" for n in range(5)} | {f"--s{n}" for n in range(1, 7)} <= set(light)
    modules = "".join(path.read_text() for path in Path(html.__file__).parent.glob("*.py"))
    assert set(re.findall(r"\"var\((--[a-z0-9]+)\)\"", modules)) <= set(light)


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_on_its_background():
    for part in STYLE.split("@media")[:2]:
        colours = dict(re.findall(r"(--[a-z0-9]+): (#[0-9a-f]{6})", part))
        for ink in ("--ink", "--soft", "--link", "--good", "--fair", "--poor", *(f"--s{n}" for n in range(1, 7))):
            for back in ("--back", "--card"):
                bright, dark = sorted((luminance(colours[ink]), luminance(colours[back])), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.0, (ink, back)
