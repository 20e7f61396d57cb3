"""How a folder of mosaics that the user names is read for a trained model: test_model.py --input."""

from argparse import Namespace

import torch

from data.camera import notes_of
from data.files import Reader
from data.folders import Split
from data.notes import note
from data.sensor import Sensor
from tasks.adaptation import adapted_reader
from tasks.model import Model


def open_reader(given: Namespace, model: Model, split: Split, device: torch.device) -> Reader:
    """The reader of --input's mosaics: of the camera that options name, else the model's, or of another with --adapt.

    Notes what is known to be of another camera. Raises `UserError` as `notes_of` and `adapted_reader` do.
    """
    notes, known = notes_of(split.raws), model.sensor
    if given.adapt:
        reader = adapted_reader(model, given.adapt, given.adapt_to or "", device)
        for remark in dict.fromkeys(filter(None, map(reader.remark, notes))):
            note(f"files in {given.input} are of {remark}")
        return reader
    if not notes and given.white_level not in (None, known.white_level) and not given.black_level:
        levels = " ".join(f"{level:g}" for level in known.black_level)
        note(f"the black levels are those of the checkpoint's camera, {levels}; --black-level sets others")
    sensor = Sensor(
        given.cfa or (notes[0].sensor.cfa if notes else known.cfa),
        tuple(given.black_level or known.black_level),
        known.white_level if given.white_level is None else given.white_level,
    )
    levels, size = "given" if given.black_level or given.white_level else "file", (given.raw_height, given.raw_width)
    model.note_another_camera(notes)
    return Reader(sensor, tuple(side or 0 for side in size), model.normalisation, levels, model.lens_shading)
