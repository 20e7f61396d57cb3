"""A page to look at aligned pairs: a slider and a flicker between rendering and photograph, before and after."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.report import table, write_page

PAGE, KIND = "index.html", "Aligned pairs"
PICTURES = ("rendering", "before", "after")
MOST = 40  # pairs on the page, those that agree least
COLUMN = 512  # CSS pixels to which small pictures are enlarged


def write_alignment_page(out: Path, folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write OUT/index.html of the records of pairs, whose pictures lie in `folder`; return its path."""
    shown = sorted((record for record in records if not record["refused"]), key=lambda r: r["figures"].get("ncc", 0.0))
    scenes = [scene for record in shown if (scene := _scene(folder, record))][:MOST]
    refused = [{"pair": record["name"], "why": record["refused"]} for record in records if record["refused"]]
    facts = {"pairs": len(records), "refused": len(refused), "shown": f"{len(scenes)}, those that agree least first"}
    values = {"facts": facts, "scenes": scenes, "refused": table(refused, {}, {})}
    write_page(out / PAGE, "alignment.html", title=out.absolute().name, kind=KIND, warnings=[], **values)
    return out / PAGE


def _scene(folder: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """The values that the template shows of a pair; None if it has no pictures."""
    files = {name: folder / f"{record['name']}.{name}.jpg" for name in PICTURES}
    if not all(path.is_file() for path in files.values()):
        return None
    contents = {name: path.read_bytes() for name, path in files.items()}
    width, height = Image.open(io.BytesIO(contents["rendering"])).size
    patches = record["patches"]
    kept = {"patches": f"{sum(not patch['rejected'] for patch in patches)} of {len(patches)} kept"} if patches else {}
    return {
        "name": record["name"],
        "caption": record.get("misaligned", ""),
        "width": width,
        "height": height,
        "page_width": width * max(1, COLUMN // width),
        "pictures": {
            name: f"data:image/jpeg;base64,{base64.b64encode(content).decode()}" for name, content in contents.items()
        },
        "scores": kept | {name.replace("_", " "): _number(value) for name, value in record["figures"].items()},
    }


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"
