"""One visual language: what each colour means, in light and in dark. The hexes agree with .streamlit/config.toml."""

from __future__ import annotations

from dataclasses import dataclass

SENSITIVE_COLOUR = "#2F7FC1"
RESISTANT_COLOUR = "#DB7316"
UNKNOWN_COLOUR = "#8B95A1"  # uncertain, unlabelled or novel
RESPONSE = {"sensitive": SENSITIVE_COLOUR, "resistant": RESISTANT_COLOUR}

# P(resistant) from 0 to 1. Blue and orange differ in hue and in lightness from the grey between them, so the scale
# survives red-green blindness and a grey print; every stop has at least 2:1 against both backgrounds.
DIVERGING = ("#1F66A8", "#5A91C2", "#A3ADB7", "#D08B55", "#C9650E")

CATEGORIES = (
    "#0F766E",
    "#8A63C9",
    "#B4831B",
    "#C2528B",
    "#5B8C2A",
    "#4C78A8",
    "#A6603A",
    "#7A8794",
    "#2F9BA8",
    "#9A5B9E",
)


@dataclass(frozen=True)
class Ink:
    """Colours that depend on the background."""

    text: str
    soft: str  # captions, rules, secondary text
    faint: str  # fills behind marks
    paper: str  # the background itself, for halos and hollow marks
    accent: str
    worse_to_better: tuple[str, ...]  # orange below a reference, the colour of a faint fill at it, blue above
    on_strong: str  # text on either end of that scale


LIGHT = Ink(
    text="#17212B",
    soft="#5D6A76",
    faint="#E6ECEF",
    paper="#FFFFFF",
    accent="#0F766E",
    worse_to_better=("#B9590A", "#E8B98D", "#E6ECEF", "#9FC1E0", "#1F66A8"),
    on_strong="#FFFFFF",
)
DARK = Ink(
    text="#E4EAEF",
    soft="#A3B0BC",
    faint="#26323D",
    paper="#0F151B",
    accent="#35AFA3",
    worse_to_better=("#E89343", "#7D4F27", "#26323D", "#2E5C8A", "#62A8E5"),
    on_strong="#0F151B",
)
