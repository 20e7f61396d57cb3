"""Where the colours of each CFA order lie, and black levels, written down by hand."""

BY_HAND = {
    "rggb": {"R": (0, 0), "Gr": (0, 1), "Gb": (1, 0), "B": (1, 1)},
    "bggr": {"R": (1, 1), "Gr": (1, 0), "Gb": (0, 1), "B": (0, 0)},
    "grbg": {"R": (0, 1), "Gr": (0, 0), "Gb": (1, 1), "B": (1, 0)},
    "gbrg": {"R": (1, 0), "Gr": (1, 1), "Gb": (0, 0), "B": (0, 1)},
}
LEVELS = (10.0, 20.0, 30.0, 40.0)  # of R, Gr, Gb, B
